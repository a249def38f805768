"""Restores a directory: beside, compared, then given its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from opskit.catalog.file_record import FileRecord
from opskit.catalog.manifest import of_folder
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet
from opskit.checks import Check
from opskit.crypto.keys import Identities
from opskit.errors import IntegrityError, StoreError, UsageError
from opskit.folders.beside import beside, sweep
from opskit.folders.compare import compare
from opskit.folders.extract import extract
from opskit.folders.lock import ServiceLock, held
from opskit.log import logger
from opskit.progress import bar
from opskit.store import Store

OpenTar = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, kw_only=True)
class FolderRequest:
    """What to restore where; `lock` is that of the service which uses the target."""

    records: Sequence[FileRecord]
    target: Path
    replace: bool = False
    lock: ServiceLock | None = None


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """What was restored and compared, and where the folder that it replaced is now."""

    target: Path
    replaced: Path | None
    entries: int
    size_bytes: int
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()


def restore_folder(
    request: FolderRequest, open_tar: OpenTar, *, clock: Callable[[], datetime]
) -> FolderResult:
    """Restore a directory under the name asked for.

    The archive is extracted beside the target, on its file system, and compared
    exactly; only then it gets the name, so nobody ever sees half of it. An existing
    empty directory is replaced by it; one that holds anything only with `replace`, and
    is kept as `NAME.before-TIME`. The lock of the service is held for the swap alone.
    A run that is killed leaves the target as it was or swapped; the next one for the
    same target removes what it left.

    Raises:
        UsageError: the target cannot be one, or holds something and `replace` is not
            set; nothing was touched.
        LockHeld: the service did not release its lock in time.
        IntegrityError: the archive is damaged, or the copy does not equal the records.
        StoreError: the folder cannot be written.
    """
    target = request.target.resolve()
    require_target(target, replace=request.replace)
    with _translated(target):
        for path in sweep(target):
            logger().warning("removed what a killed restore left", path=str(path))
        with beside(target) as copy:
            with open_tar() as stream:
                extract(stream, copy.path, request.records)
            checks = _compared(copy.path, request.records)
            # What gets the name must be on the disk.
            os.sync()
            with _locked(request.lock, target) as warnings:
                if require_target(target, replace=request.replace):
                    kept = _free_name(target, clock())
                    copy.swap(kept)
                else:
                    kept = None
                    copy.take_place()
    return FolderResult(
        target=target,
        replaced=kept,
        entries=len(request.records),
        size_bytes=sum(record.size_bytes for record in request.records),
        checks=tuple(checks),
        warnings=warnings,
    )


def require_target(target: Path, *, replace: bool) -> bool:
    """Return whether the target holds anything; refuse what cannot be replaced.

    Raises:
        UsageError: see `restore_folder`.
    """
    if not target.name or not target.parent.is_dir():
        raise UsageError(
            f"{target} has no folder to be in",
            hint="Create the folder that it is to lie in, or name another target.",
        )
    try:
        occupied = any(target.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(
            f"{target} cannot be replaced by a directory: {error.strerror}",
            hint="Name another target.",
        ) from error
    if occupied and not replace:
        raise UsageError(
            f"{target} exists and is not empty",
            hint="Name another target, or add --replace: it restores beside, compares, "
            "swaps the names and keeps the old directory.",
        )
    return occupied


def _compared(path: Path, records: Sequence[FileRecord]) -> list[Check]:
    checks = compare(path, records)
    failed = [check for check in checks if check.failed]
    if failed:
        raise IntegrityError(
            "the restored copy is not what the manifest says: "
            + "; ".join(f"{check.name}: {check.detail}" for check in failed[:3]),
            hint="The copy was removed and nothing was replaced; "
            "drill the set to see all.",
            details={"checks": [check.as_json() for check in failed]},
        )
    return checks


@contextlib.contextmanager
def _locked(lock: ServiceLock | None, target: Path) -> Iterator[tuple[str, ...]]:
    """Hold the service's lock; yield what there is to say of it."""
    if lock is None:
        yield ()
        return
    is_inside = lock.path.resolve().is_relative_to(target)
    if is_inside and not target.exists():
        yield ()  # there is nobody to lock out
        return
    with held(lock):
        yield (
            (
                f"the lock {lock.path} is itself in the folder that was replaced: who "
                "waited for it meanwhile now uses the old one, restart the service",
            )
            if is_inside
            else ()
        )


def _free_name(target: Path, now: datetime) -> Path:
    """Return the name that the old folder is kept under."""
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
            hint="Check the rights and the free space in the folder that it lies in.",
        ) from error


@dataclass(frozen=True, kw_only=True)
class FolderRestore:
    """Which set to restore where; `lock` is that of the service which uses it."""

    chosen: BackupSet
    target: Path
    replace: bool = False
    lock: ServiceLock | None = None
    identities: Identities | None = None


def restore_set(
    wanted: FolderRestore, *, clock: Callable[[], datetime]
) -> FolderResult:
    """Restore a folder; see `restore_folder` for how, and for what it raises.

    A copy that is damaged is told, and the next store's is taken.
    """
    *others, last = wanted.chosen.stores
    for store in others:
        try:
            return _restore(wanted, store, clock)
        except (IntegrityError, StoreError) as error:
            logger().error("trying the next store", failed=error.message)
    return _restore(wanted, last, clock)


def _restore(
    wanted: FolderRestore, store: Store, clock: Callable[[], datetime]
) -> FolderResult:
    reader = SetReader(
        manifest=wanted.chosen.manifest, store=store, identities=wanted.identities
    )
    reader.require_identities()
    reader.read_others()
    request = FolderRequest(
        records=of_folder(reader.opened()).files,
        target=wanted.target,
        replace=wanted.replace,
        lock=wanted.lock,
    )
    with bar("restoring the files", wanted.chosen.manifest.size_bytes):
        return restore_folder(request, reader.open_tar, clock=clock)
