"""Pieces: a request that is sent piece by piece, as slow and careless clients do."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from urllib3 import HTTPHeaderDict

from opskit.probes.probe import Inconclusive
from opskit.probes.session import Answer, Session

_BODY_BYTES_MAX = 1024 * 1024


class _Resumed(io.RawIOBase):
    """What was read ahead of an answer, and then the rest of it."""

    def __init__(self, early: bytes, rest: io.RawIOBase) -> None:
        self._early, self._rest = early, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if not self._early:
            return self._rest.readinto(buffer)
        size = min(len(buffer), len(self._early))
        buffer[:size], self._early = self._early[:size], self._early[size:]
        return size

    def close(self) -> None:
        self._rest.close()
        super().close()


class Pieces:
    """One request on a connection of its own, which is closed with the block.

    Raises:
        Inconclusive: there is no connection, or it broke.
    """

    def __init__(
        self, session: Session, method: str, path: str, *, key: str = ""
    ) -> None:
        self._session, self._method = session, method
        self._asked = f"{method} {path}"
        self._began = time.monotonic()
        self._early = b""  # of the answer, read to see whether it has begun
        session.target.count()
        address = urlsplit(session.target.url)
        lines = {"Host": address.netloc.rpartition("@")[2], "Connection": "close"}
        lines |= session.target.credential(key)
        whole = f"{method} {address.path.rstrip('/')}{path} HTTP/1.1\r\n"
        self._head = whole + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        seconds = session.target.timeout_seconds
        with self._translated(), contextlib.ExitStack() as stack:
            default_port = 443 if address.scheme == "https" else 80
            place = (address.hostname or "", address.port or default_port)
            self._socket = stack.enter_context(socket.create_connection(place, seconds))
            if address.scheme == "https":
                context = ssl.create_default_context(cafile=session.target.ca_file)
                self._socket = context.wrap_socket(
                    self._socket, server_hostname=address.hostname
                )
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def head(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the request's line and all of its headers."""
        more = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        self.send(f"{self._head}{more}\r\n".encode())

    def begin(self) -> None:
        """Send headers, and of the last one only the name."""
        self.send(f"{self._head}X-Slow: ".encode())

    def send(self, piece: bytes) -> None:
        """Send some bytes."""
        with self._translated():
            self._socket.sendall(piece)

    def is_answered(self, seconds: float) -> bool:
        """Wait until an answer has begun or the connection has ended, or so long."""
        end = time.monotonic() + seconds
        while not self._early:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return False
            if not isinstance(self._socket, ssl.SSLSocket) or self._has_begun():
                break
        return True

    def _has_begun(self) -> bool:
        """Whether TLS has something for us: what came may be its own, say tickets."""
        seconds = self._socket.gettimeout()
        self._socket.settimeout(0)
        with self._translated():
            try:
                self._early = self._socket.recv(1)
            except ssl.SSLWantReadError:
                return False
            finally:
                self._socket.settimeout(seconds)
        return True

    def answer(self, seconds: float, *, own: tuple[int, ...] = ()) -> Answer:
        """Return the whole answer, waiting at most so long for it.

        Raises:
            Inconclusive: there is none, or it is not the service's.
        """
        with self._translated(), self._cut_after(max(0.01, seconds)):
            response = HTTPResponse(self._socket, method=self._method)
            if self._early:
                rest = self._socket.makefile("rb", buffering=0)
                response.fp = io.BufferedReader(_Resumed(self._early, rest))
            response.begin()
            body = response.read(_BODY_BYTES_MAX)
        headers = HTTPHeaderDict(response.getheaders())
        self._session.require_own(self._asked, response.status, headers, own)
        return Answer(
            status=response.status,
            headers=headers,
            body=body,
            seconds=time.monotonic() - self._began,
        )

    @contextlib.contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        """Cut the connection if the block takes longer, however slowly bytes arrive."""
        late = threading.Event()

        def cut() -> None:
            late.set()
            with contextlib.suppress(OSError):  # the other end was quicker
                # The socket's own, which is TLS's as well.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

        self._socket.settimeout(seconds)
        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (HTTPException, OSError) as error:
            if late.is_set():
                raise TimeoutError from error
            raise
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise Inconclusive(f"{self._asked}: no answer in time") from error
        except (HTTPException, OSError) as error:
            raise Inconclusive(f"{self._asked}: the connection broke") from error
