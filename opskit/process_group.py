"""Programs of the user: each leads a process group, ended as a whole if it is late."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from opskit.threads import Thread, fulfil

Process = subprocess.Popen[bytes]
_STANDARD_ERROR = 2


def run(
    command: Sequence[str],
    *,
    seconds: float | None,
    patience: float = 0,
    content: bytes = b"",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: int | IO[bytes] = _STANDARD_ERROR,
    errors: IO[bytes] | None = None,
) -> int:
    """Run a program with some content on standard input; return its exit code.

    A program that is late, or interrupted, is killed with all that it has started.
    Without `seconds` it is never late. With `patience` it is asked to end first, and
    has so many seconds for that. What is left of a program that has ended by itself
    goes on.

    Raises:
        OSError: it cannot be run.
        subprocess.TimeoutExpired: it took longer than `seconds`.
    """

    def begin() -> Process:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE if content else subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )

    with ended(begin, partial(_end, patience=patience)) as beginning:
        process = beginning.result()
        process.communicate(content or None, seconds)
    return int(process.returncode)


@contextmanager
def ended(
    begin: Callable[[], Process], end: Callable[[Process], None]
) -> Iterator[Future[Process]]:
    """Begin a program, and end it after the block if it still runs.

    It begins in a thread, where no signal is handled. In the main thread an interrupt
    could come when the program runs, but is not known yet: it would go on.
    """
    beginning: Future[Process] = Future()
    is_over = threading.Event()

    def live() -> None:
        fulfil(beginning, begin)
        is_over.wait()  # the system takes it for the parent, which must not end first

    try:
        Thread(live, name="program")
        yield beginning
    finally:
        if not beginning.cancel() and beginning.exception() is None:
            with beginning.result() as process:
                if process.poll() is None:
                    end(process)
        is_over.set()


def captured(
    command: Sequence[str],
    *,
    seconds: float,
    patience: float = 0,
    folder: Path,
    environment: Mapping[str, str],
) -> tuple[int, str, str]:
    """Run a program; return its exit code, its output, and its errors.

    Raises:
        OSError, subprocess.TimeoutExpired: see `run`.
    """
    # Files, not pipes: what the program leaves behind may hold them open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        code = run(
            command,
            seconds=seconds,
            patience=patience,
            folder=folder,
            environment=environment,
            output=output,
            errors=errors,
        )
        return code, _text(output), _text(errors)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end(process: Process, patience: float) -> None:
    try:
        if patience:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
