"""A balancer that errs at random, in front of instances of a service."""

from __future__ import annotations

import contextlib
import random
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)
_PAGE = b"<html><body>503 Service Unavailable</body></html>"
_UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE)
)
_METHODS = (b"GET ", b"HEAD ", b"OPTIONS ", b"POST ", b"PUT ", b"PATCH ")
_SECONDS = 60.0


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    instances: Sequence[str]
    chance: random.Random
    trouble: float
    slow_seconds: float

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no error here."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Pass one connection on to an instance; any request may meet trouble."""
        server = self.server
        slow, server.slow_seconds = server.slow_seconds, 0.0
        time.sleep(slow)
        address = urlsplit(server.chance.choice(server.instances))
        with socket.create_connection(
            (address.hostname, address.port or 80), _SECONDS
        ) as instance:
            back = threading.Thread(
                target=_copy, args=(instance, self.request), daemon=True
            )
            back.start()
            while data := self.request.recv(65536):
                is_troubled = data.startswith(_METHODS) and (
                    server.chance.random() < server.trouble
                )
                if is_troubled and server.chance.random() < 0.5:
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    return
                if is_troubled:
                    self.request.sendall(_UNAVAILABLE)
                    return
                instance.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def balancing(
    *instances: str, seed: int = 0, trouble: float = 0.0, slow_seconds: float = 0.0
) -> Iterator[str]:
    """Balance connections for the block, and return the address.

    Of all requests the share `trouble` gets a page with 503 or a reset; the first
    connection waits `slow_seconds`.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.instances, server.chance = instances, random.Random(seed)
        server.trouble, server.slow_seconds = trouble, slow_seconds
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
