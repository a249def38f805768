"""One run at a time: an OS lock that ends with its holder and names it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from opskit import files
from opskit.errors import ConfigurationError, LockHeld
from opskit.log import logger


@contextlib.contextmanager
def exclusive(
    directory: Path, name: str, *, operation: str, run_id: str, now: datetime
) -> Iterator[None]:
    """Hold the lock `name` for the length of the block.

    A file of its own beside the lock names the holder: opening the lock must not
    truncate that.

    Raises:
        LockHeld: another process holds it; the message says who, and since when.
        ConfigurationError: the folder cannot be written.
    """
    owner = directory / f"{name}.owner.json"
    lock = FileLock(directory / f"{name}.lock", timeout=0)
    try:
        with _translated(directory):
            files.make_directories(directory)
            lock.acquire()
    except Timeout:
        raise _lock_held(name, owner) from None
    try:
        record = {
            "operation": operation,
            "run_id": run_id,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started_at": now.isoformat(),
        }
        with _translated(directory):
            files.write_text(owner, json.dumps(record))
        yield
    finally:
        # The work is done: the lock is released with the process at the latest.
        with _warn_on_error(owner):
            owner.unlink(missing_ok=True)
        with _warn_on_error(owner):
            lock.release()


@contextlib.contextmanager
def _warn_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger().warning(
            "a lock file cannot be removed", path=str(path), reason=error.strerror
        )


@contextlib.contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"the state folder {directory} cannot be written: {error.strerror}",
            hint="Free some space there, let this user write, or name another with "
            "state_dir. Nothing was touched.",
        ) from error


@contextlib.contextmanager
def in_use(directory: Path, name: str) -> Iterator[None]:
    """Hold a shared OS lock on something that is read for the length of the block."""
    with contextlib.ExitStack() as opened:
        with _translated(directory):
            _lock(opened, directory, name, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def unused(directory: Path, name: str) -> Iterator[bool]:
    """Yield whether nobody reads it; if so, readers wait until the block ends."""
    with contextlib.ExitStack() as opened:
        try:
            _lock(opened, directory, name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
            with _warn_on_error(directory / name):
                (directory / name).unlink(missing_ok=True)


def _lock(
    opened: contextlib.ExitStack, directory: Path, name: str, operation: int
) -> None:
    """Lock the file of this name: one that was removed meanwhile locks nobody out."""
    while True:
        descriptor = opened.enter_context(_opened(directory, name))
        fcntl.flock(descriptor, operation)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(directory / name)):
                return


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[int]:
    with _translated(directory):
        files.make_directories(directory)
        descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_held(name: str, owner: Path) -> LockHeld:
    try:
        holder = json.loads(owner.read_text(encoding="utf-8"))
        who = (
            f"{holder['operation']} (run {holder['run_id']}, process {holder['pid']} "
            f"on {holder['host']}, started {holder['started_at']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        # The record is written a moment after the lock is taken.
        holder, who = None, "a run that has only just started"
    return LockHeld(
        f"{name} is locked by {who}",
        hint="Wait for that run to end; the lock is freed when its process ends, "
        "however it ends.",
        details={"holder": holder},
    )
