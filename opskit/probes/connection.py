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


class Line:
    """The one connection of a session at a time; `opened` counts them."""

    def __init__(self, address: SplitResult, ca_file: Path | None = None) -> None:
        self.opened = 0
        self._handle: socket.socket | None = None
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
        self._close_handle()
        self._handle = connection.dup()
        self.opened += 1
        return connection

    def cut(self) -> None:
        """End it at once: whatever waits for it fails."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # it has just ended
                self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it."""
        self.pool.close()
        self._close_handle()

    def _close_handle(self) -> None:
        if self._handle is not None:
            self._handle.close()

    @contextlib.contextmanager
    def cut_after(self, seconds: float, *, asked: str) -> Iterator[None]:
        """Cut it if the block takes longer; what fails in the block is inconclusive.

        Raises:
            Inconclusive: there was no whole answer, and why.
        """
        late = threading.Event()

        def cut() -> None:
            late.set()
            self.cut()

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
