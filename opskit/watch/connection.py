"""Connection: one client of the web server, who may be slow, rude, or one too many."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

_FILES_WANTED = 4096
_REQUEST_SECONDS = 15.0


def connections_max() -> int:
    """Let the process have many files open; return how many may be connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES_WANTED:
        soft = (
            _FILES_WANTED
            if hard == resource.RLIM_INFINITY
            else min(_FILES_WANTED, hard)
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft // 2


class Connection(H11Protocol):
    """A connection that ends if it takes too long over a request and its answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._connections_max = connections_max()
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many."""
        super().connection_made(transport)
        self._renew()
        if len(self.connections) > self._connections_max:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
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
