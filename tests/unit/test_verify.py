"""Verify: every byte is read again, and what differs is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from opskit.catalog.reader import BadObject, checked, require_stored, verify_set
from opskit.errors import (
    IntegrityError,
    ObjectUnreadable,
    StoreError,
    StoreUnavailable,
)
from opskit.store import ObjectInfo, Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.builders import CONTENTS, manifest, store_objects

DUMP = manifest().object("dump")


def _store(**changed: bytes) -> MemoryStore:
    """Return a store with the objects of the set, some with other contents."""
    store = MemoryStore()
    for each in manifest().objects:
        store.put(each.key, [changed.get(each.role, CONTENTS[each.role])])
    return store


def test_a_whole_set_has_nothing_bad() -> None:
    """All objects and all of their bytes were read."""
    found = verify_set(manifest(), _store())

    assert found.bad == ()
    assert found.objects == len(CONTENTS)
    assert found.size_bytes == manifest().size_bytes


@pytest.mark.parametrize("position", range(len(CONTENTS["dump"])))
def test_a_changed_byte_is_found(position: int) -> None:
    """One bit in any byte of an object is enough; the others are read all the same."""
    content = bytearray(CONTENTS["dump"])
    content[position] ^= 1
    found = verify_set(manifest(), _store(dump=bytes(content)))

    assert [bad.key for bad in found.bad] == [DUMP.key]
    assert "its SHA-256 is" in found.bad[0].reason
    assert found.size_bytes == manifest().size_bytes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes are stored where the manifest says 8"),
        (b"the dum", "7 bytes are stored where the manifest says 8"),
        (b"the dump.", "more bytes are stored than the 8 that the manifest says"),
    ],
)
def test_another_size_is_found(content: bytes, reason: str) -> None:
    """An object cut short or with something behind it is told by its sizes."""
    found = verify_set(manifest(), _store(dump=content))

    assert found.bad == (BadObject(key=DUMP.key, reason=reason),)


def test_a_missing_object_is_found() -> None:
    """An object that is gone is a finding, not an end."""
    store = MemoryStore()
    store_objects(store, manifest())
    store.delete(DUMP.key)
    found = verify_set(manifest(), store)

    assert found.bad == (BadObject(key=DUMP.key, reason="missing", missing=True),)


def test_what_a_reader_leaves_is_read_for_it() -> None:
    """Who stops reading early is told of a fault further on all the same."""
    with (
        pytest.raises(IntegrityError, match="SHA-256"),
        checked(_store(dump=b"the damp"), DUMP),
    ):
        pass


class Refusing(FaultyStore):
    """Does not give an object out, unless told otherwise the dump."""

    def __init__(
        self,
        store: Store,
        error: StoreError,
        *,
        key: str = DUMP.key,
        lists: bool = True,
    ) -> None:
        super().__init__(store)
        self._error, self._key, self._lists = error, key, lists

    def open(self, key: str, start: int = 0) -> Any:
        if key == self._key:
            raise self._error
        return super().open(key, start)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if not self._lists:
            raise self._error
        return super().list(prefix)


def test_an_object_that_cannot_be_read_is_a_finding() -> None:
    """It is named, and the others are read all the same."""
    found = verify_set(
        manifest(), Refusing(_store(), ObjectUnreadable("dump: Input/output error"))
    )

    assert found.bad == (
        BadObject(key=DUMP.key, reason="unreadable: dump: Input/output error"),
    )
    assert found.size_bytes == manifest().size_bytes - DUMP.size_bytes
    assert not found.is_whole


def test_an_object_that_was_not_given_out_is_no_finding() -> None:
    """What the store may give out the next time is neither whole nor damaged."""
    refusal = StoreUnavailable("it does not answer")
    found = verify_set(manifest(), Refusing(_store(), refusal))

    assert (found.bad, found.not_read) == ((), refusal)
    assert not found.is_whole


def test_a_store_out_of_order_is_no_finding() -> None:
    """A store that cannot be reached says nothing about the set."""
    refusal = StoreUnavailable("it does not answer")
    with pytest.raises(StoreError, match="does not answer"):
        verify_set(manifest(), Refusing(_store(), refusal, lists=False))


def test_damage_stands_though_the_store_breaks_down_after_it() -> None:
    """What was read before is as damaged as it was."""
    first, *_others, last = manifest().objects
    refusal = StoreUnavailable("it does not answer")
    stored = _store(**{first.role: b"the damp"})
    found = verify_set(manifest(), Refusing(stored, refusal, key=last.key, lists=False))

    assert [bad.key for bad in found.bad] == [first.key]
    assert found.not_read is refusal


@pytest.mark.parametrize("content", [None, b"", b"the dump."])
def test_objects_are_looked_at_before_they_make_a_set(content: bytes | None) -> None:
    """One that is gone, or of another size, would make a set that is none."""
    store = _store() if content is None else _store(dump=content)
    if content is None:
        store.delete(DUMP.key)
    require_stored(manifest().objects, _store())
    with pytest.raises(StoreError, match=DUMP.key):
        require_stored(manifest().objects, store)
