"""The locks that a backup takes in its stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from opskit.backup.create import LockStore, locked, no_lock
from opskit.errors import LockHeld, StoreError
from opskit.store import Store
from tests.memory_store import MemoryStore


def locks(
    taken: list[str],
    *,
    refuse: dict[str, Exception] | None = None,
    lose: dict[str, Exception] | None = None,
) -> LockStore:
    """Return locks that fail where they are told to, and note what they did."""

    @contextmanager
    def lock(store: Store) -> Iterator[Callable[[], None]]:
        if store.name in (refuse or {}):
            raise (refuse or {})[store.name]

        def check() -> None:
            if store.name in (lose or {}):
                raise (lose or {})[store.name]

        taken.append(store.name)
        try:
            yield check
        finally:
            taken.remove(store.name)

    return lock


ONE, TWO = MemoryStore("one"), MemoryStore("two")


def test_every_store_is_locked_for_the_length_of_the_block() -> None:
    """And given back afterwards."""
    taken: list[str] = []
    with locked([ONE, TWO], locks(taken)) as found:
        during = list(taken)
        lost = found.require_held()

    assert during == ["one", "two"]
    assert (found.usable, found.failed, lost) == ([ONE, TWO], {}, {})
    assert taken == []


def test_a_store_that_cannot_be_locked_is_left_out() -> None:
    """The others go on; why it failed is kept."""
    away = StoreError("away")
    with locked([ONE, TWO], locks([], refuse={"one": away})) as found:
        pass

    assert (found.usable, found.failed) == ([TWO], {"one": away})


def test_without_any_store_nothing_begins() -> None:
    """If none can be locked, the first one's error is told."""
    away, gone = StoreError("away"), StoreError("gone")
    with (
        pytest.raises(StoreError, match="away"),
        locked([ONE, TWO], locks([], refuse={"one": away, "two": gone})),
    ):
        pytest.fail("nothing was locked")


def test_a_source_that_another_run_holds_is_left_alone() -> None:
    """In whichever store: the locks taken before are given back."""
    taken: list[str] = []
    with (
        pytest.raises(LockHeld, match="theirs"),
        locked([ONE, TWO], locks(taken, refuse={"two": LockHeld("theirs")})),
    ):
        pytest.fail("it is locked")

    assert taken == []


def test_a_lock_that_is_not_certain_any_more_takes_its_store_out() -> None:
    """What could not be renewed is a store's failure; one that was lost ends the run."""
    silent = StoreError("silent")
    with locked([ONE, TWO], locks([], lose={"two": silent})) as found:
        assert found.require_held() == {"two": silent}
    with (
        locked([ONE, TWO], locks([], lose={"one": LockHeld("lost")})) as found,
        pytest.raises(LockHeld, match="lost"),
    ):
        found.require_held()


def test_a_store_of_ones_own_needs_no_lock() -> None:
    """The lock that is none never fails."""
    with no_lock(ONE) as check:
        check()
