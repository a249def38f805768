"""Throw-away folders that the next run removes when their owner was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from opskit.errors import ConfigurationError

PREFIX = "opskit-"
_LOCK = ".owner.lock"


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
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-", dir=base))
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        with lock:
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(
    kind: str, *, base: Path | None = None, before_removal: Callable[[Path], None]
) -> list[Path]:
    """Remove folders of this kind whose owner is dead, and return them.

    `before_removal` ends what still runs in a folder. Folders that belong to other
    users are left alone: a shared temporary directory holds anybody's names.
    """
    base = base or Path(tempfile.gettempdir())
    removed = []
    for path in sorted(base.glob(f"{PREFIX}{kind}-*")):
        if not _ours(path):
            continue
        lock = FileLock(path / _LOCK, timeout=0)
        try:
            with lock:
                before_removal(path)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
        except (Timeout, FileNotFoundError):
            # In use, or just being removed by its owner or another sweep.
            continue
    return removed


def _ours(path: Path) -> bool:
    try:
        found = path.lstat()
        lock = (path / _LOCK).lstat()
    except OSError:
        return False
    # Root hands the folder itself to an unprivileged user; the lock stays its own.
    return (
        path.is_dir()
        and not path.is_symlink()
        and (lock.st_uid == os.geteuid() and found.st_mode & 0o077 == 0)
    )
