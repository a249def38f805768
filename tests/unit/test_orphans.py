"""Orphans: found once they are old enough, and never a set or a living run."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit.catalog import retention
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.catalog.retention import GRACE
from opskit.store import LocalStore, Store
from tests.memory_store import MemoryStore
from tests.unit.builders import (
    manifest,
    store_evidence,
    store_objects,
    store_set,
)
from tests.unit.conftest import Unprivileged


def _later(after: timedelta) -> datetime:
    """Return a time this long after the objects were stored, just now."""
    return datetime.now(UTC) + after


def _found(store: Store, after: timedelta = 2 * GRACE) -> list[str]:
    return retention.orphans(store, source="shop", now=_later(after))


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore("ram")


def test_objects_without_a_manifest_are_an_orphan(store: MemoryStore) -> None:
    """What an unfinished run left is named by its place."""
    made = manifest()
    store_objects(store, made)

    assert _found(store) == [made.prefix]


def test_a_set_is_no_orphan(store: MemoryStore) -> None:
    """A manifest makes a set of it, however old; one that cannot be used as well."""
    store_set([store])
    bad = manifest(suffix="ffffff")
    store_objects(store, bad)
    store.put(bad.prefix + MANIFEST_NAME, [b"{}"])

    assert _found(store, timedelta(days=9999)) == []


@pytest.mark.parametrize(
    ("after", "count"), [(timedelta(0), 0), (GRACE / 2, 0), (GRACE * 1.01, 1)]
)
def test_only_the_grace_time_makes_an_orphan(
    store: MemoryStore, after: timedelta, count: int
) -> None:
    """Another host may be writing the set at this moment."""
    store_objects(store, manifest())

    assert len(_found(store, after)) == count


def test_the_newest_object_counts(tmp_path: Path) -> None:
    """A run that has just added something is alive, however old its first object."""
    store = LocalStore("disk", tmp_path)
    made = manifest()
    store_objects(store, made)
    long_ago = datetime.now(UTC) - 10 * GRACE
    for each in made.objects[:-1]:
        os.utime(tmp_path / each.key, (long_ago.timestamp(),) * 2)

    assert _found(store, timedelta(0)) == []

    os.utime(tmp_path / made.objects[-1].key, (long_ago.timestamp(),) * 2)

    assert len(_found(store, timedelta(0))) == 1


def test_an_upload_that_never_ended_is_an_orphan(tmp_path: Path) -> None:
    """A run that was killed in its first object left an orphan too."""
    store = LocalStore("disk", tmp_path)
    place = tmp_path / manifest().prefix
    place.mkdir(parents=True)
    (place / ".dump.abcdefgh").write_bytes(b"half")

    assert _found(store) == [manifest().prefix]


def test_an_upload_in_progress_keeps_its_set_from_being_one(tmp_path: Path) -> None:
    """A long upload adds to its temporary file: that, too, is a sign of life."""
    store = LocalStore("disk", tmp_path)
    made = manifest()
    store_objects(store, made)
    long_ago = datetime.now(UTC) - 10 * GRACE
    for each in made.objects:
        os.utime(tmp_path / each.key, (long_ago.timestamp(),) * 2)
    upload = tmp_path / made.prefix / ".dump.abcdefgh"
    upload.write_bytes(b"half")

    assert _found(store, timedelta(0)) == []

    upload.unlink()

    assert len(_found(store, timedelta(0))) == 1


def test_other_sources_and_foreign_keys_are_none_of_ours(store: MemoryStore) -> None:
    """Only what lies where sets of this very source lie is looked at."""
    for source in ("shop-2", "crm"):
        store_objects(store, manifest(source))
    for key in ("shop/notes.txt", "shop/2026-03-10/lost+found/a", "shop/a/b/c"):
        store.put(key, [b"x"])

    assert _found(store) == []


def test_what_cannot_be_listed_is_no_orphan(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """A folder that may hold a set is left alone, however old it is."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        made = store_set([store])
        (shared_path / made.prefix).chmod(0)
        found = _found(store, timedelta(days=9999))
        (shared_path / made.prefix).chmod(0o700)

    assert found == []


def test_evidence_alone_is_an_orphan(store: MemoryStore) -> None:
    """Another host deleted the set while its evidence was written."""
    made = manifest()
    store_evidence(store, made, kind="verify", passed=False)

    assert _found(store) == [made.prefix]
