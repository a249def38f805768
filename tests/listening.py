"""A server of raw bytes on loopback, and `smoke` run against it as a command."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import processes

Respond = Callable[[socket.socket, bytes, threading.Event], None]
ROOT = Path(__file__).resolve().parents[1]
_SECONDS = 60


@contextlib.contextmanager
def listening(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Have each request's head answered by `respond`, and yield host and port.

    It is called with the connection, the head, and what is set at the end of the block.
    """
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        # The other end may go at any time.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            connection.settimeout(_SECONDS)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
                stack.callback(connection.close)
            while head := _head(connection):
                respond(connection, head, ended)

    def accept() -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                arguments = (listener.accept()[0],)
                threading.Thread(target=serve, args=arguments, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)


def _head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        block = connection.recv(65536)
        if not block:
            return b""
        head += block
    return head


def answer(body: bytes, *, status: int = 200, headers: str = "") -> bytes:
    """Return a whole answer."""
    length = f"Content-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status} X\r\n{headers}{length}\r\n".encode("latin-1") + body


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the command ended."""

    code: int
    output: str
    errors: str
    seconds: float


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Run `smoke` with the opskit.toml of a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "opskit", "smoke", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "OPSKIT_STATE_DIR": str(folder / "state"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, configuration: str, *arguments: str) -> Ended:
    """Run `smoke` to its end."""
    (folder / "opskit.toml").write_text(configuration)
    began = time.monotonic()
    environment = {
        "PATH": os.environ["PATH"],
        "OPSKIT_STATE_DIR": str(folder / "state"),
    }
    code, output, errors = processes.run_inv(folder, ("smoke", *arguments), environment)
    return Ended(
        code=code, output=output, errors=errors, seconds=time.monotonic() - began
    )
