"""Prune: deletes what a retention plan drops, and marks what it must keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.proof import CONFIRMATION_FOLDER, PIN_FOLDER, is_mark, mark_name
from opskit.catalog.retention import Candidate
from opskit.catalog.sets import BackupSet, ListedSet, Place, group_by_set
from opskit.catalog.trust import Trust, store_document
from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.ledger import copies
from opskit.store import Store
from opskit.store import locks as store_locks

GRACE = timedelta(days=1)


def candidates(
    sets: Iterable[ListedSet],
    *,
    trust: Trust | None = None,
    locked_until: Mapping[str, datetime] | None = None,
) -> list[Candidate]:
    """Return what retention needs to know of sets.

    `locked_until` gives, by backup id, when the last object lock on a set ends. A
    confirmation beside any copy of a set counts; with trusted keys only if one of them
    signed it.

    Raises:
        StoreError: a set holds a sudden change, and a store that has it cannot be
            asked whether somebody confirmed it.
    """
    locks = locked_until or {}
    believed = trust or Trust()
    return [
        Candidate(
            backup_id=each.summary.backup_id,
            started_at=each.summary.started_at,
            proof=each.best_proof,
            unconfirmed_changes=_unconfirmed_changes(each, believed),
            locked_until=locks.get(each.summary.backup_id),
            is_pinned=each.is_pinned,
        )
        for each in sets
    ]


def _unconfirmed_changes(each: ListedSet, trust: Trust) -> tuple[str, ...]:
    changes = each.summary.sudden_changes
    if changes and _is_marked(CONFIRMATION_FOLDER, each, trust):
        return ()
    return changes


def confirm(
    each: BackupSet, *, at: datetime, run_id: str, signer: Signer | None
) -> None:
    """Put beside every copy of a set that somebody looked at its sudden change.

    Raises:
        StoreError: a store refused.
    """
    fields = {
        "confirmed_at": at.isoformat(),
        "changes": list(each.manifest.sudden_changes),
    }
    name = mark_name(CONFIRMATION_FOLDER, at=at, run_id=run_id)
    _put_beside(each, name, fields, signer)


def pin(each: BackupSet, *, at: datetime, run_id: str, signer: Signer | None) -> None:
    """Put a pin beside every copy of a set.

    Raises:
        StoreError: a store refused.
    """
    name = mark_name(PIN_FOLDER, at=at, run_id=run_id)
    _put_beside(each, name, {"pinned_at": at.isoformat()}, signer)


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
    pins = [*_marks(PIN_FOLDER, each)]
    for store, key in pins:
        store.delete(key)
        store.delete(key + signatures.SUFFIX)
    return bool(pins)


def is_pinned_now(each: BackupSet, trust: Trust) -> bool:
    """Return whether a pin that counts lies beside a set now.

    Raises:
        StoreError: a store cannot be asked.
    """
    return _is_marked(PIN_FOLDER, each, trust)


def _is_marked(folder: str, each: ListedSet, trust: Trust) -> bool:
    return any(
        trust.counts(store, key, manifest_sha256=each.manifest_sha256)
        for store, key in _marks(folder, each)
    )


def _marks(folder: str, each: ListedSet) -> Iterator[tuple[Store, str]]:
    """Yield the pins or the confirmations that lie beside a set now."""
    prefix = each.summary.prefix
    for store in each.stores:
        for stored in store.list(prefix + folder):
            if is_mark(folder, stored.key.removeprefix(prefix)):
                yield store, stored.key


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


def orphans(store: Store, *, source: str, now: datetime) -> list[str]:
    """Return where sets of a source were begun and never finished.

    Nothing was added there for the grace time. The caller holds the lock of the source
    in this store, and `now` is the time by its own clock: what another host writes at
    this moment is no orphan.
    """
    everything = [*store.list(f"{source}/"), *store.unfinished(f"{source}/")]
    return [
        prefix
        for prefix, objects in group_by_set(everything)
        if not Place(prefix=prefix, objects=objects).has_manifest
        and max(each.modified_at for each in objects) < now - GRACE
    ]


def sweep(store: Store, *, source: str, now: datetime) -> int:
    """Remove uploads of a source that were never finished; return how many.

    `now` is the time by the store's own clock.

    Raises:
        StoreError: the store refused.
    """
    places = (f"{source}/", f"{store_locks.FOLDER}{source}/", copies.FOLDER)
    return sum(store.sweep(place, before=now - GRACE) for place in places)
