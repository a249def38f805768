"""Defects of metrics, request ids and logs."""

from __future__ import annotations

from tests.defects.defect import Defect, Edit, planted_in

_requests = planted_in("service/requests.py")
_metrics = planted_in("service/metrics.py")
_logs = planted_in("service/logs.py")

_ID = "request_id = sent if _ID.fullmatch(sent) else uuid.uuid4().hex"
_SET_ID = '                headers["X-Request-ID"] = request_id\n'
_COUNT = "        self._requests.labels(method, route, str(status)).inc()\n"

DEFECTS = (
    _metrics(
        "metrics-as-json",
        'generate_latest(self.registry), media_type="text/plain; version=0.0.4"',
        '\'{"requests": 1}\', media_type="application/json"',
        probe="observability.metrics",
        what="The metrics are JSON, which Prometheus does not read.",
    ),
    _metrics(
        "metrics-cut-off",
        "generate_latest(self.registry), media",
        'generate_latest(self.registry)[:-9] + b"{", media',
        probe="observability.metrics",
        what="The text of the metrics ends within a line.",
    ),
    _metrics(
        "counter-stands-still",
        _COUNT,
        _COUNT.replace(".inc()", ".inc(0)"),
        probe="observability.counters",
        what="The counter of requests is there, and does not move.",
    ),
    _metrics(
        "no-counter-of-requests",
        _COUNT,
        "        pass\n",
        probe="observability.counters",
        what="Requests are not counted at all.",
    ),
    _requests(
        "no-request-id",
        _SET_ID,
        f'                if scope["path"] == "/health":\n    {_SET_ID}',
        probe="observability.request-id",
        what="Only the answers to health checks carry a request id.",
    ),
    _requests(
        "request-id-not-echoed",
        _ID,
        "request_id = uuid.uuid4().hex",
        probe="observability.request-id-kept",
        what="An id that the caller sent is replaced by another.",
    ),
    _requests(
        "one-request-id",
        _ID,
        'request_id = sent if _ID.fullmatch(sent) else "0" * 32',
        probe="observability.request-id",
        what="All requests without an id get the same.",
    ),
    _requests(
        "no-request-id-on-errors",
        _SET_ID,
        f"                if status < 400:\n    {_SET_ID}",
        probe="observability.request-id",
        what="Errors, of which people ask, carry no request id.",
    ),
    _requests(
        "any-request-id",
        _ID,
        "request_id = sent or uuid.uuid4().hex",
        probe="observability.request-id-malformed",
        what="Whatever is sent as an id goes into logs and answers.",
    ),
    _logs(
        "logs-as-text",
        "structlog.processors.JSONRenderer(default=str)",
        "structlog.dev.ConsoleRenderer(colors=False)",
        probe="observability.logs",
        what="The log is text for people.",
    ),
    _requests(
        "logs-without-request-id",
        "with structlog.contextvars.bound_contextvars(request_id=request_id):",
        "with structlog.contextvars.bound_contextvars():",
        probe="observability.logs",
        what="The lines of the log name no request.",
    ),
    _requests(
        "requests-not-logged",
        '        _log.info(\n            "request",',
        '        _log.debug(\n            "request",',
        probe="observability.logs",
        what="A good request leaves no line in the log.",
    ),
    Defect(
        name="headers-in-the-log",
        what="The log holds the headers of requests, keys among them.",
        probe="observability.logs",
        edits=(
            Edit(file="service/logs.py", old="            mask,\n", new=""),
            Edit(
                file="service/requests.py",
                old="            method=method,\n",
                new='            method=method, sent=str(scope["headers"]),\n',
            ),
        ),
    ),
    Defect(
        name="query-in-the-log",
        what="The log holds whole addresses, with the token in a parameter.",
        probe="observability.logs",
        edits=(
            Edit(file="service/logs.py", old="            mask,\n", new=""),
            Edit(
                file="service/requests.py",
                old="            method=method,\n",
                new='            method=method, query=str(scope["query_string"]),\n',
            ),
        ),
    ),
)
