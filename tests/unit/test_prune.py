"""Prune: a crash at any step leaves orphans at worst, never half a set."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opskit.catalog import catalog, retention
from opskit.catalog.documents import CONFIRMATION_FOLDER, mark_name
from opskit.catalog.retention import Candidate, plan
from opskit.catalog.sets import BackupSet
from opskit.config import RetentionSettings
from opskit.errors import StoreError
from opskit.store import Store
from tests.faulty import Crash, FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.builders import STARTED_AT, store_evidence, store_set
from tests.unit.store_contract import keys

DAY = timedelta(days=1)
POLICY = RetentionSettings(
    keep_last=7,
    keep_within=30 * DAY,
    keep_daily=30,
    keep_weekly=8,
    keep_monthly=12,
    min_keep=2,
)


def _the_set(stores: list[Store]) -> BackupSet:
    return catalog.read(stores).find("shop-20260310T030000Z-a1b2c3")


def _assert_all_listed_are_whole(store: Store) -> None:
    """Check that each set that a store lists has all of its objects there."""
    there = set(keys(store))
    for each in catalog.read([store]).sets:
        assert {stored.key for stored in each.manifest.objects} <= there


def test_a_deleted_set_is_gone_from_every_store() -> None:
    """Manifest, objects and evidence go, in all stores; other sets stay."""
    stores: list[Store] = [MemoryStore("a"), MemoryStore("b")]
    made = store_set(stores)
    store_evidence(stores[0], made, kind="drill", passed=True)
    other = store_set(stores, started_at=STARTED_AT - DAY)
    retention.delete_set(_the_set(stores))

    assert [each.manifest for each in catalog.read(stores).sets] == [other]
    assert all(key.startswith(other.prefix) for s in stores for key in keys(s))


def test_the_manifest_goes_first() -> None:
    """A run that dies right after its first step has taken the set off the list."""
    inner = MemoryStore("a")
    store_set([inner])
    with pytest.raises(Crash):
        retention.delete_set(_the_set([FaultyStore(inner, crash_at=2)]))

    assert catalog.read([inner]).sets == ()
    assert len(keys(inner)) == 3


def _steps() -> int:
    """Return in how many steps a set is deleted from one store."""
    store = FaultyStore(MemoryStore("a"))
    store_set([store])
    before = store.steps
    retention.delete_set(_the_set([store]))
    return store.steps - before


@pytest.mark.parametrize("crash_at", range(1, _steps() + 1))
@pytest.mark.parametrize("number", [0, 1])
def test_a_crash_at_any_step_leaves_no_half_set(crash_at: int, number: int) -> None:
    """After a crash, in either store, what is listed is whole; again, it goes."""
    inner = [MemoryStore("a"), MemoryStore("b")]
    store_set(inner)
    stores: list[Store] = list(inner)
    stores[number] = FaultyStore(inner[number], crash_at=crash_at)
    with pytest.raises(Crash):
        retention.delete_set(_the_set(stores))

    for store in inner:
        _assert_all_listed_are_whole(store)

    for each in catalog.read(inner).sets:
        retention.delete_set(each)

    assert catalog.read(inner).sets == ()


class _Refusing(MemoryStore):
    """Deletes nothing."""

    def delete(self, key: str) -> None:
        raise StoreError(f"store {self.name} refused to delete {key}")


def test_a_store_that_refuses_keeps_its_set_whole() -> None:
    """If the manifest cannot be deleted, none of the objects is."""
    store = _Refusing("refusing")
    store_set([store])
    before = keys(store)

    with pytest.raises(StoreError, match="refused to delete"):
        retention.delete_set(_the_set([store]))

    assert keys(store) == before
    _assert_all_listed_are_whole(store)


def test_a_damaged_copy_does_not_cost_the_good_one_its_place() -> None:
    """Retention never deletes the last good copies because others are damaged."""
    good, damaged = MemoryStore("good"), MemoryStore("damaged")
    for days in range(3):
        made = store_set([good, damaged], started_at=STARTED_AT - DAY * days)
        store_evidence(good, made, kind="drill", passed=True)
        store_evidence(damaged, made, kind="verify", passed=False)
    planned = plan(
        retention.candidates(catalog.read([good, damaged]).sets),
        POLICY,
        now=STARTED_AT + 100 * DAY,
    )

    assert len(planned.keep) >= POLICY.min_keep


def test_retention_is_given_what_it_needs() -> None:
    """Id, time and proof of each set, in the order of the sets."""
    store = MemoryStore()
    made = store_set([store])
    store_evidence(store, made, kind="drill", passed=True)
    older = store_set([store], started_at=STARTED_AT - DAY)

    assert retention.candidates(catalog.read([store]).sets) == [
        Candidate(backup_id=made.backup_id, started_at=STARTED_AT, proof="drilled"),
        Candidate(
            backup_id=older.backup_id,
            started_at=older.started_at,
            proof="unproven",
        ),
    ]


def _confirm(store: Store, prefix: str) -> None:
    name = mark_name(CONFIRMATION_FOLDER, at=STARTED_AT, run_id="abc123")
    store.put(prefix + name, [b"{}"])


def test_a_change_counts_until_somebody_confirms_it() -> None:
    """A confirmation beside one copy is enough; anything else there is none."""
    stores: list[Store] = [MemoryStore("a"), MemoryStore("b")]
    changes = ("table public.t is gone (it held 3 rows)",)
    made = store_set(stores, sudden_changes=changes)
    stores[0].put(made.prefix + "confirmed/readme.txt", [b"x"])
    before = retention.candidates(catalog.read(stores).sets)
    _confirm(stores[1], made.prefix)
    after = retention.candidates(catalog.read(stores).sets)

    assert [each.unconfirmed_changes for each in before] == [changes]
    assert [each.unconfirmed_changes for each in after] == [()]


def test_locks_are_given_on_by_the_id_of_the_set() -> None:
    """Retention learns until when a set cannot be deleted."""
    store = MemoryStore()
    made = store_set([store])
    store_set([store], started_at=STARTED_AT - DAY)
    until = STARTED_AT + DAY
    found = retention.candidates(
        catalog.read([store]).sets, locked_until={made.backup_id: until}
    )

    assert [each.locked_until for each in found] == [until, None]
