"""Throw-away folders that the next run removes when their owner was killed."""

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
    """Yield a new private folder (0700) that is gone when the block ends.

    The owner holds an OS lock inside it, so that a folder whose owner died can be
    told from one in use.
    """
    base = base or Path(tempfile.gettempdir())
    if not base.is_dir():
        raise ConfigurationError(
            f"the work folder {base} does not exist",
            hint="Create it, or name another in [drill] work_dir.",
        )
    # It has its proper name only while it is locked: a sweep that came in between
    # would take it for a dead run's.
    unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{kind}-", dir=base))
    # Another thread than the one that took it may let it go.
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
    users, and those that hold something but no lock, are left alone: a shared temporary
    directory holds anybody's names.
    """
    base = base or Path(tempfile.gettempdir())
    removed = []
    unnamed = [
        path
        for path in base.glob(f".{PREFIX}{kind}-*")
        if _age_seconds(path) > _UNNAMED_SECONDS_MAX
    ]
    for path in sorted([*base.glob(f"{PREFIX}{kind}-*"), *unnamed]):
        if not _ours(path):
            continue
        if path in unnamed and not os.listdir(path):
            # Killed before it was locked, or as it was all but removed.
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


def _remove(path: Path) -> None:
    """Remove a folder as far as that can be done, the lock that marks it last."""
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

    FileLock would make a folder and a lock anew where its owner has just removed them,
    so the file is opened only if it is there.
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


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    owner = found.st_uid
    # Root hands the folder itself to an unprivileged user; the lock stays its own.
    with contextlib.suppress(OSError):
        owner = (path / _LOCK).lstat().st_uid
    return (
        stat.S_ISDIR(found.st_mode)
        and owner == os.geteuid()
        and found.st_mode & 0o077 == 0
    )
