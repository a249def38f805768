"""Listener: an HTTP server that takes the deliveries of a webhook for a while."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from urllib3 import HTTPHeaderDict

from opskit.probes.probe import Inconclusive
from opskit.threads import Thread

_BYTES_MAX = 1024 * 1024
_SECONDS_MAX = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What came in, and when."""

    headers: HTTPHeaderDict
    body: bytes
    time: float


class _Handler(BaseHTTPRequestHandler):
    deliveries: queue.SimpleQueue[Delivery]
    timeout = _SECONDS_MAX

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _BYTES_MAX:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        headers = HTTPHeaderDict(self.headers.items())
        self.deliveries.put(Delivery(headers=headers, body=body, time=time.time()))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Listener:
    """Gives the deliveries one by one."""

    def __init__(self, deliveries: queue.SimpleQueue[Delivery]) -> None:
        self._deliveries = deliveries

    def until(self, end: float) -> Iterator[Delivery]:
        """Yield what comes in until then."""
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                yield self._deliveries.get(timeout=left)
        # This machine may have been too busy to look at them before.
        for _ in range(self._deliveries.qsize()):
            yield self._deliveries.get()


@contextlib.contextmanager
def listening(address: str) -> Iterator[Listener]:
    """Listen at HOST:PORT during the block.

    Raises:
        Inconclusive: the address cannot be listened on.
    """
    deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
    handler = type("Handler", (_Handler,), {"deliveries": deliveries})
    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), handler)
    except (OSError, OverflowError) as error:
        raise Inconclusive(f"{address} cannot be listened on: {error}") from error
    server.daemon_threads = True
    thread = Thread(server.serve_forever, _POLL_SECONDS, name="webhooks")
    try:
        yield Listener(deliveries)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
