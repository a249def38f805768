"""Verify: every byte is read again, and what differs is named."""

from __future__ import annotations

from typing import Any

import pytest

from opskit.catalog.verify import BadObject, checked, verify_set
from opskit.errors import IntegrityError, StoreError
from opskit.store import MemoryStore
from tests.faulty import FaultyStore
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


@pytest.mark.parametrize("content", [b"", b"the dum", b"the dump."])
def test_another_size_is_found(content: bytes) -> None:
    """An object cut short or with something behind it is told by its sizes."""
    found = verify_set(manifest(), _store(dump=content))

    assert found.bad == (
        BadObject(
            key=DUMP.key,
            reason=f"{len(content)} bytes are stored where the manifest says 8",
        ),
    )


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


def test_a_store_out_of_order_is_no_finding() -> None:
    """A store that cannot be read says nothing about the set."""

    class Unreadable(FaultyStore):
        def open(self, key: str, start: int = 0) -> Any:
            raise StoreError("it does not answer")

    with pytest.raises(StoreError, match="does not answer"):
        verify_set(manifest(), Unreadable(_store()))
