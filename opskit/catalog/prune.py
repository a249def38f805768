"""Prune: carries out a retention plan, the manifest first, then the objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

from opskit.catalog.catalog import BackupSet
from opskit.catalog.changes import (
    CONFIRMATION_FOLDER,
    confirmation_name,
    is_confirmation,
)
from opskit.catalog.naming import MANIFEST_NAME
from opskit.catalog.orphans import GRACE
from opskit.catalog.retention import Candidate
from opskit.catalog.sets import KnownSet
from opskit.catalog.trust import Trust
from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.ledger import copies
from opskit.store import Store
from opskit.store import locks as store_locks

_NOBODY = Trust()


def candidates(
    sets: Iterable[KnownSet],
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


def unconfirmed_changes(each: KnownSet, trust: Trust = _NOBODY) -> tuple[str, ...]:
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
    document = {
        "backup_id": each.manifest.backup_id,
        "manifest_sha256": each.manifest_sha256,
        "confirmed_at": confirmed_at.isoformat(),
        "changes": list(each.manifest.sudden_changes),
    }
    content = (json.dumps(document, indent=1) + "\n").encode()
    name = confirmation_name(confirmed_at=confirmed_at, run_id=run_id)
    for store in each.stores:
        key = each.manifest.prefix + name
        if signer is not None:
            store.put(key + signatures.SUFFIX, [signer.sign(content)])
        store.put(key, [content])


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
