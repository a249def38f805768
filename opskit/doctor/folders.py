"""Whether a folder of files can be backed up: readable, and its service's lock too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from opskit.catalog.file_record import shown
from opskit.checks import Finding, Health
from opskit.errors import OpskitError
from opskit.folders.lock import ServiceLock

_READ = "Run this as a user who may read all of it, or leave it out with exclude."


def examine(name: str, path: Path, lock: ServiceLock | None) -> Iterator[Finding]:
    """Yield whether everything in a folder can be read, and whether its lock is usable.

    Nothing is locked or made: the service may be at work.
    """
    yield _readable(name, path)
    if lock is not None:
        yield _lock(name, lock)


def size_bytes(path: Path) -> int:
    """Return the size of the files in a folder, as far as they can be seen."""
    return sum(each.stat(follow_symlinks=False).st_size for each in _files(path, []))


def _readable(name: str, path: Path) -> Finding:
    refused: list[str] = []
    number = 0
    for each in _files(path, refused):
        number += 1
        if not os.access(each.path, os.R_OK):
            refused.append(each.path)
    if refused:
        return Finding(
            name=f"files {name}: folder",
            status=Health.UNHEALTHY,
            observed=f"{len(refused)} cannot be read, for instance {shown(refused[0])}",
            limit="none",
            hint=_READ,
        )
    return Finding(
        name=f"files {name}: folder",
        status=Health.HEALTHY,
        observed=f"{number} files can be read",
    )


def _files(path: Path, refused: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files below a folder; add to `refused` what is not shown."""
    try:
        with os.scandir(path) as found:
            entries = list(found)
    except OSError:
        refused.append(str(path))
        return
    for each in entries:
        if each.is_dir(follow_symlinks=False):
            yield from _files(Path(each.path), refused)
        elif each.is_file(follow_symlinks=False):
            yield each


def _lock(name: str, lock: ServiceLock) -> Finding:
    what = f"files {name}: lock"
    hint = (
        "Name the file that the service locks, and run this as a user who may use it."
    )
    if not lock.path.exists():
        usable = os.access(lock.path.parent, os.W_OK | os.X_OK)
        observed = f"{lock.path} is not there; a backup would make it"
    else:
        wanted = os.R_OK if lock.kind == "flock" else os.R_OK | os.W_OK
        usable = lock.path.is_file() and os.access(lock.path, wanted)
        observed = f"{lock.path} can be locked"
    if not usable:
        return Finding(
            name=what,
            status=Health.UNHEALTHY,
            observed=f"{lock.path} cannot be opened or made by this user",
            hint=hint,
        )
    return Finding(name=what, status=Health.HEALTHY, observed=observed)


def examine_space(name: str, folder: Path, needed_bytes: int, hint: str) -> Finding:
    """Compare what is free in a folder with what will be needed."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            name=name,
            status=Health.UNHEALTHY,
            observed=f"{folder}: {error.strerror}",
            hint=hint,
        )
    enough = free_bytes >= needed_bytes
    return Finding(
        name=name,
        status=Health.HEALTHY if enough else Health.UNHEALTHY,
        observed=f"{free_bytes // 2**20} MiB free in {folder}",
        limit=f"at least {needed_bytes // 2**20} MiB",
        hint="" if enough else hint,
    )


def examine_folder(name: str, folder: Path, hint: str) -> Finding:
    """Look whether files can be made in a folder, or the folder itself."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Finding(
        name=name,
        status=Health.HEALTHY if usable else Health.UNHEALTHY,
        observed=f"{folder} {'is' if usable else 'is not'} writable for this user",
        hint="" if usable else hint,
    )


def attempted(name: str, attempt: Callable[[], str]) -> Finding:
    """Return what an attempt shows, or why it cannot be made."""
    try:
        return Finding(name=name, status=Health.HEALTHY, observed=attempt())
    except OpskitError as error:
        return Finding(
            name=name,
            status=Health.UNHEALTHY,
            observed=error.message,
            hint=error.hint,
        )


def space_for_drills(sizes_bytes: Sequence[int]) -> int:
    """Return how much a drill of the largest database needs: the copy and the dump."""
    return 2 * max(sizes_bytes, default=0)
