"""Processes of the service that start quickly: its libraries are loaded only once."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_LIBRARIES = (
    "argon2",
    "fastapi",
    "filelock",
    "jwt",
    "limits.aio.storage",
    "prometheus_client",
    "psycopg_pool",
    "pydantic.v1",
    "pydantic_settings",
    "redis.asyncio",
    "starlette.middleware.cors",
    "structlog",
    "urllib3",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.lifespan.on",
)
_SECONDS_MAX = 60


class Forked:
    """A process of the service, with the methods of one of the module subprocess."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return how it ended, or None."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if (code := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(["service"], timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


def launch(
    folder: Path, port: int, environment: Mapping[str, str], log: Path
) -> Forked:
    """Start `python -m service serve`; it ends at the latest with this process."""
    arguments = ["serve", "--port", str(port)]
    return _start(folder, arguments, environment, output=log, errors=log)


def run(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run `python -m service` to its end: its exit code, output and errors."""
    output, errors = folder / "output", folder / "errors"
    for each in (output, errors):
        each.write_text("")
    process = _start(folder, arguments, environment, output=output, errors=errors)
    code = process.wait(_SECONDS_MAX)
    return code, output.read_text(), errors.read_text()


def _start(
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    output: Path,
    errors: Path,
) -> Forked:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_LIBRARIES])
    given = (folder, ["service", *arguments], dict(environment), output, errors)
    process = context.Process(target=_run, args=given)
    process.start()
    return Forked(process)


def _run(
    folder: Path,
    arguments: list[str],
    environment: dict[str, str],
    output: Path,
    errors: Path,
) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for stream, path in ((sys.stdout, output), (sys.stderr, errors)):
        with path.open("ab") as opened:
            os.dup2(opened.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    sys.argv = arguments
    runpy.run_module("service", run_name="__main__", alter_sys=True)
