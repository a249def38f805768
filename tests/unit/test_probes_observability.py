"""The probes of metrics, request ids and logs: right answers pass, each wrong one fails."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.openmetrics import exposition
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from opskit.config.smoke import SmokeSettings
from opskit.probes import observability
from tests.unit.probed import asked

KEY = "opk_a81f9c"
SETTINGS: dict[str, Any] = {
    "identity": "X-Request-ID",
    "observability": {"metrics": "/metrics", "request_id": "X-Request-ID"},
}
IDS = (
    "observability.request-id",
    "observability.request-id-kept",
    "observability.request-id-malformed",
)


class Service:
    """One that counts, names and logs its requests; each part can be replaced."""

    def __init__(
        self,
        *,
        counted: Callable[[Request], bool] = lambda _request: True,
        named: Callable[[str], str] = lambda sent: _named(sent),
        unnamed: tuple[int, ...] = (),
        metrics: bytes | None = None,
        content_type: str = CONTENT_TYPE_LATEST,
        began: float = 1.0,
        log: Path | None = None,
        line: Callable[[Request, str], str] = lambda request, known: _line(
            request, known
        ),
    ) -> None:
        self._counted, self._named, self._unnamed = counted, named, unnamed
        self._metrics, self._type = metrics, content_type
        self._log, self._line = log, line
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "all", ["path"], registry=self._registry
        )
        self._seconds = Histogram("seconds", "all", registry=self._registry)
        start = Gauge("process_start_time_seconds", "start", registry=self._registry)
        start.set(began)

    def __call__(self, request: Request) -> Response:
        """Answer a request."""
        path = request.url.path
        if self._counted(request):
            self._requests.labels(path).inc()
            self._seconds.observe(0.1)
        if path == "/metrics":
            return self._measured()
        known = self._named(request.headers.get("X-Request-ID", ""))
        if self._log:
            with self._log.open("a") as log:
                log.write(self._line(request, known) + "\n")
        status = 200 if path == "/health" else 404
        if path == "/health" and request.method == "POST":
            status = 405
        headers = {} if status in self._unnamed else {"X-Request-ID": known}
        return PlainTextResponse("", status, headers)

    def _measured(self) -> Response:
        found = self._metrics
        if found is None and "openmetrics" in self._type:
            found = exposition.generate_latest(self._registry)
        elif found is None:
            found = generate_latest(self._registry)
        headers = {"Content-Type": self._type, "X-Request-ID": "a" * 8}
        return Response(found, headers=headers)


def _named(sent: str) -> str:
    return sent if re.fullmatch(r"[A-Za-z0-9-]{8,64}", sent) else str(uuid.uuid4())


def _line(request: Request, known: str, **more: object) -> str:
    return json.dumps({"path": request.url.path, "request_id": known, **more})


@pytest.mark.parametrize(
    "name", ["observability.metrics", "observability.counters", *IDS]
)
def test_a_right_answer_passes(name: str) -> None:
    check = asked(Service(), name, **SETTINGS)

    assert check.passed, check


@pytest.mark.parametrize("name", ["observability.metrics", "observability.counters"])
def test_openmetrics_pass(name: str) -> None:
    service = Service(content_type=exposition.CONTENT_TYPE_LATEST)

    assert asked(service, name, **SETTINGS).passed


@pytest.mark.parametrize(
    "service",
    [
        Service(metrics=b""),
        Service(metrics=b"<!DOCTYPE html><html><body>Hello</body></html>"),
        Service(metrics=b'{"requests": 12}'),
        Service(metrics=b"requests_total{path=/health} 12\n"),
        Service(metrics=b"requests_total twelve\n"),
        Service(metrics=b"requests_total 1\xff\n"),
        Service(metrics=b"requests_total\n"),
        Service(content_type="application/json"),
        Service(content_type=exposition.CONTENT_TYPE_LATEST, metrics=b"a_total 1\n"),
    ],
    ids=[
        "nothing",
        "a page",
        "JSON",
        "no quotes",
        "no number",
        "no UTF-8",
        "no value",
        "another type",
        "no end",
    ],
)
def test_metrics_that_prometheus_does_not_parse_fail(service: Service) -> None:
    check = asked(service, "observability.metrics", **SETTINGS)

    assert check.passed is False


@pytest.mark.parametrize(
    "counted",
    [lambda _request: False, lambda request: request.url.path == "/metrics"],
    ids=["no request", "only those of metrics"],
)
def test_a_counter_that_stands_still_fails(
    counted: Callable[[Request], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observability, "_PAUSE_SECONDS", 0)
    check = asked(Service(counted=counted), "observability.counters", **SETTINGS)

    assert check.passed is False


def test_metrics_of_several_processes_say_nothing_about_a_counter() -> None:
    """A balancer sends each request elsewhere, and each counts its own."""
    services = cycle([Service(began=1.0), Service(began=2.0)])

    check = asked(
        lambda request: next(services)(request), "observability.counters", **SETTINGS
    )

    assert check.passed is None
    assert check.detail == "several processes answer, each with metrics of its own"


@pytest.mark.parametrize(
    ("counter", "passes"),
    [
        ("http_requests", True),
        ("http_requests_total", True),
        ("seconds", True),
        ("orders_total", False),
    ],
)
def test_the_counter_may_be_named(counter: str, passes: bool) -> None:
    settings: dict[str, Any] = {
        "observability": {"metrics": "/metrics", "counter": counter}
    }

    assert asked(Service(), "observability.counters", **settings).passed is passes


@pytest.mark.parametrize("status", [200, 404, 405])
def test_an_answer_without_an_id_fails(status: int) -> None:
    """Also where the id is what identifies the service's answers."""
    check = asked(Service(unnamed=(status,)), IDS[0], **SETTINGS)

    assert check.passed is False
    assert f"({status})" in check.observed


@pytest.mark.parametrize(
    "named",
    [lambda _sent: "always-the-same", lambda _sent: "7", lambda _sent: "a b" * 9],
)
def test_an_id_that_finds_nothing_fails(named: Callable[[str], str]) -> None:
    assert asked(Service(named=named), IDS[0], **SETTINGS).passed is False


def test_an_id_that_does_not_come_back_fails() -> None:
    service = Service(named=lambda _sent: str(uuid.uuid4()))

    assert asked(service, IDS[1], **SETTINGS).passed is False


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        (lambda sent: sent, "a newline came back; quotes and spaces came back; an encoded newline came back; 10,000 letters came back"),
        (lambda sent: sent if len(sent) < 65 else "abcdefgh", "a newline came back; quotes and spaces came back; an encoded newline came back"),
        (lambda sent: sent[:64] or "abcdefgh", "a newline came back; quotes and spaces came back; an encoded newline came back; 10,000 letters came back"),
        (lambda sent: sent if sent.isalnum() else "abcdefgh", "10,000 letters came back"),
        (lambda sent: sent if re.fullmatch(r"[\w%]+", sent) and len(sent) < 65 else "abcdefgh", "an encoded newline came back"),
    ],
    ids=["everything", "what is short", "cut", "what has letters", "what is a word"],
)  # fmt: skip
def test_a_malformed_id_that_comes_back_fails(
    named: Callable[[str], str], fault: str
) -> None:
    check = asked(Service(named=named), IDS[2], **SETTINGS)

    assert (check.passed, check.observed) == (False, fault)


def _logged(log: Path, *, as_command: bool = False, **parts: Any) -> Any:
    place = (
        {"log_command": [sys.executable, "-c", f"print(open({str(log)!r}).read())"]}
        if as_command
        else {"log_file": str(log)}
    )
    settings = {
        "identity": "X-Request-ID",
        "observability": {"request_id": "X-Request-ID", "key": "writer", **place},
    }
    return asked(
        Service(log=log, **parts),
        "observability.logs",
        keys={"writer": {"X-API-Key": KEY}, "admin": {"Authorization": "Bearer a.b.c"}},
        **settings,
    )


@pytest.mark.parametrize("as_command", [False, True])
def test_a_log_of_json_with_ids_passes(tmp_path: Path, as_command: bool) -> None:
    """What was logged before is not read again."""
    log = tmp_path / "service.log"
    if not as_command:
        log.write_text(f"starting with {KEY}\n")

    check = _logged(log, as_command=as_command)

    assert check.passed, check


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (lambda request, known: _line(request, "-"), "no line with the id"),
        (lambda request, known: f"GET {request.url.path} {known}", "a line that is no JSON object"),
        (lambda request, known: f'"{known}"', "a line that is no JSON object"),
        (lambda request, known: _line(request, known, url=str(request.url)), "a key or token in 1 lines"),
        (lambda request, known: _line(request, known, headers=dict(request.headers)), "a key or token in 2 lines"),
        (lambda request, known: _line(request, known, key=request.headers.get("x-api-key")), "a key or token in 2 lines"),
        (lambda request, known: _line(request, known, key=request.headers.get("authorization")), "a key or token in 1 lines"),
        (lambda request, known: _line(request, known, key=request.headers.get("cookie")), "a key or token in 1 lines"),
    ],
    ids=["no id", "text", "a word", "address", "headers", "key", "token", "cookie"],
)  # fmt: skip
def test_a_log_that_is_wrong_fails(
    tmp_path: Path,
    line: Callable[[Request, str], str],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(observability, "_LOG_SECONDS_MAX", 0.5)
    check = _logged(tmp_path / "service.log", line=line)

    assert check.passed is False
    assert check.observed.startswith(fault)
    assert KEY not in str(check)


def test_a_log_that_cannot_be_read_is_inconclusive(tmp_path: Path) -> None:
    check = _logged(tmp_path / "is" / "not" / "there", as_command=True)

    assert check.passed is None


def test_nothing_is_asked_where_nothing_is_configured() -> None:
    assert not list(observability.probes(SmokeSettings()))
