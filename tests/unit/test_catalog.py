"""Catalog: what the stores hold, read from manifests and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opskit.catalog import catalog
from opskit.catalog.catalog import Catalog
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.sets import BackupSet
from opskit.errors import IntegrityError, UsageError
from tests.memory_store import MemoryStore
from tests.unit.builders import (
    STARTED_AT,
    manifest,
    store_evidence,
    store_objects,
    store_set,
)

DAY = timedelta(days=1)


def _ids(found: Catalog[BackupSet]) -> list[str]:
    return [each.manifest.backup_id for each in found.sets]


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore("ram")


def test_no_sets_are_no_error(store: MemoryStore) -> None:
    """An empty store, or none at all, holds no sets."""
    assert catalog.read([store]) == Catalog(sets=(), unreadable=())
    assert catalog.read([]) == Catalog(sets=(), unreadable=())


def test_sets_are_listed_newest_first(store: MemoryStore) -> None:
    """The order is that of the times in the manifests, whatever the source."""
    times = [STARTED_AT + DAY, STARTED_AT - 40 * DAY, STARTED_AT]
    made = [
        store_set([store], source, time)
        for source, time in zip(["shop", "crm", "a"], times, strict=True)
    ]
    found = catalog.read([store])

    assert [each.manifest for each in found.sets] == [made[0], made[2], made[1]]
    assert all(each.stores == (store,) for each in found.sets)


def test_sets_of_one_source_can_be_asked_for(store: MemoryStore) -> None:
    """A source is its whole name, not the beginning of another's."""
    for source in ("shop", "shop-2", "sho"):
        store_set([store], source)
    everything = catalog.read([store])

    assert _ids(catalog.read([store], source="shop")) == [manifest("shop").backup_id]
    assert [s.manifest.source for s in everything.of("sho")] == ["sho"]
    assert len(everything.of(None)) == 3


@pytest.mark.parametrize(
    "key",
    [
        "manifest.json",
        "notes.txt",
        "shop/manifest.json",
        "shop/2026-03-10/manifest.json",
        "shop/2026-03-10/lost+found/manifest.json",
        f"shop/2026-03-10/{manifest().backup_id}",
        f"shop/2026-03-10/{manifest().backup_id}.tmp/manifest.json",
        f"shop/2026-03-10/below/{manifest().backup_id}/manifest.json",
    ],
)
def test_foreign_keys_are_none_of_ours(store: MemoryStore, key: str) -> None:
    """What does not lie where sets lie is neither a set nor a fault."""
    made = store_set([store], started_at=STARTED_AT + DAY)
    store.put(key, [b"{}"])
    found = catalog.read([store])

    assert _ids(found) == [made.backup_id]
    assert found.unreadable == ()


def test_orphans_are_not_listed(store: MemoryStore) -> None:
    """Without its manifest a set does not exist, however much of it lies there."""
    store_objects(store, manifest())
    found = catalog.read([store])

    assert found == Catalog(sets=(), unreadable=())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "is not a manifest"),
        (manifest().to_json()[:100], "is not a manifest"),
        (b'{"format_version": 9}', "is of format 9, newer than"),
        (b'{"format_version": 1}', "is not a complete manifest"),
        (manifest("crm").to_json(), "is the manifest of another set"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_told(
    store: MemoryStore, content: bytes, reason: str
) -> None:
    """The set is told with its store and the reason, and the others are listed."""
    good = store_set([store], started_at=STARTED_AT - DAY)
    key = manifest().prefix + MANIFEST_NAME
    store.put(key, [content])
    found = catalog.read([store])
    (bad,) = found.unreadable

    assert _ids(found) == [good.backup_id]
    assert (bad.store, bad.key) == ("ram", key)
    assert reason in bad.reason


def test_a_set_in_two_stores_is_one_set(store: MemoryStore) -> None:
    """The same set is listed once, with both copies and the evidence of each."""
    other = MemoryStore("other")
    made = store_set([store, other])
    store_evidence(store, made, kind="verify", passed=True)
    store_evidence(other, made, kind="drill", passed=True, days_later=2)
    (found,) = catalog.read([store, other]).sets

    assert found.manifest == made
    assert found.stores == (store, other)
    assert [[name.kind for name in copy.evidence] for copy in found.copies] == [
        ["verify"],
        ["drill"],
    ]
    assert found.proof == "drilled"


def test_each_copy_is_judged_by_itself(store: MemoryStore) -> None:
    """A drill of one copy does not heal another that was found damaged."""
    other = MemoryStore("other")
    made = store_set([store, other])
    store_evidence(store, made, kind="verify", passed=False)
    store_evidence(other, made, kind="drill", passed=True, days_later=2)
    (found,) = catalog.read([store, other]).sets

    assert found.proof == "failed"


def test_a_set_that_is_damaged_in_one_store_is_whole_in_the_other(
    store: MemoryStore,
) -> None:
    """A copy that cannot be used is told, and does not hide the good one."""
    other = MemoryStore("other")
    made = store_set([other])
    store.put(made.prefix + MANIFEST_NAME, [b"{}"])
    found = catalog.read([store, other])

    assert [(each.manifest, each.stores) for each in found.sets] == [(made, (other,))]
    assert [bad.store for bad in found.unreadable] == ["ram"]
    assert found.find(made.backup_id).stores == (other,)


def test_evidence_decides_the_proof(store: MemoryStore) -> None:
    """Only evidence beside the set counts: no report, and no other set's."""
    made = store_set([store])
    other = store_set([store], started_at=STARTED_AT - DAY)
    store.put(made.prefix + "evidence/20260310T030000Z-drill-failed-a.md", [b""])
    store_evidence(store, made, kind="drill", passed=True)
    store_evidence(store, other, kind="drill", passed=False)
    found = catalog.read([store])

    assert [each.proof for each in found.sets] == ["drilled", "failed"]


def test_a_set_is_found_by_its_id(store: MemoryStore) -> None:
    """A set is found; one that cannot be used says why; one that is not there too."""
    made = store_set([store])
    bad = manifest(started_at=STARTED_AT - DAY)
    store.put(bad.prefix + MANIFEST_NAME, [b"{}"])
    found = catalog.read([store])

    assert found.find(made.backup_id).manifest == made
    with pytest.raises(IntegrityError, match="is not a manifest") as refused:
        found.find(bad.backup_id)
    assert refused.value.details["bad"] == [
        {"key": bad.prefix + MANIFEST_NAME, "reason": found.unreadable[0].reason}
    ]
    with pytest.raises(UsageError, match=r"no store holds a backup set shops$"):
        found.find("shops")


def test_the_newest_set_of_a_source(store: MemoryStore) -> None:
    """The newest of the source is given, or the command that makes the first."""
    store_set([store])
    newest = store_set([store], started_at=STARTED_AT + DAY)
    store_set([store], "crm", STARTED_AT + 2 * DAY)
    found = catalog.read([store])

    assert found.newest("shop").manifest == newest
    with pytest.raises(UsageError, match="no backup set of sho yet") as refused:
        found.newest("sho")
    assert "`inv backup`" in refused.value.hint


def test_copies_that_contradict_each_other_are_told() -> None:
    """Two stores whose manifests of one set differ: one of them was altered."""
    made = manifest()
    store, other = MemoryStore("one"), MemoryStore("two")
    key = made.prefix + "manifest.json"
    store.put(key, [made.to_json()])
    other.put(key, [made.to_json().replace(b'"rows": 3', b'"rows": 4')])

    found = catalog.read([store, other])

    assert [each.stores for each in found.sets] == [(store,)]
    assert [(bad.store, bad.key) for bad in found.unreadable] == [("two", key)]
    assert "store one" in found.unreadable[0].reason
