"""Limits: how long, how large and how many at once requests may be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.settings import Settings

# A service that is full is not ill: it must still say so.
_ALWAYS_ANSWERED = ("/health", "/health/live", "/metrics", "/ready")
_STARTED = "http.response.start"
_FULL = 503, "too many requests at once", {"Retry-After": "1"}


class Limits:
    """Middleware: answers for the service when a request goes beyond a limit.

    A request counts, and its time runs, until its answer begins: streams may last. It
    does not count while its body is awaited, so that slow clients keep nobody away; if
    the service is full once the body is there, the request is refused.
    `larger` names paths whose bodies may be longer.
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, larger: Mapping[str, int]
    ) -> None:
        self._app, self._settings, self._larger = app, settings, larger
        self._active = 0
        self._abandoned: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, within the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length_max = self._larger.get(scope["path"], self._settings.body_bytes_max)
        if _length(scope) > length_max:
            refusal = errors.answer(413, _too_large(length_max))
            await refusal(scope, receive, send)
            return
        is_counted = scope["path"] not in _ALWAYS_ANSWERED
        if is_counted and self.is_full:
            refusal = errors.answer(*_FULL)
            await refusal(scope, receive, send)
            return
        body = _Body(receive, length_max, self._settings.body_seconds)
        await self._timed(scope, _Exchange(self, body, send, is_counted))

    @property
    def is_full(self) -> bool:
        """Whether as many requests are worked on as may be."""
        return self._active >= self._settings.concurrent_requests_max

    async def _timed(self, scope: Scope, exchange: _Exchange) -> None:
        exchange.count()
        work = asyncio.create_task(self._run(scope, exchange))
        begun = asyncio.create_task(exchange.has_begun.wait())
        try:
            await asyncio.wait(
                {work, begun},
                timeout=self._settings.request_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done() or exchange.has_begun.is_set():
                await work
                return
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            begun.cancel()
        # Nobody waits for it: it may hang in what ignores that it is cancelled.
        exchange.is_abandoned = True
        work.cancel()
        self._abandoned.add(work)
        work.add_done_callback(self._forget)
        refusal = errors.answer(504, "this took too long")
        await refusal(scope, exchange.body.receive, exchange.to_client)

    async def _run(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.discount()

    def _forget(self, work: asyncio.Task[None]) -> None:
        self._abandoned.discard(work)
        if not work.cancelled():
            work.exception()

    def change(self, by: int) -> None:
        """Count a request that begins or ends."""
        self._active += by


@dataclass
class _Body:
    """What a client sends, within its limits."""

    from_client: Receive
    bytes_max: int
    seconds_max: float
    _bytes: int = 0
    is_complete: bool = False
    _until: float | None = None

    async def receive(self) -> Message:
        if self.is_complete:
            return await self.from_client()
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self.seconds_max
        try:
            async with asyncio.timeout_at(self._until):
                message = await self.from_client()
        except TimeoutError:
            raise HTTPException(
                408, "the body came too slowly", {"Connection": "close"}
            ) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self.bytes_max:
            raise HTTPException(413, _too_large(self.bytes_max))
        self.is_complete = not message.get("more_body", False)
        return message


@dataclass
class _Exchange:
    """One request and its answer; counts as active while the service works on it."""

    limits: Limits
    body: _Body
    to_client: Send
    is_counted: bool
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    is_abandoned: bool = False
    _counts: bool = False

    async def receive(self) -> Message:
        if self.body.is_complete:
            return await self.body.receive()
        self.discount()
        try:
            message = await self.body.receive()
            self._require_room()
        finally:
            if not self.has_begun.is_set():
                self.count()
        return message

    def _require_room(self) -> None:
        """Refuse a request for whose body others did not wait."""
        is_late = self.body.is_complete and not self.has_begun.is_set()
        if is_late and self.is_counted and self.limits.is_full:
            raise HTTPException(*_FULL)

    async def send(self, message: Message) -> None:
        if self.is_abandoned:
            return
        if message["type"] == _STARTED:
            self.has_begun.set()
            self.discount()
        await self.to_client(message)

    def count(self) -> None:
        if self.is_counted and not self._counts:
            self._counts = True
            self.limits.change(1)

    def discount(self) -> None:
        if self._counts:
            self._counts = False
            self.limits.change(-1)


def _length(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isdecimal() and text.isascii() else 0


def _too_large(bytes_max: int) -> str:
    return f"the body is longer than {bytes_max} bytes"
