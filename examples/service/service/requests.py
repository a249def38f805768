"""Requests: each has an id, a line in the log and a count; each answer safe headers."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HSTS = {"Strict-Transport-Security": "max-age=63072000; includeSubDomains"}
_STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")
_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_log = structlog.get_logger()


def safe_headers(*, https: bool) -> dict[str, str]:
    """Return the headers that every answer has."""
    return _HEADERS | (_HSTS if https else {})


class Requests:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, https: bool) -> None:
        self._app, self._metrics = app, metrics
        self._headers = safe_headers(https=https)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with an id, and record how it ended."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _ID.fullmatch(sent) else uuid.uuid4().hex
        status = 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in _STARTS:
                status = message.get("status", 101)
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = request_id
            await send(message)

        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, with_headers)
            finally:
                self._record(scope, status, time.monotonic() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope.get("method", "WEBSOCKET")
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.count(method, route, status, seconds)
        account = scope.get("account")
        _log.info(
            "request",
            method=method,
            path=scope["path"],
            route=route,
            status=status,
            seconds=round(seconds, 4),
            account=account.name if account else None,
            client=(scope.get("client") or (None,))[0],
        )
