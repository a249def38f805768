"""Pins: a set that somebody wants to keep stays, in every store and every plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from opskit.catalog import catalog, retention
from opskit.catalog.copying import copy_set
from opskit.catalog.documents import PIN_FOLDER, Trust
from opskit.catalog.retention import candidates, plan
from opskit.catalog.sets import CatalogCache
from opskit.config import RetentionSettings
from opskit.crypto.signatures import Signer
from tests.memory_store import MemoryStore
from tests.unit.builders import STARTED_AT, store_set

OURS, THEIRS = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
NOW = STARTED_AT + timedelta(days=400)
NEWEST_ALONE = RetentionSettings(
    keep_last=1,
    keep_within=timedelta(0),
    keep_daily=0,
    keep_weekly=0,
    keep_monthly=0,
    min_keep=1,
)


@pytest.fixture
def stores() -> list[MemoryStore]:
    """Two stores with the same two sets."""
    found = [MemoryStore("near"), MemoryStore("far")]
    for days in range(2):
        store_set(found, started_at=STARTED_AT + timedelta(days=days))
    return found


def _pin(stores: list[MemoryStore], signer: Signer | None = None) -> str:
    """Pin the older set, and return its id."""
    oldest = catalog.read(stores).sets[-1]
    retention.pin(oldest, at=NOW, run_id="abc123", signer=signer)
    return oldest.manifest.backup_id


def test_retention_keeps_a_pinned_set_until_the_pin_is_removed(
    stores: list[MemoryStore],
) -> None:
    """The reason is in the plan; every store has the pin."""
    before = plan(candidates(catalog.read(stores).sets), NEWEST_ALONE, now=NOW)
    backup_id = _pin(stores)
    pinned = catalog.read(stores).sets
    kept = plan(candidates(pinned), NEWEST_ALONE, now=NOW)
    removed = retention.unpin(pinned[-1])
    after = plan(candidates(catalog.read(stores).sets), NEWEST_ALONE, now=NOW)

    assert before.delete == after.delete == (backup_id,)
    assert kept.keep[backup_id] == ["pinned"]
    assert kept.delete == ()
    assert all(copy.is_pinned for copy in pinned[-1].copies)
    assert removed
    assert not retention.unpin(pinned[-1])
    assert not any(PIN_FOLDER in e.key for store in stores for e in store.list())


def test_a_listing_remembers_a_pin_and_notices_that_it_is_gone(
    stores: list[MemoryStore], tmp_path: Path
) -> None:
    """The plan of a dry run is made from it."""
    _pin(stores)

    def is_pinned() -> bool:
        caches = {"near": CatalogCache(tmp_path / "cache", store=["near"])}
        return catalog.list_sets(stores[:1], caches=caches).sets[-1].is_pinned

    seen = [is_pinned(), is_pinned()]
    retention.unpin(catalog.read(stores).sets[-1])

    assert seen == [True, True]
    assert not is_pinned()


def test_one_copy_with_a_pin_is_enough(stores: list[MemoryStore]) -> None:
    """The other store may have been unreachable when the pin was put."""
    _pin(stores[:1])
    found = catalog.read(stores).sets[-1]

    assert [copy.is_pinned for copy in found.copies] == [True, False]
    assert found.is_pinned
    assert retention.is_marked(PIN_FOLDER, found, Trust())


def test_a_pin_is_copied_with_its_set(stores: list[MemoryStore]) -> None:
    """With its signature, so that it counts there too."""
    _pin(stores, OURS)
    target = MemoryStore("target")
    oldest = catalog.read(stores).sets[-1]
    copy_set(oldest.manifest, stores[0], target)
    trust = Trust((OURS.public_key,))

    assert catalog.read([target]).sets[0].is_pinned
    assert retention.is_marked(PIN_FOLDER, catalog.read([target]).sets[0], trust)


@pytest.mark.parametrize("signer", [None, THEIRS])
def test_where_keys_are_trusted_only_their_pins_count(
    signer: Signer | None, stores: list[MemoryStore]
) -> None:
    """As it is with confirmations and evidence."""
    _pin(stores, signer)
    found = catalog.read(stores).sets[-1]
    trust = Trust((OURS.public_key,))

    assert not retention.is_marked(PIN_FOLDER, found, trust)
    assert retention.is_marked(PIN_FOLDER, found, Trust())


def test_a_pin_is_of_its_own_manifest_alone(stores: list[MemoryStore]) -> None:
    """A signed one that is moved beside another set does not count there."""
    oldest, newest = (catalog.read(stores).sets[each] for each in (-1, 0))
    retention.pin(oldest, at=NOW, run_id="abc123", signer=OURS)
    for store in stores:
        for each in list(store.list(oldest.manifest.prefix + PIN_FOLDER)):
            with store.open(each.key) as file:
                moved = each.key.replace(oldest.manifest.prefix, newest.manifest.prefix)
                store.put(moved, [file.read()])
    trust = Trust((OURS.public_key,))

    assert retention.is_marked(PIN_FOLDER, oldest, trust)
    assert not retention.is_marked(PIN_FOLDER, newest, trust)


def test_a_pin_is_named_beside_other_reasons() -> None:
    """A pin takes no other reason away, and no place among those that are counted."""
    store = MemoryStore("ram")
    for days in range(3):
        store_set([store], started_at=STARTED_AT + timedelta(days=days))
    found = candidates(catalog.read([store]).sets)
    pinned = [replace(found[0], is_pinned=True), *found[1:]]
    policy = NEWEST_ALONE.model_copy(update={"keep_last": 2})

    assert plan(pinned, policy, now=NOW).keep[found[0].backup_id] == [
        "keep_last 1",
        "min_keep 1",
        "pinned",
    ]
    assert plan(pinned, policy, now=NOW).delete == (found[2].backup_id,)
