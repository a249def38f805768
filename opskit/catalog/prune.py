"""Prune: carries out a retention plan, the manifest first, then the objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opskit.catalog.catalog import BackupSet
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.orphans import Orphan
from opskit.catalog.retention import Candidate


def candidates(sets: Iterable[BackupSet]) -> list[Candidate]:
    """Return what retention needs to know of sets."""
    return [
        Candidate(
            backup_id=each.manifest.backup_id,
            started_at=each.manifest.started_at,
            proof=each.best_proof,
        )
        for each in sets
    ]


def delete_set(each: BackupSet) -> None:
    """Delete a set from every store that holds it.

    Without its manifest it no longer exists; a crash in between leaves orphans, which
    a later run removes.

    Raises:
        StoreError: a store refused.
    """
    for store in each.stores:
        store.delete(each.manifest.prefix + MANIFEST_NAME)
        store.discard(each.manifest.prefix)


def remove_orphans(found: Iterable[Orphan], *, told: Callable[[Orphan], None]) -> None:
    """Remove what unfinished runs left behind."""
    for orphan in found:
        orphan.store.discard(orphan.prefix)
        told(orphan)
