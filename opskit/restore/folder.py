"""Restores a folder's set out of the nearest store whose copy is whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opskit.catalog.catalog import BackupSet
from opskit.catalog.reader import SetReader
from opskit.crypto.keys import Identities
from opskit.errors import IntegrityError, StoreError
from opskit.folders.lock import ServiceLock
from opskit.folders.restore import FolderRequest, FolderResult, restore_folder
from opskit.log import logger
from opskit.progress import bar
from opskit.store import Store


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
        records=reader.opened().files,
        target=wanted.target,
        replace=wanted.replace,
        lock=wanted.lock,
    )
    with bar("restoring the files", wanted.chosen.manifest.size_bytes):
        return restore_folder(request, reader.open_tar, clock=clock)
