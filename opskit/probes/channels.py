"""Channels: event streams and WebSockets, which stay open while the service speaks."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from opskit.probes.probe import Inconclusive, WrongAnswer

SWITCHED = 101
_READ_BYTES = 64 * 1024
_STREAM_BYTES_MAX = 4 * 1024 * 1024


class Stream:
    """An answer whose events arrive one by one."""

    def __init__(self, response: BaseHTTPResponse, *, seconds: float) -> None:
        self.status, self.headers = response.status, response.headers
        self._response, self._seconds = response, seconds
        self._rest = b""

    def events(self) -> Iterator[str]:
        """Yield the data of each event until the time is over; comments are none.

        Raises:
            Inconclusive: the connection is lost.
        """
        data: list[bytes] = []
        for line in self._lines(time.monotonic() + self._seconds):
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data).decode(errors="replace")
                data = []

    def event(self) -> str:
        """Return the data of the next event.

        Raises:
            WrongAnswer: there is none in time, or before the stream ends.
            Inconclusive: the connection is lost.
        """
        for data in self.events():
            return data
        raise WrongAnswer(
            expected="an event",
            observed=f"none before the stream's end, or in {self._seconds:g} s",
        )

    def _lines(self, end: float) -> Iterator[bytes]:
        total = 0
        while time.monotonic() < end and total < _STREAM_BYTES_MAX:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield line.removesuffix(b"\r")
            try:
                block = self._response.read1(_READ_BYTES)
            except ReadTimeoutError:
                return
            except (HTTPError, OSError) as error:
                raise Inconclusive(f"event stream: {type(error).__name__}") from error
            if not block:
                return
            total += len(block)
            self._rest += block


class WebSocket:
    """A WebSocket, or the status that refused it; what is said and heard is JSON.

    `code` is the one that the service closed it with.
    """

    def __init__(
        self, status: int, connection: ClientConnection | None, *, seconds: float
    ) -> None:
        self.status, self.connection = status, connection
        self.code: int | None = None
        self._seconds = seconds

    def say(self, document: object) -> None:
        """Send a message; whether the service still listens is seen in `hear`."""
        if self.connection is not None:
            with contextlib.suppress(ConnectionClosed):
                self.connection.send(json.dumps(document))

    def hear(self) -> Any:
        """Return the next message.

        Raises:
            WrongAnswer: there is none in time, or the service refused or closed the
                WebSocket.
            Inconclusive: the connection is lost.
        """
        observed = f"status {self.status}"
        if self.connection is not None:
            try:
                return json.loads(self.connection.recv(timeout=self._seconds))
            except TimeoutError:
                observed = f"none in {self._seconds:g} s"
            except (ValueError, RecursionError):
                observed = "one that is no JSON"
            except ConnectionClosed as error:
                if error.rcvd is None:
                    raise Inconclusive("WebSocket: the connection is lost") from error
                self.code = int(error.rcvd.code)
                observed = f"closed with code {self.code}"
        raise WrongAnswer(expected="a message", observed=observed)
