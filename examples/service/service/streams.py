"""The event stream (SSE) and the WebSocket: an account's events as they happen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

import structlog
from fastapi import APIRouter, Header
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Message, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from service import errors
from service.accounts import Account, Reader
from service.events import Ended, Event, Hub, Listener
from service.state import Current
from service.subscriptions import background

router = APIRouter()
_FULL = "too many streams are open"
_HEARTBEAT_SECONDS = 15.0
# A reader that takes nothing for this long is dropped.
_SEND_SECONDS_MAX = 10.0
# The reader comes back then, and its key is checked again.
_STREAM_SECONDS_MAX = 900.0
_TRY_AGAIN = 1013
_log = structlog.get_logger()


class EventStream(StreamingResponse):
    """An event stream that ends when its reader does not keep up."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[str]) -> None:
        super().__init__(pieces)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send each piece within a bounded time."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(_SEND_SECONDS_MAX):
                await send(message)

        async with aclosing(self._pieces):
            try:
                await super().stream_response(bounded)
            except TimeoutError:
                _log.info("event stream dropped", reason="its reader takes nothing")


@router.get("/api/events", response_class=EventStream, status_code=200)
async def event_stream(
    state: Current,
    account: Reader,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
) -> EventStream:
    """Send the account's events from now on, or all after that of `Last-Event-ID`."""
    if state.hub.is_full:
        raise HTTPException(503, _FULL, {"Retry-After": "10"})
    return EventStream(_pieces(state.hub, account, last_event_id))


async def _pieces(hub: Hub, account: Account, last: int | None) -> AsyncGenerator[str]:
    clock = asyncio.get_running_loop().time
    ends = clock() + _STREAM_SECONDS_MAX
    # First the listener, then the history: no event falls between them.
    with hub.listener(account.id) as listener:
        listener.is_subscribed = True
        yield ": connected\n\n"
        while last is not None and (page := await hub.read_after(last, account.id)):
            for event in page:
                yield _piece(event)
            last = page[-1].id
        while clock() < ends:
            try:
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    event = await listener.next()
            except TimeoutError:
                yield ": heartbeat\n\n"
            except Ended as reason:
                _log.info("event stream ended", reason=str(reason))
                return
            else:
                if last is None or event.id > last:
                    yield _piece(event)


def _piece(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"


@router.websocket("/api/ws")
async def talk(websocket: WebSocket, state: Current) -> None:
    """Answer messages, and send the account's events once it has subscribed."""
    account: Account = websocket.scope["account"]
    hub = state.hub
    if hub.is_full:
        await websocket.send_denial_response(errors.answer(503, _FULL))
        return
    await websocket.accept()
    with (
        hub.listener(account.id) as listener,
        suppress(WebSocketDisconnect, TimeoutError),
    ):
        async with (
            background(_answer(websocket, listener)) as answering,
            background(_push(websocket, listener)) as pushing,
        ):
            await asyncio.wait(
                [answering, pushing],
                timeout=_STREAM_SECONDS_MAX,
                return_when=asyncio.FIRST_COMPLETED,
            )
        await _close(websocket)


async def _answer(websocket: WebSocket, listener: Listener) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        await _send(websocket, _reply(message.get("text"), listener))


def _reply(text: str | None, listener: Listener) -> dict[str, object]:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        return _error("a message is a JSON object, sent as text")
    match message:
        case {"type": "ping"}:
            return {"type": "pong"}
        case {"type": "subscribe", "topic": "tasks"}:
            listener.is_subscribed = True
            return {"type": "subscribed", "topic": "tasks"}
        case {"type": "subscribe"}:
            return _error("the topic is: tasks")
        case _:
            return _error("the types are: ping, subscribe")


def _error(message: str) -> dict[str, object]:
    return {"type": "error", "message": message}


async def _push(websocket: WebSocket, listener: Listener) -> None:
    with suppress(Ended):
        while True:
            event = await listener.next()
            sent = {"id": event.id, "kind": event.kind, "data": event.data}
            await _send(websocket, {"type": "event", **sent})


async def _send(websocket: WebSocket, document: dict[str, object]) -> None:
    async with asyncio.timeout(_SEND_SECONDS_MAX):
        await websocket.send_text(json.dumps(document))


async def _close(websocket: WebSocket) -> None:
    async with asyncio.timeout(_SEND_SECONDS_MAX):
        await websocket.close(_TRY_AGAIN)
