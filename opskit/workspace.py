"""Throw-away folders; if their owner is killed, the next run removes them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from opskit.errors import ConfigurationError

PREFIX = "opskit-"
_LOCK = ".owner.lock"
# Being made or removed takes a moment; what is older was left by a kill.
_UNNAMED_SECONDS_MAX = 3600


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a run may take, with how many jobs, and where its files lie.

    `work_dir` is the folder of throw-away folders, by default that of TMPDIR;
    `room_bytes` must be free in it beyond what is unpacked there.
    """

    seconds: float
    jobs: int
    work_dir: Path | None = None
    room_bytes: int = 0


@contextlib.contextmanager
def throwaway(kind: str, *, base: Path | None = None) -> Iterator[Path]:
    """Yield a new private folder (0700) that is removed when the block ends.

    The owner holds an OS lock inside it, which shows whether the folder is in use.
    """
    base = base or Path(tempfile.gettempdir())
    if not base.is_dir():
        raise ConfigurationError(
            f"the work folder {base} does not exist",
            hint="Create it, or name another in [drill] work_dir.",
        )
    # It has its proper name only while it is locked: otherwise a sweep could take it
    # for that of a dead run.
    unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{kind}-", dir=base))
    # Another thread may release it.
    lock = FileLock(unnamed / _LOCK, timeout=0, thread_local=False)
    path = base / unnamed.name.removeprefix(".")
    try:
        lock.acquire()
        unnamed.rename(path)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.rename(unnamed)
        _remove(unnamed)
        lock.release()


def sweep(
    kind: str,
    *,
    base: Path | None = None,
    before_removal: Callable[[Path], None] = lambda _path: None,
) -> list[Path]:
    """Remove folders of this kind whose owner is dead, and return them.

    `before_removal` ends what still runs in a folder. Folders that belong to other
    users, and those that hold something but no lock, are left alone: others, too, use
    a shared temporary directory.
    """
    base = base or Path(tempfile.gettempdir())
    removed = []
    unnamed = set(base.glob(f".{PREFIX}{kind}-*"))
    for path in sorted([*base.glob(f"{PREFIX}{kind}-*"), *unnamed]):
        if not _is_ours(path, min_age=_UNNAMED_SECONDS_MAX if path in unnamed else 0):
            continue
        if path in unnamed and _is_empty(path):
            # Its owner was killed before the lock was made, or after it was removed.
            with contextlib.suppress(OSError):
                path.rmdir()
                removed.append(path)
            continue
        with _claimed(path / _LOCK) as is_dead:
            if is_dead:
                before_removal(path)
                _remove(path)
                removed.append(path)
    return removed


def _is_empty(path: Path) -> bool:
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True  # another run has removed it meanwhile


def _remove(path: Path) -> None:
    """Remove a folder as far as possible, its lock last."""
    with contextlib.suppress(OSError):
        for each in list(os.scandir(path)):
            if each.is_dir(follow_symlinks=False):
                shutil.rmtree(each.path, ignore_errors=True)
            elif each.name != _LOCK:
                os.unlink(each.path)
        if os.listdir(path) in ([], [_LOCK]):
            shutil.rmtree(path)


@contextlib.contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Yield whether the lock's owner is dead; if so, hold the lock meanwhile.

    The file is opened only if it exists: FileLock would create it again after its owner
    has removed it.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield lock.exists()
    finally:
        os.close(descriptor)


def _is_ours(path: Path, *, min_age: float) -> bool:
    """Return whether it is a private folder of this user and not too new."""
    try:
        status = path.lstat()
    except OSError:
        return False
    owner = status.st_uid
    # Root gives the folder itself to an unprivileged user, but keeps the lock.
    with contextlib.suppress(OSError):
        owner = (path / _LOCK).lstat().st_uid
    return (
        stat.S_ISDIR(status.st_mode)
        and owner == os.geteuid()
        and status.st_mode & 0o077 == 0
        and (not min_age or time.time() - status.st_mtime > min_age)
    )
