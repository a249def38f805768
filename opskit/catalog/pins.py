"""Pins: records beside a set, by which retention keeps it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from opskit.catalog.catalog import BackupSet
from opskit.catalog.naming import PIN_FOLDER, is_pin
from opskit.catalog.trust import Trust
from opskit.crypto import signatures
from opskit.crypto.signatures import Signer
from opskit.store import Store


def pin(
    each: BackupSet, *, pinned_at: datetime, run_id: str, signer: Signer | None
) -> None:
    """Put a pin beside every copy of a set.

    Raises:
        StoreError: a store refused.
    """
    document = {
        "backup_id": each.manifest.backup_id,
        "manifest_sha256": each.manifest_sha256,
        "pinned_at": pinned_at.isoformat(),
    }
    content = (json.dumps(document, indent=1) + "\n").encode()
    name = f"{PIN_FOLDER}{pinned_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run_id}.json"
    for store in each.stores:
        key = each.manifest.prefix + name
        if signer is not None:
            store.put(key + signatures.SUFFIX, [signer.sign(content)])
        store.put(key, [content])


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
