"""Web: health, metrics and the page over HTTP, by a server in a thread.

Its answers come from the newest state alone. Whatever clients do, they get an answer
with the same headers, or the connection is closed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import re
import resource
import socket
import time
from dataclasses import dataclass
from typing import Any

import h11
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from opskit import __version__, log
from opskit.checks import Check, Health, worst
from opskit.config.watch import read_key
from opskit.errors import ConfigurationError
from opskit.operations.run import Run
from opskit.threads import Thread
from opskit.watch import metrics, page
from opskit.watch.gathering import Watch
from opskit.watch.health import checks, freshness
from opskit.watch.state import State
from opskit.watch.tracking import capture

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_REQUESTS_PER_SECOND = 500  # of one client
_PAGE_COUNTS_AS = 100  # requests: it takes that much longer to make
_TARGET_BYTES_MAX = 2048
_HEADER_BYTES_MAX = 16 * 1024
_BACKLOG = 128
_FILES_WANTED = 4096
_IDLE_SECONDS = 5
_REQUEST_SECONDS = 15.0
_STOP_SECONDS = 3
_LOCAL = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """The server while it runs; `address` is where it listens."""

    address: tuple[str, int]
    _server: Server
    _thread: Thread

    def stop(self) -> None:
        """End the server; requests that are being answered have seconds for it."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS + 2)


def serve(run: Run, watch: Watch) -> Serving:
    """Serve the state that is watched at the address in the settings of the run.

    Raises:
        ConfigurationError: the key cannot be read or is missing beyond loopback, or
            the address cannot be listened on.
    """
    scheduler = run.settings.scheduler
    path = scheduler.api_key_file
    key = "" if path is None else read_key("scheduler.api_key_file", path)
    log.hide(key)
    host, _, port = scheduler.listen.rpartition(":")
    listening = _listen(host.strip("[]"), int(port), need_loopback=not key)
    server = Server(
        Config(
            _application(run, watch, key),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            headers=[*_HEADERS.items()],
            backlog=_BACKLOG,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    address = listening.getsockname()
    thread = Thread(server.run, [listening], name="web")
    return Serving(address=address[:2], _server=server, _thread=thread)


def _listen(host: str, port: int, *, need_loopback: bool) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"scheduler.listen: {host} is not an address: {error.strerror}",
            hint='Name one of this host, for instance "127.0.0.1:8321".',
        ) from error
    family, kind, protocol, _name, address = addresses[0]
    if need_loopback and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigurationError(
            f"scheduler.listen is {host}, which others can reach, and there is no key",
            hint="Set scheduler.api_key_file, or listen on 127.0.0.1.",
        )
    # With a socket that has no protocol, asyncio would delay the ends of answers.
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(_BACKLOG)
        return listening
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"scheduler.listen: {host}:{port} cannot be used: {error.strerror}",
            hint="Stop what listens there, or name another port.",
        ) from error


def _application(run: Run, watch: Watch, key: str) -> Starlette:
    answers = _Answers(run, watch)
    routes = [
        Route("/health", answers.health),
        Route("/metrics", answers.metrics),
        *page.routes(run.settings, lambda: watch.state, now=run.now),
    ]
    layers = [Middleware(_Limits), Middleware(_Gate, key=key)]
    if origins := run.settings.scheduler.allowed_origins:
        cors = Middleware(
            CORSMiddleware, allow_origins=origins, allow_headers=["X-API-Key"]
        )
        layers.insert(1, cors)  # browsers ask it without the key
    return Starlette(routes=routes, middleware=layers)


class _Answers:
    """Health and metrics of the newest state, made once for each state.

    They are made again when it has become too old to be believed.
    """

    def __init__(self, run: Run, watch: Watch) -> None:
        self._run, self._watch = run, watch
        self._began = time.monotonic()
        self._shown: State | None = None
        self._is_fresh: bool | None = None
        self._health = Health.UNHEALTHY
        self._checks: list[dict[str, object]] = []
        self._metrics = b""

    def _look(self) -> Check:
        """Make the answers of a new state; return whether the state is fresh."""
        state = self._watch.state
        fresh = freshness(state, self._run.now())
        is_new = state is not self._shown or fresh.passed is not self._is_fresh
        if state is not None and is_new:
            made = checks(state, self._run.settings)
            self._health = worst([fresh, *made])
            self._checks = log.masked([each.as_health_json() for each in made])
            self._metrics = metrics.render(state, self._health)
            self._shown, self._is_fresh = state, fresh.passed
        return fresh

    async def health(self, request: Request) -> Response:
        """Answer with the status and the time, and with a key with everything."""
        fresh, status, now = self._look(), self._health, self._run.now()
        document: dict[str, Any] = {"status": status.value, "time": now.isoformat()}
        if request.scope["has_key"]:
            document |= {
                "version": __version__,
                "uptime_seconds": round(time.monotonic() - self._began, 3),
                "checks": [fresh.as_health_json(), *self._checks],
            }
        code = 503 if status is Health.UNHEALTHY else 200
        return JSONResponse(document, code)

    async def metrics(self, _request: Request) -> Response:
        """Answer with the metrics; there are none before the first state."""
        self._look()
        if self._shown is None:
            return _error(503, "nothing was gathered yet")
        return Response(self._metrics, media_type="text/plain; version=0.0.4")


class _Limits:
    """Refuses what comes too often, and what is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerSecond(_REQUESTS_PER_SECOND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        await (await self._refusal(scope) or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        client = (scope["client"] or ("",))[0]
        cost = _PAGE_COUNTS_AS if scope["path"] == "/" else 1
        if not await self._limiter.hit(self._limit, client, cost=cost):
            return _error(429, "too many requests", {"Retry-After": "1"})
        if len(scope["raw_path"]) + len(scope["query_string"]) > _TARGET_BYTES_MAX:
            return _error(414, "the address is too long")
        if sum(len(k) + len(v) + 4 for k, v in scope["headers"]) > _HEADER_BYTES_MAX:
            return _error(431, "the headers are too long")
        return None


class _Gate:
    """Lets in who has the key if it is set, and who asks by a name of this host if not.

    `has_key` in the scope says whether the request had the key.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever a page raises
            log.logger().error(
                "a request failed", path=scope["path"], reason=repr(error)
            )
            Thread(capture, error, name="tracking")  # others are not kept waiting
            await _error(500, "internal error")(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        given = _given_key(headers)
        right = bool(self._key) and hmac.compare_digest(given or b"", self._key)
        scope["has_key"] = right
        if not self._key:
            is_local = _LOCAL.fullmatch(headers.get("host", ""))
            return None if is_local else _error(421, "unknown host")
        if right or (given is None and scope["path"] == "/health"):
            return None
        return _error(
            401, "a key is needed", {"WWW-Authenticate": 'Basic realm="opskit"'}
        )


def _given_key(headers: Headers) -> bytes | None:
    """Return the key of a request: a header, or the password that a browser sends."""
    if (key := headers.get("x-api-key")) is not None:
        return key.encode("latin-1")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _error(
    code: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"status": "error", "error": message}, code, headers)


def connections_max() -> int:
    """Let the process have many files open; return how many may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_WANTED if hard == resource.RLIM_INFINITY else hard
    soft = max(soft, min(_FILES_WANTED, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft // 2


class Connection(H11Protocol):
    """A connection that ends if it takes too long over a request and its answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections_max = connections_max()
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, unless there are too many."""
        super().connection_made(transport)
        self._renew()
        if len(self.connections) > self._connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Allow as much time again for the next request."""
        self._renew()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with the headers of every answer."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        response = h11.Response(
            status_code=400,
            headers=[
                *self.server_state.default_headers,
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"connection", b"close"),
            ],
            reason=STATUS_PHRASES[400],
        )
        for event in (response, h11.Data(data=msg.encode()), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _renew(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)
