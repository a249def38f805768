"""Pieces: a request that is sent piece by piece, as slow and careless clients do."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from urllib3 import HTTPHeaderDict

from opskit.probes.probe import Inconclusive
from opskit.probes.session import Answer, Session

_BODY_BYTES_MAX = 1024 * 1024


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
        """Wait until something can be read, or so long."""
        return bool(select.select([self._socket], [], [], max(0.0, seconds))[0])

    def answer(self, seconds: float, *, own: tuple[int, ...] = ()) -> Answer:
        """Return the whole answer, waiting at most so long for it.

        Raises:
            Inconclusive: there is none, or it is not the service's.
        """
        with self._translated(), self._cut_after(max(0.01, seconds)):
            response = HTTPResponse(self._socket, method=self._method)
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
