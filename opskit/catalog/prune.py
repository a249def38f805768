"""Prune: carries out a retention plan, the manifest first, then the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opskit.catalog.changes import (
    CONFIRMATION_FOLDER,
    confirmation_name,
    is_confirmation,
)
from opskit.catalog.manifest import MANIFEST_NAME, PIN_FOLDER, is_pin
from opskit.catalog.retention import Candidate
from opskit.catalog.sets import BackupSet, ListedSet, Place, group_by_set
from opskit.catalog.trust import Trust, store_document
from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.ledger import copies
from opskit.store import ObjectInfo, Store
from opskit.store import locks as store_locks

GRACE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """The place of a set that never came to be."""

    store: Store
    prefix: str
    size_bytes: int


def find(stores: Iterable[Store], *, source: str, now: datetime) -> list[Orphan]:
    """Return the orphans of one source that nothing was added to for the grace time.

    The caller holds the lock of the source in these stores, and `now` is the time by
    their own clock: what another host writes at this moment is no orphan.
    """
    found = []
    for store in stores:
        everything = [*store.list(f"{source}/"), *store.unfinished(f"{source}/")]
        for prefix, objects in group_by_set(everything):
            if _is_orphan(prefix, objects, now):
                size_bytes = sum(each.size_bytes for each in objects)
                found.append(Orphan(store=store, prefix=prefix, size_bytes=size_bytes))
    return found


def _is_orphan(prefix: str, objects: list[ObjectInfo], now: datetime) -> bool:
    if Place(prefix=prefix, objects=objects).has_manifest:
        return False
    return max(each.modified_at for each in objects) < now - GRACE


_NOBODY = Trust()


def candidates(
    sets: Iterable[ListedSet],
    *,
    trust: Trust | None = None,
    locked_until: Mapping[str, datetime] | None = None,
) -> list[Candidate]:
    """Return what retention needs to know of sets.

    `locked_until` gives, by backup id, when the last object lock on a set ends. With
    trusted keys a confirmation counts only if one of them signed it.

    Raises:
        StoreError: a set holds a sudden change, and a store that has it cannot be
            asked whether somebody confirmed it.
    """
    locks = locked_until or {}
    return [
        Candidate(
            backup_id=each.summary.backup_id,
            started_at=each.summary.started_at,
            proof=each.best_proof,
            unconfirmed_changes=unconfirmed_changes(each, trust or Trust()),
            locked_until=locks.get(each.summary.backup_id),
            is_pinned=each.is_pinned,
        )
        for each in sets
    ]


def unconfirmed_changes(each: ListedSet, trust: Trust = _NOBODY) -> tuple[str, ...]:
    """Return the sudden changes of a set, or none if somebody has confirmed them.

    A confirmation beside any of its copies counts.

    Raises:
        StoreError: a store cannot be asked.
    """
    changes = each.summary.sudden_changes
    if not changes:
        return ()
    prefix = each.summary.prefix
    for store in each.stores:
        for found in store.list(prefix + CONFIRMATION_FOLDER):
            if is_confirmation(found.key.removeprefix(prefix)) and trust.counts(
                store, found.key, manifest_sha256=each.manifest_sha256
            ):
                return ()
    return changes


def confirm(
    each: BackupSet, *, confirmed_at: datetime, run_id: str, signer: Signer | None
) -> None:
    """Put beside every copy of a set that somebody looked at its sudden change.

    Raises:
        StoreError: a store refused.
    """
    fields = {
        "confirmed_at": confirmed_at.isoformat(),
        "changes": list(each.manifest.sudden_changes),
    }
    name = confirmation_name(confirmed_at=confirmed_at, run_id=run_id)
    _put_beside(each, name, fields, signer)


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


def sweep(store: Store, *, source: str, now: datetime) -> int:
    """Remove uploads of a source that were never finished; return how many.

    `now` is the time by the store's own clock.

    Raises:
        StoreError: the store refused.
    """
    places = (f"{source}/", f"{store_locks.FOLDER}{source}/", copies.FOLDER)
    return sum(store.sweep(place, before=now - GRACE) for place in places)


def pin(
    each: BackupSet, *, pinned_at: datetime, run_id: str, signer: Signer | None
) -> None:
    """Put a pin beside every copy of a set.

    Raises:
        StoreError: a store refused.
    """
    fields = {"pinned_at": pinned_at.isoformat()}
    name = f"{PIN_FOLDER}{pinned_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run_id}.json"
    _put_beside(each, name, fields, signer)


def _put_beside(
    each: BackupSet, name: str, fields: Mapping[str, object], signer: Signer | None
) -> None:
    """Put a document about a set beside every copy of it."""
    document = {
        "backup_id": each.manifest.backup_id,
        "manifest_sha256": each.manifest_sha256,
        **fields,
    }
    for store in each.stores:
        store_document(store, each.manifest.prefix + name, document, signer)


def unpin(each: BackupSet) -> bool:
    """Remove the pins beside every copy of a set; return whether there were any.

    Raises:
        StoreError: a store refused.
    """
    keys = [(store, key) for store in each.stores for key in _pins(each, store)]
    for store, key in keys:
        store.delete(key)
        store.delete(key + signatures.SUFFIX)
    return bool(keys)


def is_pinned_now(each: BackupSet, trust: Trust) -> bool:
    """Return whether a pin that counts lies beside a set now.

    Raises:
        StoreError: a store cannot be asked.
    """
    return any(
        trust.counts(store, key, manifest_sha256=each.manifest_sha256)
        for store in each.stores
        for key in _pins(each, store)
    )


def _pins(each: BackupSet, store: Store) -> list[str]:
    prefix = each.manifest.prefix
    return [
        found.key
        for found in store.list(prefix + PIN_FOLDER)
        if is_pin(found.key.removeprefix(prefix))
    ]
