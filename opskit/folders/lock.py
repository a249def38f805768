"""Takes the lock of a service on its files, in the way that the service does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from opskit.catalog.file_record import shown
from opskit.errors import ConfigurationError, LockHeld

LockKind = Literal["flock", "fcntl"]

_POLL_SECONDS = 0.005
_BUSY = (errno.EAGAIN, errno.EACCES)
# A `struct flock`: a lock for writing, on the whole file.
_WHOLE_FILE = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class ServiceLock:
    """A lock file: `flock` is what filelock and flock(1) take, `fcntl` what lockf does.

    `wait` is how long to wait for the service.
    """

    path: Path
    kind: LockKind = "flock"
    wait: timedelta = timedelta(seconds=30)


@contextlib.contextmanager
def held(lock: ServiceLock) -> Iterator[bool]:
    """Hold the lock for the length of the block; yield whether its file is new.

    A new file gets the owner of its folder, so that the service can open it. The lock
    ends with this process.

    Raises:
        LockHeld: it was not free in time; the message names the holder, if it is known.
        ConfigurationError: the lock's folder does not exist, the lock is not a file, or
            this user may not take it.
    """
    deadline = time.monotonic() + lock.wait.total_seconds()
    is_new = False
    while True:
        descriptor, made = _open(lock)
        is_new = is_new or made
        try:
            if _acquire(descriptor, lock) and _is_current(descriptor, lock.path):
                yield is_new
                return
            if time.monotonic() >= deadline:
                raise _refusal(descriptor, lock)
        finally:
            os.close(descriptor)
        time.sleep(_POLL_SECONDS)


def _open(lock: ServiceLock) -> tuple[int, bool]:
    """Open the lock's file, and create it if it does not exist: services remove it."""
    try:
        try:
            return _open_existing(lock), False
        except FileNotFoundError:
            try:
                return _create(lock.path), True
            except FileExistsError:  # the service has just made it
                return _open_existing(lock), False
    except OSError as error:
        raise ConfigurationError(
            f"the lock {lock.path} cannot be opened: {error.strerror}",
            hint="Name the file that the service locks, and run this as a user who may "
            "write it.",
        ) from error


def _open_existing(lock: ServiceLock) -> int:
    try:
        descriptor = os.open(lock.path, os.O_RDWR | os.O_NONBLOCK)
    except PermissionError:
        if lock.kind == "fcntl":
            raise  # such a lock needs the right to write
        descriptor = os.open(lock.path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a file")


def _create(path: Path) -> int:
    folder = path.parent.stat()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    if os.geteuid() == 0:
        os.fchown(descriptor, folder.st_uid, folder.st_gid)
    # Whoever may create files there may use this one.
    os.fchmod(descriptor, folder.st_mode & 0o666 | 0o600)
    return descriptor


def _acquire(descriptor: int, lock: ServiceLock) -> bool:
    try:
        if lock.kind == "flock":
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif sys.platform == "linux":
            # A lock of the open file, not of the process: that of lockf would end when
            # the backup reads the lock's file as one of the folder.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise ConfigurationError(
            f"the lock {lock.path} cannot be taken: {error.strerror}",
            hint="Check that its file system supports such locks.",
        ) from error
    return True


def _is_current(descriptor: int, path: Path) -> bool:
    """Return whether the locked file still has the name: holders may remove it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _refusal(descriptor: int, lock: ServiceLock) -> LockHeld:
    holder = _holder(descriptor, lock)
    who = f"process {holder['pid']} ({holder['name']})" if holder else "another process"
    return LockHeld(
        f"{lock.path} is locked by {who} for over "
        f"{lock.wait.total_seconds():g} seconds",
        hint="Run this again when the service is less busy, or allow more time with "
        "lock_wait.",
        details={"holder": holder},
    )


def _holder(descriptor: int, lock: ServiceLock) -> dict[str, object] | None:
    """Return who holds the lock, without the command line: it may hold secrets."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    place = f"{device}:{status.st_ino}"
    kinds = ("FLOCK",) if lock.kind == "flock" else ("POSIX", "OFDLCK")
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        for words in map(str.split, lines):
            if "->" not in words and words[1] in kinds and place in words:
                pid = int(words[4])
                name = Path(f"/proc/{pid}/comm").read_text(errors="surrogateescape")
                return {"pid": pid, "name": shown(name.strip())}
    except (OSError, ValueError, IndexError):
        pass
    return None
