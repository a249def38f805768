"""Catalog: a store that is out of order is told, and hides nothing of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import BinaryIO

import pytest

from opskit.catalog import catalog
from opskit.catalog.naming import MANIFEST_NAME
from opskit.errors import ObjectNotFound, StoreError
from opskit.store import MemoryStore, ObjectInfo
from tests.faulty import FaultyStore
from tests.unit.builders import STARTED_AT, store_set

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


def test_a_manifest_that_goes_away_is_told() -> None:
    """Another run may prune in between: that is no reason to list nothing."""
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
