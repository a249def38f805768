"""Whether folders can be read or written, and whether they have room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from opskit.catalog.file_record import shown
from opskit.checks import Check
from opskit.folders.lock import ServiceLock

_READ = "Run this as a user who may read all of it, or leave it out with exclude."
_LOCK = "Name the file that the service locks, and run this as a user who may use it."


def examine(name: str, path: Path, lock: ServiceLock | None) -> Iterator[Check]:
    """Yield whether everything in a folder can be read, and whether its lock is usable.

    Nothing is locked or made: the service may be at work.
    """
    yield _readable(f"files {name}: folder", path)
    if lock is not None:
        yield _lock(f"files {name}: lock", lock)


def size_bytes(path: Path) -> int:
    """Return the size of the files in a folder, as far as they can be seen."""
    return sum(each.stat(follow_symlinks=False).st_size for each in _files(path, []))


def _readable(name: str, path: Path) -> Check:
    refused: list[str] = []
    number = 0
    for each in _files(path, refused):
        number += 1
        if not os.access(each.path, os.R_OK):
            refused.append(each.path)
    if not refused:
        return Check(name=name, passed=True, observed=f"{number} files can be read")
    return Check(
        name=name,
        passed=False,
        expected="none",
        observed=f"{len(refused)} cannot be read, for instance {shown(refused[0])}",
        hint=_READ,
    )


def _files(path: Path, refused: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files below a folder; add to `refused` what is not shown."""
    try:
        with os.scandir(path) as scanned:
            entries = list(scanned)
    except OSError:
        refused.append(str(path))
        return
    for each in entries:
        if each.is_dir(follow_symlinks=False):
            yield from _files(Path(each.path), refused)
        elif each.is_file(follow_symlinks=False):
            yield each


def _lock(name: str, lock: ServiceLock) -> Check:
    if not lock.path.exists():
        usable = os.access(lock.path.parent, os.W_OK | os.X_OK)
        observed = f"{lock.path} does not exist; a backup would create it"
    else:
        wanted = os.R_OK if lock.kind == "flock" else os.R_OK | os.W_OK
        usable = lock.path.is_file() and os.access(lock.path, wanted)
        observed = f"{lock.path} can be locked"
    if not usable:
        observed = f"this user can neither open nor create {lock.path}"
    return Check(
        name=name, passed=usable, observed=observed, hint="" if usable else _LOCK
    )


def examine_space(name: str, folder: Path, needed_bytes: int, hint: str) -> Check:
    """Compare what is free in a folder with what will be needed."""
    try:
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        observed = f"{folder}: {error.strerror}"
        return Check(name=name, passed=False, observed=observed, hint=hint)
    enough = free_bytes >= needed_bytes
    return Check(
        name=name,
        passed=enough,
        expected=f"at least {needed_bytes // 2**20} MiB",
        observed=f"{free_bytes // 2**20} MiB free in {folder}",
        hint="" if enough else hint,
    )


def examine_folder(name: str, folder: Path, hint: str) -> Check:
    """Check that files can be created in a folder, or the folder itself."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    usable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return Check(
        name=name,
        passed=usable,
        observed=f"{folder} {'is' if usable else 'is not'} writable for this user",
        hint="" if usable else hint,
    )
