"""Connection: the line to the service, which is cut off when an answer takes too long.

The time limits of sockets are about each read. A server that sends a byte now and then
would hold up a probe for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from opskit.probes.probe import Inconclusive


class Handle:
    """A handle of its own on a connection that another thread uses, to cut it."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._is_ended = False

    def take(self, connection: socket.socket) -> socket.socket:
        """Return a new connection, which is the one to cut from now on."""
        self.close()
        self._socket = connection.dup()
        # The thread that ends it may not have seen this connection.
        if self._is_ended:
            self.cut()
        return connection

    def cut(self) -> None:
        """Cut the connection at once: whatever waits for it fails."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it has just ended
                self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Cut the connection, and each that is opened after it."""
        self._is_ended = True
        self.cut()

    def close(self) -> None:
        """Close the handle; the connection itself stays as it is."""
        if self._socket is not None:
            self._socket.close()


class Line:
    """The one connection of a session at a time; `opened` counts them."""

    def __init__(self, address: SplitResult, ca_file: Path | None = None) -> None:
        self.opened = 0
        self.handle = Handle()
        add = self._add

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return add(super()._new_conn())

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return add(super()._new_conn())

        host, port = address.hostname or "", address.port
        self.pool: HTTPConnectionPool
        if address.scheme == "https":
            trusted = str(ca_file) if ca_file else None
            self.pool = HTTPSConnectionPool(host, port, maxsize=1, ca_certs=trusted)
            self.pool.ConnectionCls = Encrypted
        else:
            self.pool = HTTPConnectionPool(host, port, maxsize=1)
            self.pool.ConnectionCls = Plain

    def _add(self, connection: socket.socket) -> socket.socket:
        """Keep a second handle: the first changes hands when TLS begins."""
        self.opened += 1
        return self.handle.take(connection)

    def close(self) -> None:
        """Close it."""
        self.pool.close()
        self.handle.close()

    @contextlib.contextmanager
    def cut_after(self, seconds: float, *, asked: str) -> Iterator[None]:
        """Cut it if the block takes longer; what fails in the block is inconclusive.

        Raises:
            Inconclusive: there was no whole answer, and why.
        """
        late = threading.Event()

        def cut() -> None:
            late.set()
            self.handle.cut()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (HTTPError, OSError) as error:
            is_late = late.is_set() or isinstance(error, ReadTimeoutError)
            reason = f"no answer in {seconds:g} s" if is_late else _reason(error)
            raise Inconclusive(f"{asked}: {reason}") from error
        finally:
            timer.cancel()


def _reason(error: Exception) -> str:
    """Return in a few words why there was no answer, without what a server sent."""
    if isinstance(error, SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return "the certificate is not trusted"
        return "TLS failed"
    if isinstance(error, NameResolutionError):
        return "the host name is unknown"
    if isinstance(error, NewConnectionError):
        return "no connection"
    return "the connection broke, or the answer is not HTTP"
