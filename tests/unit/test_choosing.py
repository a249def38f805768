"""Choosing: a set by its ID, the beginning of it, as the latest, or at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opskit.catalog import catalog
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.errors import IntegrityError, UsageError
from opskit.operations.sources import parse_time
from tests.memory_store import MemoryStore
from tests.unit.builders import STARTED_AT, manifest, store_set

DAY = timedelta(days=1)


@pytest.fixture
def store() -> MemoryStore:
    """A store with three sets of one source, a day after the other, and one of another."""
    store = MemoryStore("ram")
    for days in range(3):
        store_set([store], started_at=STARTED_AT + days * DAY)
    store_set([store], "crm", STARTED_AT)
    return store


def _of(days: int) -> str:
    return manifest(started_at=STARTED_AT + days * DAY).backup_id


def test_the_beginning_of_an_id_will_do(store: MemoryStore) -> None:
    """In a listing and in a catalog, as long as it is that of one set."""
    for found in (catalog.read([store]), catalog.list_sets([store])):
        assert found.find(_of(1)[:-8]).manifest.backup_id == _of(1)
        assert found.find("c").manifest.source == "crm"


def test_an_ambiguous_beginning_names_the_candidates(store: MemoryStore) -> None:
    """It chooses nothing; exit code 2."""
    with pytest.raises(UsageError) as refused:
        catalog.list_sets([store]).find("shop-")

    assert refused.value.exit_code == 2
    assert refused.value.details["candidates"] == [_of(0), _of(1), _of(2)]
    assert all(_of(days) in refused.value.hint for days in range(3))


def test_a_whole_id_is_not_the_beginning_of_another(store: MemoryStore) -> None:
    """A longer suffix begins with a shorter one."""
    store_set([store], suffix="a1b2c3d4")

    assert catalog.list_sets([store]).find(_of(0)).manifest.backup_id == _of(0)


def test_a_beginning_that_fits_an_unusable_set_as_well_is_ambiguous(
    store: MemoryStore,
) -> None:
    """Nobody gets another set than the one that was meant."""
    bad = manifest(started_at=STARTED_AT + 2 * DAY, suffix="ffff")
    store.put(bad.prefix + MANIFEST_NAME, [b"{}"])
    found = catalog.list_sets([store])

    with pytest.raises(UsageError, match="the beginning of 2 backup IDs"):
        found.find(_of(2)[:-6])
    with pytest.raises(IntegrityError, match="cannot be used"):
        found.find(bad.backup_id[:-1])


def test_latest_is_the_newest_set_of_a_source(store: MemoryStore) -> None:
    """Where there are several sources, one has to be named."""
    found = catalog.list_sets([store])

    assert found.find("latest", source="shop").manifest.backup_id == _of(2)
    assert (
        catalog.list_sets([store], source="crm").find("latest").manifest.source == "crm"
    )
    with pytest.raises(UsageError, match="several sources: crm, shop") as refused:
        found.find("latest")
    assert _of(2) in refused.value.hint
    assert "--database" in refused.value.hint
    with pytest.raises(UsageError, match="no backup set yet"):
        catalog.list_sets([MemoryStore("empty")]).find("latest")


@pytest.mark.parametrize(
    ("after", "days"),
    [
        (timedelta(seconds=1), 0),
        (DAY, 0),
        (DAY + timedelta(seconds=1), 1),
        (90 * DAY, 2),
    ],
)
def test_the_set_of_a_time_is_the_newest_whose_snapshot_is_not_later(
    after: timedelta, days: int, store: MemoryStore
) -> None:
    """The snapshot is a second younger than the beginning of the backup."""
    found = catalog.list_sets([store]).newest("shop", at=STARTED_AT + after)

    assert found.manifest.backup_id == _of(days)


def test_a_time_before_every_set_names_the_oldest(store: MemoryStore) -> None:
    """It is a wrong call: nothing is restored."""
    with pytest.raises(UsageError, match="no backup set of shop from 2026") as refused:
        catalog.list_sets([store]).newest("shop", at=STARTED_AT)

    assert _of(0) in refused.value.hint


def test_a_set_of_the_time_that_cannot_be_used_is_not_passed_over(
    store: MemoryStore,
) -> None:
    """Only one that is younger than the time is none of our business."""
    bad = manifest(started_at=STARTED_AT + DAY / 2)
    store.put(bad.prefix + MANIFEST_NAME, [b"{}"])
    found = catalog.list_sets([store])

    assert found.newest("shop", at=STARTED_AT + DAY / 4).manifest.backup_id == _of(0)
    assert found.newest("shop", at=STARTED_AT + 2 * DAY).manifest.backup_id == _of(1)
    with pytest.raises(IntegrityError, match="cannot be used"):
        found.newest("shop", at=STARTED_AT + 3 * DAY / 4)


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-10T03:00:00Z",
        "2026-03-10t03:00:00z",
        "2026-03-10 03:00",
        "2026-03-10T03:00:00.000Z",
        "2026-03-10 03:00:00 UTC",
        "2026-03-10T05:00:00+02:00",
        "2026-03-10 05:00 +0200",
        "20260310T030000Z",
    ],
)
def test_a_time_is_read_in_usual_forms(text: str) -> None:
    """Without a zone it is in UTC."""
    assert parse_time(text) == datetime(2026, 3, 10, 3, tzinfo=UTC)


def test_a_day_is_its_first_moment() -> None:
    """So the help says."""
    assert parse_time("2026-03-10") == datetime(2026, 3, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["yesterday", "03:00", "2026-13-01", "", "1", "0001-01-01T00:00:00+10:00"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """Exit code 2, with a form that works."""
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text)
