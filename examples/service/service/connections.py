"""Connections: HTTP clients who are slow, too many, or speak no HTTP."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import h11
from structlog.contextvars import bound_contextvars
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from service import errors, logs
from service.requests import safe_headers

IDLE_SECONDS = 15
_HEAD_SECONDS = 20  # from the connection or the last answer: longer than idle
_CONNECTIONS_MAX = 1000


class Connection(H11Protocol):
    """Uvicorn's connection, with a time limit for the head of a request.

    What comes after an answer that was given early, the rest of a body that nobody
    wants, has the same limit.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS_MAX:
            transport.abort()
        self._renew()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._relieve()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a request that has begun has limits of its own."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._relieve()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to another protocol."""
        self._relieve()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._renew()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of every error if still possible."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        with bound_contextvars(request_id=uuid.uuid4().hex):
            sent = {"X-Request-ID": logs.request_id(), "Connection": "close"}
            sent |= safe_headers(https=False)
            answer = errors.answer(400, "this is not HTTP", sent)
        head = h11.Response(
            status_code=400, headers=answer.raw_headers, reason=STATUS_PHRASES[400]
        )
        for each in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(each) or b"")
        self.transport.close()

    def _relieve(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _renew(self) -> None:
        self._relieve()
        self._limit = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)
