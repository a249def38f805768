"""HTTP servers that receive what opskit sends, and answer as a test wants."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Longer than any limit under test; the end of the server ends it.
_HANG_SECONDS = 120.0
_HELD: list[socket.socket] = []


@dataclass(frozen=True)
class Request:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server on loopback.

    The `statuses` are those of its answers, in turn; the last one stays. It answers 0
    by no answer at all, and -1 by one byte a second. With a status of redirection, it
    names `location`.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    location: str = ""
    requests: list[Request] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    def next_status(self) -> int:
        """Return the status of the next answer."""
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def paths(self) -> list[str]:
        """Return the path of each request, without its query."""
        return [each.path.partition("?")[0] for each in self.requests]


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.receiver.requests.append(
            Request(
                method=self.command,
                path=self.path,
                headers={name.lower(): each for name, each in self.headers.items()},
                body=self.rfile.read(length),
            )
        )
        status = self.receiver.next_status()
        if status == 0:
            self.receiver.ending.wait(_HANG_SECONDS)
            return
        if status == -1:
            self._drip()
            return
        self.send_response(status)
        if self.receiver.location:
            self.send_header("Location", self.receiver.location)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    do_POST = do_GET

    def _drip(self) -> None:
        deadline = time.monotonic() + _HANG_SECONDS
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while time.monotonic() < deadline and not self.receiver.ending.wait(0.2):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def receiver(
    statuses: Sequence[int] = (200,), location: str = ""
) -> Iterator[Receiver]:
    """Run a server in the block."""
    made = Receiver(statuses=list(statuses), location=location)

    class Handler(_Handler):
        receiver = made

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}
    )
    thread.start()
    try:
        yield made
    finally:
        made.ending.set()
        server.shutdown()
        thread.join()
        server.server_close()


def away() -> str:
    """Return an address where no server is.

    The socket is kept and never listens, so that no other program gets its port.
    """
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return f"http://127.0.0.1:{held.getsockname()[1]}"
