"""Atomic files: a reader sees the old content or the new, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from opskit.errors import LockHeld

LOCK_WAIT_SECONDS = 30.0
# The temporary names that `atomic_writer` uses.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
_PACKAGE = Path(__file__).resolve().parent


def documents() -> Path:
    """Return the folder of README.md, docs, runbooks and workflows.

    It lies in the installed package; in a clone it is the clone.
    """
    installed = _PACKAGE / "documents"
    return installed if installed.exists() else _PACKAGE.parent


def fsync_directory(directory: Path) -> None:
    """Make the entries of a directory durable.

    A rename alone survives a crash of the process, but not of the machine.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(directory: Path) -> None:
    """Create a directory and its missing parents (0700), each entry made durable."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        # Somebody else may be making the same parents right now.
        path.mkdir(mode=0o700, exist_ok=True)
        fsync_directory(path.parent)


@contextlib.contextmanager
def atomic_writer(
    target: Path, *, mode: int = 0o600, overwrite: bool = True
) -> Iterator[BinaryIO]:
    """Yield a file that becomes `target` when the block ends without an error.

    The data goes to a temporary file in the same directory, is synced, renamed
    into place, and the directory is synced. An existing target keeps its mode and
    owner; `mode` is for a new one. On an error the target is untouched and the
    temporary file is gone.

    Raises:
        FileExistsError: the target exists and `overwrite` is false.
    """
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.name[:80]}.", dir=target.parent
    )
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _copy_ownership(file.fileno(), target, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            # link refuses an existing name; a rename would silently replace it.
            _link(temporary, target)
            temporary.unlink()
        try:
            fsync_directory(target.parent)
        except BaseException:
            if not overwrite:
                target.unlink(missing_ok=True)
            raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError as error:
        # What vfat and many network file systems say: they have no hard links.
        if error.errno in (errno.EPERM, errno.ENOSYS, errno.EMLINK):
            raise OSError(
                errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(name)
            ) from error
        raise


def is_temporary(name: str) -> bool:
    """Return whether a name is one that `atomic_writer` gives to unfinished files."""
    return _TEMPORARY.fullmatch(name) is not None


def sweep_temporary(folder: Path, *, before: datetime) -> int:
    """Remove temporary files that killed writers left below a folder; return how many.

    Only regular files of this user that were last written before that time. Files that
    cannot be removed stay.
    """
    swept = 0
    for path in folder.rglob(".*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            is_stale = status.st_mtime < before.timestamp()
            is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if is_temporary(path.name) and is_ours and is_stale:
                path.unlink()
                swept += 1
    return swept


def _copy_ownership(descriptor: int, target: Path, mode: int) -> None:
    try:
        existing = target.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, mode)
        return
    mode = existing.st_mode & 0o7777
    if (existing.st_uid, existing.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(descriptor, existing.st_uid, existing.st_gid)
        except PermissionError:
            # Only root may change the owner. Another group must not get the rights of
            # the old one.
            mode &= ~0o077
    os.fchmod(descriptor, mode)


def write_atomically(
    target: Path, chunks: Iterable[bytes], *, mode: int = 0o600, overwrite: bool = True
) -> int:
    """Write a whole file atomically and return its size in bytes."""
    size_bytes = 0
    with atomic_writer(target, mode=mode, overwrite=overwrite) as file:
        for chunk in chunks:
            file.write(chunk)
            size_bytes += len(chunk)
    return size_bytes


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    write_atomically(target, [text.encode()])


@contextlib.contextmanager
def locked(
    lock: Path, *, what: str, wait_seconds: float | None = None
) -> Iterator[None]:
    """Hold a lock file for the length of the block; an error calls it `what`.

    Raises:
        LockHeld: it was not free within `wait_seconds`.
    """
    seconds = LOCK_WAIT_SECONDS if wait_seconds is None else wait_seconds
    held = FileLock(lock, timeout=seconds)
    try:
        held.acquire()
    except Timeout:
        raise LockHeld(
            f"{what} is locked by another process for over {seconds:g} seconds",
            hint="Wait for the other run to end, then run this again.",
        ) from None
    try:
        yield
    finally:
        held.release()
