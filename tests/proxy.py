"""A proxy in front of a real S3 server that fails where a test wants it to."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.s3_operations import operation_of

_RESET = struct.pack("ii", 1, 0)
_UPSTREAM_SECONDS = 60.0
_OWN_HEADERS = {"connection", "transfer-encoding", "content-length", "expect"}
_NO_BODY = (204, 304)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client asked for; `number` counts all requests from 1."""

    number: int
    operation: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a request instead of its being passed on.

    Args:
        answer: status and S3 code that are answered, the server never asked.
        cut_upload_after: how many bytes of the body the server gets before both
            connections are cut.
        cut_download_after: how many bytes of the answer's body the client gets.
        hold: nothing is answered until the proxy ends.
        lose_answer: the server does its work, and the client's connection is cut.
        flip: the number of the byte of the answer's body that is changed.
        flip_upload: the same for the body of the request.
        delay_seconds: waits before it passes the request on.
        headers: changes the answer's headers.
    """

    answer: tuple[int, str] | None = None
    cut_upload_after: int | None = None
    cut_download_after: int | None = None
    hold: bool = False
    lose_answer: bool = False
    flip: int | None = None
    flip_upload: int | None = None
    delay_seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Rule:
    fault: Fault
    wanted: Callable[[Request], bool]
    skip: int
    times: int | None


class Proxy:
    """Rules for requests, in their order, and what was asked so far."""

    def __init__(self, upstream: str, host: str = "127.0.0.1") -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.requests: list[Request] = []
        self.ending = threading.Event()
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._server = _Server((host, 0), _handler(self))
        self.endpoint_url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="proxy"
        )
        self._thread.start()

    def fail(
        self,
        operation: str | Callable[[Request], bool],
        fault: Fault,
        *,
        times: int | None = 1,
        skip: int = 0,
    ) -> None:
        """Apply a fault to requests of an operation, or those that a function wants.

        Args:
            operation: a regular expression over S3's names of operations.
            times: how often; None for ever.
            skip: how many such requests pass before.
        """
        wanted = _named(operation) if isinstance(operation, str) else operation
        rule = _Rule(fault=fault, wanted=wanted, skip=skip, times=times)
        with self._lock:
            self._rules.append(rule)

    def heal(self) -> None:
        """Forget all rules and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def counts(self) -> Counter[str]:
        """Return how many requests of each operation there were."""
        with self._lock:
            return Counter(each.operation for each in self.requests)

    def next_fault(self, method: str, target: str) -> Fault:
        """Count a request and return what is to happen to it."""
        with self._lock:
            request = Request(
                number=len(self.requests) + 1,
                operation=operation_of(method, target),
                path=urlsplit(target).path,
            )
            self.requests.append(request)
            for rule in self._rules:
                if not rule.wanted(request) or rule.times == 0:
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                if rule.times is not None:
                    rule.times -= 1
                return rule.fault
        return Fault()

    def close(self) -> None:
        """Cut all connections and wait for the threads."""
        self.ending.set()
        self._server.shutdown()
        self._server.cut_all()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def proxy_to(upstream: str, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy on the loopback, or another address of this machine."""
    proxy = Proxy(upstream, host)
    try:
        yield proxy
    finally:
        proxy.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        with self._guard:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of the proxy."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_any(self) -> None:
        """Do with one request what the rules say."""
        fault = self.proxy.next_fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault.hold:
            self.proxy.ending.wait()
            return self._cut()
        if fault.delay_seconds:
            self.proxy.ending.wait(fault.delay_seconds)
        if fault.cut_upload_after is not None:
            with contextlib.closing(self._forward_head()) as upstream:
                upstream.send(self.rfile.read(min(length, fault.cut_upload_after)))
            return self._cut()
        body = self._body(length)
        if fault.answer is not None:
            return self._refuse(*fault.answer)
        if fault.flip_upload is not None:
            body = _flipped(body, fault.flip_upload)
        with contextlib.closing(self._forward_head()) as upstream:
            upstream.send(body)
            with upstream.getresponse() as answer:
                content = answer.read()
        if fault.lose_answer:
            return self._cut()
        self._pass_back(answer, content, fault)
        return None

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(length)
        raise ValueError("the clients of these tests always tell the length")

    def _forward_head(self) -> http.client.HTTPConnection:
        upstream = http.client.HTTPConnection(
            *self.proxy.upstream, timeout=_UPSTREAM_SECONDS
        )
        upstream.putrequest(
            self.command, self.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in self.headers.items():
            if name.lower() not in _OWN_HEADERS:
                upstream.putheader(name, value)
        if "Content-Length" in self.headers:
            upstream.putheader("Content-Length", self.headers["Content-Length"])
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        return upstream

    def _pass_back(
        self, answer: http.client.HTTPResponse, content: bytes, fault: Fault
    ) -> None:
        self.send_response_only(answer.status, answer.reason)
        changed = {name.lower() for name in fault.headers}
        for name, value in answer.getheaders():
            if name.lower() not in _OWN_HEADERS | changed:
                self.send_header(name, value)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        length = str(len(content))
        if self.command == "HEAD":
            length = answer.getheader("Content-Length") or "0"
        if answer.status not in _NO_BODY:
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault.flip is not None:
            content = _flipped(content, fault.flip)
        if fault.cut_download_after is not None:
            # Not a reset, which would also drop what is on its way.
            content = content[: fault.cut_download_after]
            self.close_connection = True
        self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>"
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content.encode())

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def log_message(self, *_arguments: Any) -> None:
        """Stay silent."""


def _named(operation: str) -> Callable[[Request], bool]:
    pattern = re.compile(operation)
    return lambda request: pattern.fullmatch(request.operation) is not None


def _handler(proxy: Proxy) -> type[_Handler]:
    return type("Handler", (_Handler,), {"proxy": proxy})


def _flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)
