"""Restores a folder beside its target, compares it, and then gives it the name."""

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
class FolderTarget:
    """Where to restore a folder; `lock` is that of the service which uses it."""

    path: Path
    replace: bool = False
    lock: ServiceLock | None = None


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """What was restored and compared, and where the replaced folder is now."""

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
    """Return whether the target holds anything; refuse one that cannot be replaced.

    Raises:
        UsageError: see `restore_folder`.
    """
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

    def restore_from(store: Store) -> FolderResult:
        reader = SetReader(manifest=chosen.manifest, store=store, identities=identities)
        reader.require_identities()
        reader.read_others()
        records = of_folder(reader.opened()).files
        with bar("restoring the files", chosen.manifest.size_bytes):
            return restore_folder(wanted, records, reader.open_tar, clock=clock)

    *others, last = chosen.stores
    for store in others:
        try:
            return restore_from(store)
        except (IntegrityError, StoreError) as error:
            logger().error("trying the next store", failed=error.message)
    return restore_from(last)
