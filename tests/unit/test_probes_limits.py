"""The probes of limits: a right answer passes, and each wrong one fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from opskit.checks import Check
from tests.asgi import serving
from tests.certificates import self_signed
from tests.flaky import balancing
from tests.unit.probed import asked_at, patiently

BODY_MAX = 50_000
FIELDS = ["error.code"]


def refusal(status: int, **headers: str) -> Response:
    """Return a clean refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": {"code": "limit"}}, status, named)


TOO_LARGE, TOO_SLOW, GIVEN_UP = refusal(413), refusal(408), refusal(504)
SHED = refusal(503, Retry_After="1")


@dataclass
class Application:
    """A service with limits; each field may be spoiled."""

    announced: int = BODY_MAX
    chunked: int = BODY_MAX
    too_large: Response = TOO_LARGE
    body_seconds: float = 1.0
    too_slow: Response | None = TOO_SLOW
    at_once: int = 3
    shed: Response | None = SHED
    busy_seconds: float = 2.0
    seconds_max: float = 1.0
    given_up: Response | None = GIVEN_UP
    keeps_places: bool = False
    holds_worker: bool = False
    turned_away: Response | None = None
    active: int = 0
    reading: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        try:
            answer = await getattr(self, request.url.path.strip("/"))(request)
        except ClientDisconnect:
            return
        if answer is not None:
            await answer(scope, receive, send)

    async def health(self, _request: Request) -> Response:
        """Name the version."""
        if self.turned_away is not None and self.reading:
            return self.turned_away
        return JSONResponse({"version": "1"})

    async def upload(self, request: Request) -> Response | None:
        """Take a body."""
        if int(request.headers.get("Content-Length", 0)) > self.announced:
            return self.too_large
        self.reading += 1
        try:
            return await self._read(request)
        finally:
            self.reading -= 1

    async def _read(self, request: Request) -> Response | None:
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.body_seconds):
                async for piece in request.stream():
                    if self.holds_worker:
                        time.sleep(self.body_seconds)
                    size += len(piece)
                    if size > self.chunked:
                        return self.too_large
            return refusal(400)
        return self.too_slow

    async def busy(self, _request: Request) -> Response | None:
        """Work for a while."""
        if self.active >= self.at_once and self.shed is not None:
            self.active += self.keeps_places
            return self.shed
        self.active += 1
        await asyncio.sleep(self.busy_seconds)
        self.active -= not self.keeps_places
        return JSONResponse({})

    async def slow(self, _request: Request) -> Response | None:
        """Work for too long."""
        await asyncio.sleep(self.seconds_max)
        return self.given_up


def ask(
    app: Application,
    name: str,
    *,
    answer_time: str = "3s",
    certificate: Path | None = None,
    **wanted: Any,
) -> Check:
    """Ask a probe of the family, by TLS with a certificate."""
    given: dict[str, Any] = {
        "body_path": "/upload",
        "body_max": BODY_MAX,
        "body_time": "5s",
        "busy_path": "/busy",
        "busy_clients": 8,
        "timeout_path": "/slow",
        "timeout": "5s",
    }
    with serving(app, certificate=certificate) as url:
        return asked_at(
            url,
            f"limits.{name}",
            limits=given | wanted,
            tls={"ca_file": certificate},
            error_fields=FIELDS,
            timeout=answer_time,
        )


NAMES = (
    "body-announced",
    "body-chunked",
    "slow-clients",
    "slow-body",
    "concurrency",
    "time-out",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_service_with_limits_passes(name: str) -> None:
    check = patiently(lambda: ask(Application(), name))

    assert check.passed, check


@pytest.mark.parametrize("name", NAMES)
def test_a_service_with_limits_passes_by_tls(name: str, tmp_path: Path) -> None:
    """What TLS 1.3 sends of its own after the handshake is no answer."""
    certificate = self_signed(tmp_path)
    check = patiently(lambda: ask(Application(), name, certificate=certificate))

    assert check.passed, check


@pytest.mark.parametrize("name", ["body-chunked", "slow-body"])
def test_a_service_without_limits_fails_by_tls(name: str, tmp_path: Path) -> None:
    """It is still seen that nothing is refused."""
    app = Application(chunked=10**12, too_slow=refusal(500))

    check = ask(app, name, certificate=self_signed(tmp_path), body_time="2s")

    assert check.passed is False


@pytest.mark.parametrize(
    "app",
    [
        Application(announced=10**12, chunked=10**12),
        Application(announced=10**12),
        Application(announced=BODY_MAX + 1),
        Application(too_large=refusal(400)),
        Application(too_large=refusal(500)),
        Application(too_large=Response("<html>", 413)),
    ],
    ids=["none", "after reading", "one byte late", "400", "500", "form"],
)
def test_an_announced_body_that_is_not_refused_at_once_fails(app: Application) -> None:
    assert ask(app, "body-announced").passed is False


@pytest.mark.parametrize(
    "app",
    [
        Application(chunked=10**12),
        Application(chunked=BODY_MAX + 1),
        Application(too_large=refusal(500)),
        Application(too_large=Response("<html>", 413)),
    ],
    ids=["not counted", "one byte late", "500", "form"],
)
def test_a_chunked_body_that_is_not_refused_fails(app: Application) -> None:
    assert ask(app, "body-chunked").passed is False


@pytest.mark.parametrize(
    "app",
    [
        Application(body_seconds=60),
        Application(too_slow=refusal(500)),
        Application(too_slow=Response("slow", 408)),
        Application(too_slow=None),
    ],
    ids=["endured", "500", "form", "no answer"],
)
def test_a_body_that_trickles_in_and_is_not_refused_fails(app: Application) -> None:
    assert ask(app, "slow-body", body_time="2s").passed is False


def test_slow_clients_that_hold_the_worker_fail() -> None:
    """Also where it is free again much later than others wait for an answer."""
    app = Application(holds_worker=True, body_seconds=6.0)

    check = ask(app, "slow-clients", answer_time="60s", slow_clients=2)

    assert check.passed is False, check


def test_slow_clients_that_make_a_balancer_turn_others_away_fail() -> None:
    app = Application(turned_away=refusal(502), body_seconds=60.0)

    check = ask(app, "slow-clients", slow_clients=2)

    assert check.passed is False, check


def test_a_balancer_that_refuses_some_is_not_taken_for_slow_clients() -> None:
    """One request of ten is answered in the place of the service, or broken off."""
    with (
        serving(Application()) as service,
        balancing(service, seed=3, trouble=0.1) as url,
    ):
        checks = [
            patiently(lambda: asked_at(url, "limits.slow-clients")) for _ in range(10)
        ]

    assert [each for each in checks if each.failed] == []


@pytest.mark.parametrize(
    "app",
    [
        Application(shed=None),
        Application(at_once=0),
        Application(shed=refusal(503)),
        Application(shed=refusal(503, Retry_After="0")),
        Application(shed=refusal(500, Retry_After="1")),
        Application(shed=Response("busy", 503, {"Retry-After": "1"})),
        Application(shed=None, busy_seconds=20.0),
        Application(keeps_places=True),
        Application(keeps_places=True, shed=refusal(429, Retry_After="1")),
    ],
    ids=[
        "queued",
        "all refused",
        "no Retry-After",
        "Retry-After 0",
        "500",
        "form",
        "queued for ever",
        "places kept",
        "places kept, 429",
    ],
)
def test_too_many_at_once_that_are_not_refused_rightly_fail(app: Application) -> None:
    check = ask(app, "concurrency", timeout="3s")

    assert check.passed is False, check


@pytest.mark.parametrize(
    "app",
    [
        Application(given_up=refusal(500)),
        Application(given_up=JSONResponse({})),
        Application(given_up=Response("late", 504)),
        Application(given_up=None),
        Application(seconds_max=20.0),
    ],
    ids=["500", "200", "form", "no answer", "never"],
)
def test_a_time_out_that_is_no_error_answer_fails(app: Application) -> None:
    check = ask(app, "time-out", timeout="3s")

    assert check.passed is False, check


@contextlib.contextmanager
def one_at_a_time() -> Iterator[str]:
    """Run a server that reads one request at a time, as a single blocking worker does."""

    def answer(connection: socket.socket) -> None:
        connection.settimeout(30)
        read = b""
        while b"\r\n\r\n" not in read and (piece := connection.recv(4096)):
            read += piece
        body = b'{"version": "1"}'
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)

    def serve() -> None:
        with contextlib.suppress(OSError):  # it no longer listens
            while True:
                with listener.accept()[0] as connection, contextlib.suppress(OSError):
                    answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            assert not thread.is_alive()


def test_headers_that_trickle_in_and_hold_the_only_worker_fail() -> None:
    with one_at_a_time() as url:
        check = asked_at(url, "limits.slow-clients", limits={"slow_clients": 2})

    assert check.passed is False, check
