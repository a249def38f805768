"""Reading several sets at once: in order, bounded, and over when it is interrupted."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import closing

import pytest

from opskit.catalog.catalog import in_order, readers
from opskit.config import StoreSettings
from opskit.store import LocalStore, open_store
from tests.memory_store import MemoryStore

_SECONDS_MAX = 20.0


def test_results_come_in_the_order_of_the_items() -> None:
    """However long each of them takes."""
    second_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_done.wait(_SECONDS_MAX)
        elif number == 1:
            second_done.set()
        return number * 10

    assert [*in_order(work, range(100), threads=2)] == [n * 10 for n in range(100)]
    assert [*in_order(lambda n: n, range(3), threads=1)] == [0, 1, 2]
    assert [*in_order(work, [], threads=8)] == []


def test_as_many_are_read_at_once_as_there_are_threads() -> None:
    """Each of them waits for all the others."""
    together = threading.Barrier(8, timeout=_SECONDS_MAX)

    assert sorted(in_order(lambda _: together.wait(), range(8), threads=8)) == [
        *range(8)
    ]


def test_no_more_is_read_ahead_than_fits() -> None:
    """Ten thousand manifests must not lie in memory because one is slow."""
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    with closing(in_order(work, range(1000), threads=2)) as results:
        assert next(results) == 0
    assert len(begun) <= 2 * 4 + 1


def test_an_interruption_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not begun by then is not begun any more."""
    begun = []
    cancelled = []
    over = threading.Event()
    cancel = Future.cancel

    def noted(future: Future[int]) -> bool:
        cancelled.append(cancel(future))
        if len(cancelled) == 2 * 4 - 1:  # all that waited behind the first
            over.set()
        return cancelled[-1]

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            raise KeyboardInterrupt
        assert over.wait(_SECONDS_MAX)
        return number

    monkeypatch.setattr(Future, "cancel", noted)
    with pytest.raises(KeyboardInterrupt):
        [*in_order(work, range(1000), threads=2)]

    assert len(begun) <= 3


def test_only_a_bucket_is_read_by_several_threads() -> None:
    """Wrapped or not: there it is the answers that take time."""
    settings = StoreSettings.model_validate(
        {"url": "s3://bucket/", "bandwidth_limit": "1m"}
    )

    assert readers(open_store("far", settings)) == 8
    assert readers(LocalStore("near", "/nowhere")) == 1
    assert readers(MemoryStore()) == 1
