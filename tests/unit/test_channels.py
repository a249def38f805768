"""Event streams and WebSockets of a session, with a server that behaves and some that do not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from opskit.probes.probe import Inconclusive, WrongAnswer
from opskit.probes.session import Session, Target
from tests import certificates
from tests.asgi import serving
from tests.receivers import away

KEY = "the-right-key"


async def _events(request: Request) -> Response:
    kind = request.path_params["kind"]
    if request.headers.get("x-api-key") != KEY:
        return Response(status_code=401)

    async def lines() -> AsyncIterator[bytes]:
        yield b": welcome\r\n\r\n"
        if kind == "good":
            yield b'id: 7\ndata: {"a":\ndata: 1}\n'
            yield b"\ndata: second\n\n"
        if kind != "short":
            await asyncio.sleep(60)

    return StreamingResponse(lines(), media_type="text/event-stream")


async def _busy(_request: Request) -> Response:
    return Response(status_code=429)


async def _talk(channel: WebSocket) -> None:
    kind = channel.path_params["kind"]
    if channel.headers.get("x-api-key") != KEY:
        await channel.close()
        return
    if kind == "away":
        await channel.send_denial_response(RedirectResponse("/ws/good"))
        return
    await channel.accept()
    if kind == "closed":
        await channel.close(code=4401)
        return
    while True:
        message = await channel.receive_text()
        if kind == "good":
            await channel.send_text(message)
        if kind == "garbled":
            await channel.send_text("{")


def application() -> Starlette:
    """Return an application with channels."""
    routes = [
        Route("/events/{kind}", _events),
        Route("/busy", _busy),
        WebSocketRoute("/ws/{kind}", _talk),
    ]
    return Starlette(routes=routes)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where it is served."""
    with serving(application()) as url:
        yield url


@pytest.fixture
def session(url: str) -> Iterator[Session]:
    """A session that does not wait for long."""
    target = Target(url=url, timeout_seconds=60, keys={"writer": {"X-API-Key": KEY}})
    with Session(target) as session:
        yield session


def hasty(session: Session) -> Session:
    """Return a session that waits a moment only."""
    return Session(
        Target(url=session.target.url, timeout_seconds=3, keys=session.target.keys)
    )


def ask(session: Session, asked: str, path: str) -> None:
    """Ask in one of the three ways."""
    if asked == "get":
        session.get(path)
        return
    with getattr(session, asked)(path):
        pass


def test_events_arrive_one_by_one_with_all_lines_of_their_data(
    session: Session,
) -> None:
    """Comments are left out, and two lines of data are one event."""
    with session.stream("/events/good", key="writer") as stream:
        assert stream.status == 200
        assert stream.event() == '{"a":\n1}'
        assert stream.event() == "second"
    assert session.target.requests.number == 1


def test_a_stream_without_a_key_is_a_status(session: Session) -> None:
    """What refuses a stream is not waited for."""
    with session.stream("/events/good") as stream:
        assert stream.status == 401


@pytest.mark.parametrize("kind", ["short", "silent"])
def test_a_stream_without_events_is_a_wrong_answer(session: Session, kind: str) -> None:
    """Whether it ends or stays silent."""
    with (
        hasty(session) if kind == "silent" else session as asked,
        asked.stream(f"/events/{kind}", key="writer") as stream,
        pytest.raises(WrongAnswer),
    ):
        stream.event()


def test_the_session_asks_on_after_a_stream(session: Session) -> None:
    """A stream that is left does not hold the session's connection."""
    with session.stream("/events/good", key="writer") as stream:
        assert stream.event()

    assert session.get("/events/good").status == 401


@pytest.mark.parametrize("asked", ["get", "stream"])
def test_a_rate_limit_used_up_is_no_answer(session: Session, asked: str) -> None:
    """Only who asks for it is answered by 429."""
    with pytest.raises(Inconclusive, match="429"):
        ask(session, asked, "/busy")
    assert session.get("/busy", own=(429,)).status == 429


def test_a_websocket_answers(session: Session) -> None:
    """Messages go there and back as JSON, and the handshake counts as a request."""
    with session.websocket("/ws/good", key="writer") as channel:
        assert channel.status == 101
        channel.say({"type": "ping"})
        assert channel.hear() == {"type": "ping"}
    assert session.target.requests.number == 1


def test_a_refused_websocket_is_a_status(session: Session) -> None:
    """Nothing can be heard of it."""
    with session.websocket("/ws/good") as channel:
        assert channel.status == 403
        with pytest.raises(WrongAnswer) as wrong:
            channel.hear()
    assert wrong.value.observed == "status 403"


@pytest.mark.parametrize("kind", ["silent", "garbled", "closed"])
def test_a_websocket_without_a_good_message_is_a_wrong_answer(
    session: Session, kind: str
) -> None:
    """Silence, no JSON, and the service's own goodbye, whose code is kept."""
    with (
        hasty(session) if kind == "silent" else session as asked,
        asked.websocket(f"/ws/{kind}", key="writer") as channel,
    ):
        channel.say({"type": "ping"})
        with pytest.raises(WrongAnswer):
            channel.hear()
        assert channel.code == (4401 if kind == "closed" else None)


def test_a_websocket_is_not_taken_elsewhere(session: Session) -> None:
    """A redirect of the handshake would carry the key along."""
    with pytest.raises(WrongAnswer), session.websocket("/ws/away", key="writer"):
        pass


def test_channels_trust_what_the_session_trusts(tmp_path: Path) -> None:
    """By TLS, both work with the authority of the target, and neither without it."""
    certificate = certificates.self_signed(tmp_path)
    with serving(application(), certificate=certificate) as url:
        keys = {"writer": {"X-API-Key": KEY}}
        trusting = Target(url=url, timeout_seconds=60, keys=keys, ca_file=certificate)
        with Session(trusting) as session:
            with session.stream("/events/good", key="writer") as stream:
                assert stream.event()
            with session.websocket("/ws/good", key="writer") as channel:
                channel.say({"type": "ping"})
                assert channel.hear()
        with Session(Target(url=url, timeout_seconds=60, keys=keys)) as session:
            for asked, path in (("stream", "/events/good"), ("websocket", "/ws/good")):
                with pytest.raises(Inconclusive):
                    ask(session, asked, path)


def test_a_credential_in_the_address_is_not_told(url: str) -> None:
    """Where the handshake is not answered by the service, or not at all."""
    for target in (
        Target(url=url, timeout_seconds=60, identity="X-Request-ID"),
        Target(url=away(), timeout_seconds=60),
    ):
        with Session(target) as session, pytest.raises(Inconclusive) as error:
            ask(session, "websocket", f"/ws/good?token={KEY}x")
        assert "/ws/good" in str(error.value)
        assert KEY not in str(error.value)


@pytest.mark.parametrize("asked", ["stream", "websocket"])
def test_a_lost_connection_is_no_answer(asked: str) -> None:
    """Neither a refused connection nor one that ends at once is the service's word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def end_at_once() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=end_at_once, daemon=True)
        thread.start()
        with (
            Session(Target(url=url, timeout_seconds=60)) as session,
            pytest.raises(Inconclusive),
            getattr(session, asked)("/"),
        ):
            pass
        thread.join(60)
    with (
        Session(Target(url=url, timeout_seconds=60)) as session,
        pytest.raises(Inconclusive),
        getattr(session, asked)("/"),
    ):
        pass


@pytest.mark.parametrize("asked", ["get", "stream", "websocket"])
def test_an_answer_without_the_services_mark_is_no_answer(url: str, asked: str) -> None:
    """With an identity header configured, a refusal that lacks it is a balancer's."""
    target = Target(url=url, timeout_seconds=60, identity="X-Request-ID")
    with Session(target) as session, pytest.raises(Inconclusive, match="not of"):
        ask(session, asked, "/ws/good" if asked == "websocket" else "/events/good")
