"""One run at a time: an OS lock that dies with its holder and names it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from opskit import files
from opskit.errors import LockHeld


@contextlib.contextmanager
def exclusive(
    directory: Path, name: str, *, operation: str, run_id: str, now: datetime
) -> Iterator[None]:
    """Hold the lock `name` for the length of the block.

    Who holds it lies beside the lock in a file of its own: a contender that loses
    must not truncate what the holder wrote.

    Raises:
        LockHeld: another process holds it; the message says who, and since when.
    """
    files.make_directories(directory)
    owner = directory / f"{name}.owner.json"
    lock = FileLock(directory / f"{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise _held(name, owner) from None
    try:
        record = {
            "operation": operation,
            "run_id": run_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": now.isoformat(),
        }
        files.write_text(owner, json.dumps(record))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _held(name: str, owner: Path) -> LockHeld:
    try:
        holder = json.loads(owner.read_text(encoding="utf-8"))
        who = (
            f"{holder['operation']} (run {holder['run_id']}, process {holder['pid']} "
            f"on {holder['host']}, started {holder['started_at']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        # Between taking the lock and writing the record there is a short moment.
        holder, who = None, "a run that has only just started"
    return LockHeld(
        f"{name} is locked by {who}",
        hint="Wait for that run to end; the lock is freed when its process ends, "
        "however it ends.",
        details={"holder": holder},
    )
