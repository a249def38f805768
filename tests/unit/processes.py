"""Real processes for the tests of locks: what dies must free what it held."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import opskit

_ROOT = Path(opskit.__file__).resolve().parents[1]
READY = "ready"


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python script; it gets the arguments as `sys.argv[1:]`."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def holding(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Yield a running script once it has printed that it is ready."""
    with start(script, *arguments) as process:
        try:
            assert _output(process).readline().strip() == READY
            yield process
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    """End a process as the system does when memory is out: at once, unasked."""
    process.kill()
    process.wait(timeout=30)


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout
