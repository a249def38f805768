"""Processes of opskit and of the service that start quickly.

They are forked from one that has loaded what they import.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _modules(room: str) -> list[Path]:
    """Return the modules of a room of opskit."""
    found = sorted((ROOT / "opskit" / room).glob("*.py"))
    return [each for each in found if each.stem != "__init__"]


_LIBRARIES = (
    "argon2",
    "boto3",
    "fastapi",
    "filelock",
    "jwt",
    "limits.aio.storage",
    "opskit.__main__",
    *(f"opskit.operations.{each.stem}" for each in _modules("operations")),
    *(f"opskit.tasks.{each.stem}" for each in _modules("tasks")),
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
_SECONDS_MAX = 300


class Forked:
    """A process, with the methods of one of the module subprocess."""

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
            raise subprocess.TimeoutExpired([self._process.name], timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""
        # Its server reaps it: it may be gone at any moment.
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def end(self) -> None:
        """End it if it goes on, and give back what it took here."""
        self.kill()
        self._process.join()
        self._process.close()


def launch(
    folder: Path, port: int, environment: Mapping[str, str], log: Path
) -> Forked:
    """Start `python -m service serve`; it ends at the latest with this process."""
    arguments = ["serve", "--port", str(port)]
    return _start("service", folder, arguments, environment, log, log)


def run(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run `python -m service` to its end: its exit code, output and errors."""
    return _run("service", folder, arguments, environment)


def run_inv(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run `./inv` to its end: its exit code, output and errors."""
    environment = {"INV_CALLED_AS": str(ROOT / "inv")} | dict(environment)
    return _run("inv", folder, arguments, environment)


def start_inv(
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    terminal: Path,
) -> Forked:
    """Start `./inv` on a terminal, which is its standard input, output and errors."""
    environment = {"INV_CALLED_AS": str(ROOT / "inv")} | dict(environment)
    return _start("inv", folder, arguments, environment, terminal, terminal)


def _run(
    program: str, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[int, str, str]:
    with tempfile.TemporaryDirectory(prefix="printed-") as kept:
        paths = Path(kept) / "output", Path(kept) / "errors"
        for each in paths:
            each.touch()
        process = _start(program, folder, arguments, environment, *paths)
        try:
            code = process.wait(_SECONDS_MAX)
        finally:
            process.end()
        output, errors = (each.read_text() for each in paths)
    return code, output, errors


def _start(
    program: str,
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    errors: Path,
) -> Forked:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_LIBRARIES])
    given = (program, folder, arguments, dict(environment), output, errors)
    # One that a test leaves is ended at exit, and not waited for.
    process = context.Process(target=_become, args=given, daemon=True)
    process.start()
    return Forked(process)


def _become(
    program: str,
    folder: Path,
    arguments: Sequence[str],
    environment: dict[str, str],
    output: Path,
    errors: Path,
) -> None:
    """Be that program, as in an interpreter of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    given = Path(os.devnull)
    if output.is_char_device():
        os.setsid()  # what it opens first becomes the terminal that controls it
        given = output
    for number, path in ((0, given), (1, output), (2, errors)):
        opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    # As those of an interpreter that is told of no language.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    time.tzset()
    os.chdir(folder)
    if program == "service":
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        sys.argv = ["service", *arguments]
        runpy.run_module("service", run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(ROOT / "tasks.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
