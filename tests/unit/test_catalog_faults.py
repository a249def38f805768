"""Catalog: a store that is out of order is told, and hides nothing of the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from opskit.catalog import catalog
from opskit.catalog import manifest as manifests
from opskit.catalog.documents import Trust
from opskit.catalog.manifest import MANIFEST_NAME
from opskit.errors import ObjectNotFound, StoreError
from opskit.store import LocalStore, ObjectInfo, Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.builders import STARTED_AT, manifest, store_set
from tests.unit.conftest import Unprivileged

DAY = timedelta(days=1)
NO_ANSWER = "store unreachable: it does not answer"


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore("ram")


class _Unsteady(FaultyStore):
    """Fails to open what it has listed."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(MemoryStore("unsteady"))
        self._error = error

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        raise self._error


class _Unreachable(MemoryStore):
    """Cannot even be listed."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise StoreError(NO_ANSWER)


class _Pruned(FaultyStore):
    """Another run prunes a set as soon as it is read, or is just about it."""

    def __init__(self, store: Store, *, wholly: bool) -> None:
        super().__init__(store)
        self._wholly = wholly

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        if key.endswith(MANIFEST_NAME):
            self.delete(key)
            if self._wholly:
                self.discard(key.removesuffix(MANIFEST_NAME))
        return super().open(key, start)


class _Watched(FaultyStore):
    """Tells what is opened."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.opened: list[str] = []

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        self.opened.append(key)
        return super().open(key, start)


@pytest.mark.parametrize("trust", [Trust(), Trust(keys=("ssh-ed25519 AAAA",))])
@pytest.mark.parametrize("wholly", [True, False])
def test_a_set_that_is_pruned_meanwhile_is_left_out(trust: Trust, wholly: bool) -> None:
    """It was listed and is gone: that is neither a set nor damage."""
    store = _Pruned(MemoryStore("pruned"), wholly=wholly)
    made = store_set([store])
    store.put(made.prefix + MANIFEST_NAME + ".sig", [b"signed"])
    found = catalog.read([store], trust=trust)

    assert (found.sets, found.unreadable) == ((), ())


def test_a_manifest_of_a_size_beyond_all_reason_is_not_read(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is known from the listing; the other sets are listed."""
    good = store_set([store])
    monkeypatch.setattr(manifests, "BYTES_MAX", len(good.to_json()))
    large = manifest(suffix="ffffff")
    key = large.prefix + MANIFEST_NAME
    store.put(key, [large.to_json(), b" "])
    watched = _Watched(store)
    found = catalog.read([watched])

    assert [each.manifest for each in found.sets] == [good]
    assert [bad.key for bad in found.unreadable] == [key]
    assert watched.opened == [good.prefix + MANIFEST_NAME]


def test_a_set_whose_folder_cannot_be_read_is_named(
    shared_path: Path, unprivileged: Unprivileged
) -> None:
    """It is a set that cannot be used; what has nothing to do with sets is none."""
    store = LocalStore("disk", shared_path)
    with unprivileged():
        made = [store_set([store], started_at=STARTED_AT + n * DAY) for n in (0, 1)]
        folders = [shared_path / "lost+found", shared_path / made[0].prefix]
        folders[0].mkdir()
        for each in folders:
            each.chmod(0)
        found = catalog.read([store])
        for each in folders:
            each.chmod(0o700)

    assert [each.manifest for each in found.sets] == [made[1]]
    assert [bad.key for bad in found.unreadable] == [made[0].prefix + MANIFEST_NAME]
    assert "Permission denied" in found.unreadable[0].reason


@pytest.mark.parametrize("name", ["fifo", "link", "endless"])
def test_a_manifest_that_is_no_file_hides_no_other_set(
    tmp_path: Path, name: str
) -> None:
    """Nothing hangs, the set is named, and the newest that is whole is found."""
    store = LocalStore("disk", tmp_path)
    made = [store_set([store], started_at=STARTED_AT + n * DAY) for n in (0, 1)]
    path = tmp_path / made[1].prefix / MANIFEST_NAME
    path.unlink()
    if name == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if name == "endless" else "/etc/hostname")
    found = catalog.read([store])

    assert [each.manifest for each in found.sets] == [made[0]]
    assert [bad.key for bad in found.unreadable] == [made[1].prefix + MANIFEST_NAME]
    assert catalog.latest([store], source="shop") == made[0]


def test_a_manifest_that_is_listed_but_not_there_is_reported() -> None:
    """Nobody deleted it: it is named, and is no reason to list nothing."""
    store = _Unsteady(ObjectNotFound("it is gone"))
    made = store_set([store])
    found = catalog.read([store])

    assert found.sets == ()
    assert [(bad.key, bad.reason) for bad in found.unreadable] == [
        (made.prefix + MANIFEST_NAME, "it is gone")
    ]


def test_a_store_that_does_not_answer_hides_no_set(store: MemoryStore) -> None:
    """A store out of order is told, and the sets of the others are listed."""
    made = store_set([store])
    found = catalog.read([_Unreachable("unreachable"), store])

    assert [each.manifest.backup_id for each in found.sets] == [made.backup_id]
    assert [error.message for error in found.unreachable] == [NO_ANSWER]


def test_no_store_that_answers_is_an_error() -> None:
    """Stores out of order are never taken for ones without sets."""
    with pytest.raises(StoreError, match="does not answer"):
        catalog.read([_Unreachable("one"), _Unreachable("other")])


def test_a_manifest_that_cannot_be_read_hides_no_set(store: MemoryStore) -> None:
    """One manifest that a store does not give up is told like one that is damaged."""
    made = store_set([store])
    unsteady = _Unsteady(StoreError("permission denied"))
    store_set([unsteady], started_at=STARTED_AT - DAY)
    found = catalog.read([unsteady, store])

    assert [each.manifest.backup_id for each in found.sets] == [made.backup_id]
    assert [bad.reason for bad in found.unreadable] == ["permission denied"]
