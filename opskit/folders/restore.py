"""Restores a folder beside its target, compares it, and then gives it the name.

Beside `NAME` are `.NAME.opskit-RANDOM`, the copy, and a file of the same name with
`.lock`, which its owner keeps locked. The file says which folder is opskit's, and a
swap is written there before it begins. If the lock is free, a later run reads from the
file what to finish, and removes the rest. Names alone prove nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import of_folder
from opskit.catalog.reader import SetReader, from_first_whole_copy
from opskit.catalog.sets import BackupSet
from opskit.checks import Check
from opskit.crypto.keys import Identities
from opskit.errors import IntegrityError, StoreError, UsageError
from opskit.files import fsync_directory
from opskit.folders.copy import compare, extract
from opskit.folders.lock import ServiceLock, held
from opskit.folders.tree import encoded
from opskit.log import logger
from opskit.progress import bar

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names; return False if this system or file system cannot.

    Neither name is missing at any moment.
    """
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    paths = (os.fsencode(one), os.fsencode(other))
    failed = call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


_LOCK = ".lock"
_MARK = ".opskit-"
# With the random part and the lock's, no longer than what a file system takes.
_NAME_BYTES_MAX = 200


@dataclass(frozen=True, kw_only=True)
class Beside:
    target: Path
    path: Path
    lock: int

    def take_place(self) -> None:
        """Give the copy the target's name, which is free or that of an empty folder."""
        self.path.rename(self.target)
        fsync_directory(self.target.parent)

    def swap(self, kept: Path) -> None:
        """Give the copy the target's name, and the target the name `kept`."""
        _write(
            self.lock,
            _mark(self.path) | {"kept": kept.name, "copy": _identity(self.path)},
        )
        if exchange(self.path, self.target):
            self.path.rename(kept)
        else:
            # A failure between the two is repaired as after a kill.
            self.target.rename(kept)
            self.path.rename(self.target)
        fsync_directory(self.target.parent)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Beside]:
    """Yield a new empty folder (0700) beside a folder, and remove it if it is left."""
    while True:
        path = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}")
        lock_path = path.with_name(path.name + _LOCK)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if _claim(lock, lock_path):
            break
        os.close(lock)  # a sweep has just removed it
    try:
        _write(lock, _mark(path))
        path.mkdir(mode=0o700)
        yield Beside(target=target, path=path, lock=lock)
    finally:
        try:
            _settle(target, path, lock)
            lock_path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def sweep(target: Path) -> list[Path]:
    """Finish or remove what killed runs left beside a folder; return the removed."""
    removed = []
    prefix = _prefix(target)
    for name in sorted(os.listdir(target.parent)):
        if not (name.startswith(prefix) and name.endswith(_LOCK)):
            continue
        lock_path = target.with_name(name)
        path = target.with_name(name.removesuffix(_LOCK))
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # gone, or another user's
        try:
            ours = os.fstat(lock).st_uid == os.geteuid()
            marked = _mark(path).items() <= _read(lock).items()
            if ours and marked and _claim(lock, lock_path):
                _settle(target, path, lock)
                lock_path.unlink()
                removed.append(path)
        finally:
            os.close(lock)
    return removed


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, even if the modes forbid that."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    make_removable(path)
    shutil.rmtree(path)


def make_removable(path: Path) -> None:
    """Make all folders below writable for their owner, so that they can be removed."""
    if os.geteuid() == 0:
        return  # no mode keeps root out
    path.chmod(0o700)
    for _folder, names, _files, directory in os.fwalk(path):
        for name in names:
            # The names include links to directories, which lead out.
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.chmod(name, 0o700, dir_fd=directory)


def _prefix(target: Path) -> str:
    name = encoded(target.name)[:_NAME_BYTES_MAX]
    return f".{os.fsdecode(name)}{_MARK}"


def _identity(path: Path) -> list[int]:
    status = path.lstat()
    return [status.st_dev, status.st_ino]


def _claim(lock: int, path: Path) -> bool:
    """Lock an open lock file; return whether that succeeded and it has its name."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except OSError:
        return False


def _settle(target: Path, path: Path, lock: int) -> None:
    """Finish a swap that was begun, and remove the copy if it is still there."""
    swap = _planned_swap(lock)
    if swap is not None:
        kept, copy = target.with_name(swap[0]), swap[1]
        if os.path.lexists(path) and _identity(path) != copy:
            path.rename(kept)  # swapped in one step: this is the old one
        elif not os.path.lexists(target) and kept.exists():
            kept.rename(target)  # ended between the two steps
        fsync_directory(target.parent)
    if os.path.lexists(path):
        remove_tree(path)


def _planned_swap(lock: int) -> tuple[str, list[int]] | None:
    content = _read(lock)
    try:
        return str(content["kept"]), list(content["copy"])
    except (KeyError, TypeError):
        return None


def _mark(path: Path) -> dict[str, Any]:
    return {"opskit copy": encoded(path.name).decode("utf-8", "backslashreplace")}


def _read(lock: int) -> dict[str, Any]:
    """Return the content of a lock; empty if it is not opskit's."""
    try:
        content = json.loads(os.pread(lock, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _write(lock: int, content: dict[str, Any]) -> None:
    """Replace the content by a longer one, so that no part of the old one is left."""
    os.pwrite(lock, json.dumps(content).encode(), 0)
    os.fsync(lock)


OpenTar = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, kw_only=True)
class FolderTarget:
    """Where to restore a folder; `lock` is that of the service which uses it."""

    path: Path
    replace: bool = False
    lock: ServiceLock | None = None


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    target: Path
    replaced: Path | None
    entries: int
    size_bytes: int
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()


def restore_folder(
    wanted: FolderTarget,
    records: Sequence[FileRecord],
    open_tar: OpenTar,
    *,
    clock: Callable[[], datetime],
) -> FolderResult:
    """Restore a folder from its archive.

    The archive is extracted beside the target, on its file system, and compared
    exactly; only then it gets the name, so nobody ever sees half of it. It replaces an
    empty folder; one that holds anything only with `replace`, and that one is kept as
    `NAME.before-TIME`. The lock of the service is held only for the swap. A run that is
    killed leaves the target as it was or swapped; the next run for the same target
    removes the rest.

    Raises:
        UsageError: the target cannot be used, or is not empty and `replace` is not set;
            nothing was changed.
        LockHeld: the service did not release its lock in time.
        IntegrityError: the archive is damaged, or the copy does not equal the records.
        StoreError: the folder cannot be written.
    """
    target = wanted.path.resolve()
    require_target(target, replace=wanted.replace)
    with _translated(target):
        for path in sweep(target):
            logger().warning("removed what a killed restore left", path=str(path))
        with beside(target) as copy:
            with open_tar() as stream:
                extract(stream, copy.path, records)
            checks = _require_equal(copy.path, records)
            os.sync()  # the copy must be on the disk before it gets the name
            kept = None
            with _locked(wanted.lock, target) as warnings:
                if require_target(target, replace=wanted.replace):
                    kept = _free_name(target, clock())
                    copy.swap(kept)
                else:
                    copy.take_place()
    return FolderResult(
        target=target,
        replaced=kept,
        entries=len(records),
        size_bytes=sum(record.size_bytes for record in records),
        checks=tuple(checks),
        warnings=warnings,
    )


def require_target(target: Path, *, replace: bool) -> bool:
    """Return whether the target holds anything; refuse one that cannot be replaced."""
    if not target.name or not target.parent.is_dir():
        raise UsageError(
            f"{target} has no parent folder",
            hint="Create its parent folder, or name another target.",
        )
    try:
        occupied = any(target.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(
            f"{target} cannot be replaced by a folder: {error.strerror}",
            hint="Name another target.",
        ) from error
    if occupied and not replace:
        raise UsageError(
            f"{target} exists and is not empty",
            hint="Name another target, or add --replace: it restores beside, compares, "
            "swaps the names and keeps the old folder.",
        )
    return occupied


def _require_equal(path: Path, records: Sequence[FileRecord]) -> list[Check]:
    checks = compare(path, records)
    failed = [check for check in checks if check.failed]
    for check in failed:
        logger().error("the copy differs", **check.as_json())
    if failed:
        # By name alone: the message goes into the ledger, whose copy lies in the open.
        raise IntegrityError(
            "the restored copy is not what the manifest says: "
            + "; ".join(check.name for check in failed[:3]),
            hint="The copy was removed and nothing was replaced; "
            "drill the set to see all.",
            details={"checks": [check.as_json() for check in failed]},
        )
    return checks


@contextlib.contextmanager
def _locked(lock: ServiceLock | None, target: Path) -> Iterator[tuple[str, ...]]:
    """Hold the service's lock; yield warnings about it."""
    if lock is None:
        yield ()
        return
    is_inside = lock.path.resolve().is_relative_to(target)
    if is_inside and not target.exists():
        yield ()  # there is nobody to lock out
        return
    warning = (
        f"the lock {lock.path} is itself in the folder that was replaced: what "
        "waited for it uses the old folder now, restart the service"
    )
    with held(lock):
        yield (warning,) if is_inside else ()


def _free_name(target: Path, now: datetime) -> Path:
    name = f"{target.name}.before-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    number, free = 1, target.with_name(name)
    while os.path.lexists(free):
        number += 1
        free = target.with_name(f"{name}-{number}")
    return free


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{target} cannot be restored: {error.strerror} ({error.filename})",
            hint="Check the rights and the free space in its parent folder.",
        ) from error


def restore_set(
    chosen: BackupSet,
    wanted: FolderTarget,
    *,
    identities: Identities | None = None,
    clock: Callable[[], datetime],
) -> FolderResult:
    """Restore a set of a folder; see `restore_folder` for how, and what it raises.

    If a copy of the set is damaged, the next store's is used.
    """

    def restore(reader: SetReader) -> FolderResult:
        reader.read_others()
        records = of_folder(reader.opened()).files
        with bar("restoring the files", chosen.manifest.size_bytes):
            return restore_folder(wanted, records, reader.open_tar, clock=clock)

    return from_first_whole_copy(chosen, identities, restore)
