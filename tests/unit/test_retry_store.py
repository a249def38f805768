"""A store is asked again: as often as allowed, after waits, and where it broke off."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from opskit.errors import (
    ObjectNotFound,
    RetriesExhausted,
    StoreError,
    StoreUnavailable,
)
from opskit.store import RetryingStore, unwrapped
from opskit.store.wrappers import StoreWrapper
from tests.memory_store import MemoryStore

CONTENT = bytes(range(256)) * 4
CALLS: dict[str, Callable[[RetryingStore], object]] = {
    "stat": lambda store: store.stat("a"),
    "list": lambda store: list(store.list()),
    "unfinished": lambda store: list(store.unfinished()),
    "delete": lambda store: store.delete("a"),
    "discard": lambda store: store.discard("a/"),
    "open": lambda store: _read(store, 0),
}


class _Unsteady(StoreWrapper):
    """Fails its first calls; what it opens breaks off after so many bytes."""

    def __init__(self, error: Exception, times: int, cut_after: int = 10**9) -> None:
        super().__init__(MemoryStore("far"))
        self._error, self._times, self._cut_after = error, times, cut_after
        self.starts: list[int] = []

    def __getattribute__(self, name: str) -> object:
        if name in ("stat", "list", "unfinished", "delete", "discard"):
            self._fail()
        return super().__getattribute__(name)

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        self._fail()
        self.starts.append(start)
        with self.inner.open(key, start) as file:
            yield _Cut(file.read(), self._cut_after)

    def _fail(self) -> None:
        if self._times:
            self._times -= 1
            raise self._error


class _Cut(io.BytesIO):
    """Gives a few bytes, and then an error where there would be more."""

    def __init__(self, content: bytes, cut_after: int) -> None:
        super().__init__(content[:cut_after])
        self._is_short = len(content) > cut_after

    def read(self, size: int | None = -1, /) -> bytes:
        got = super().read(size)
        if not got and size and self._is_short:
            raise StoreUnavailable("cut")
        return got


def _store(
    error: Exception, times: int, *, attempts: int = 4, cut_after: int = 10**9
) -> tuple[RetryingStore, _Unsteady, list[float]]:
    waits: list[float] = []
    inner = _Unsteady(error, times, cut_after)
    inner.inner.put("a", [CONTENT])
    store = RetryingStore(
        inner, attempts=attempts, sleep=waits.append, chance=lambda: 1.0
    )
    return store, inner, waits


def _read(store: RetryingStore, start: int) -> bytes:
    with store.open("a", start) as file:
        return file.read()


@pytest.mark.parametrize("name", CALLS)
def test_what_is_unavailable_is_asked_again(name: str) -> None:
    """Up to the last attempt a call that failed is made again, after longer waits."""
    store, _, waits = _store(StoreUnavailable("busy", hint="Wait."), 3)
    CALLS[name](store)

    assert waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("name", CALLS)
def test_asking_again_has_an_end(name: str) -> None:
    """After the last attempt the error says how often it was tried."""
    store, _, waits = _store(StoreUnavailable("busy", hint="Wait."), 4)
    with pytest.raises(RetriesExhausted, match=r"^busy, after 4 attempts$") as raised:
        CALLS[name](store)

    assert raised.value.hint == "Wait."
    assert len(waits) == 3


@pytest.mark.parametrize("error", [StoreError("no"), RetriesExhausted("no")])
@pytest.mark.parametrize("name", CALLS)
def test_what_will_not_pass_is_not_asked_again(name: str, error: StoreError) -> None:
    """A refusal is told at once, and so is what was asked often enough already."""
    store, _, waits = _store(error, 1)
    with pytest.raises(StoreError) as raised:
        CALLS[name](store)

    assert raised.value is error
    assert waits == []


@pytest.mark.parametrize("start", [0, 1, 1000, 1024, 2000])
def test_a_read_goes_on_where_it_broke_off(start: int) -> None:
    """What was read is not read again, and nothing is left out."""
    store, inner, waits = _store(StoreUnavailable("x"), 0, cut_after=300)
    found = _read(store, start)

    assert found == CONTENT[start:]
    assert inner.starts == list(range(start, max(start + 1, len(CONTENT)), 300))
    assert len(waits) == len(inner.starts) - 1


def test_a_read_that_gets_nowhere_ends() -> None:
    """A server that never gives another byte is given up."""
    store, inner, _ = _store(StoreUnavailable("x"), 0, cut_after=0)
    with pytest.raises(RetriesExhausted, match="after 4 attempts"):
        _read(store, 0)

    assert inner.starts == [0, 0, 0, 0]


def test_waits_are_random_and_bounded() -> None:
    """Many clients do not come back at the same moment, nor wait for ever."""
    waits: list[float] = []
    inner = _Unsteady(StoreUnavailable("busy"), 9)
    store = RetryingStore(inner, attempts=10, sleep=waits.append, chance=lambda: 0.0)
    list(store.list())

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0]


def test_a_put_is_not_tried_again() -> None:
    """Its chunks are gone: the error comes through."""
    store, inner, waits = _store(StoreUnavailable("x"), 0)

    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise StoreUnavailable("cut")

    with pytest.raises(StoreUnavailable, match=r"^cut$"):
        store.put("b", chunks())

    assert waits == []
    with pytest.raises(ObjectNotFound):
        inner.inner.stat("b")


def test_the_store_inside_can_be_had() -> None:
    """However deep it is wrapped."""
    inner = MemoryStore()

    assert (
        unwrapped(RetryingStore(RetryingStore(inner, attempts=1), attempts=1)) is inner
    )
