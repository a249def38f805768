"""A state file that several processes change: never torn, no update lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

_WAIT_SECONDS = 30
_POLL_SECONDS = 0.01


class StateFile:
    """A JSON object in a file, changed under a lock and replaced as a whole.

    A reader needs no lock: it sees the old content or the new. The kernel releases
    the lock of a process that was killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(
            f"{path}.lock", timeout=_WAIT_SECONDS, poll_interval=_POLL_SECONDS
        )

    def read(self) -> dict[str, Any]:
        """Return the content; a file that is not there yet is empty."""
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict):
            raise ValueError(f"{self._path.name} does not hold a JSON object")
        return content

    def update(self, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Let `change` alter the content, write it, and return it.

        When this returns, the update survives a crash of the machine. When `change`
        raises, the file is as it was.

        Raises:
            filelock.Timeout: another process holds the lock for too long.
        """
        with self._lock:
            content = self.read()
            change(content)
            self._replace(json.dumps(content, indent=1).encode())
        return content

    def _replace(self, content: bytes) -> None:
        # One fixed name, which the lock protects: what a killed writer left behind is
        # written over by the next one.
        temporary = self._path.with_name(f"{self._path.name}.new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        sync_directory(self._path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a crash of the machine."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
