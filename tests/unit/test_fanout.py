"""One stream into every store: what fails in one is nothing to the others."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from opskit.catalog import writer as catalog_writer
from opskit.catalog.writer import put_everywhere
from opskit.errors import ObjectExists, ObjectNotFound, StoreError
from opskit.store import LocalStore, ObjectInfo, Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.store_contract import keys, read

KEY = "shop/2026/dump"
# More than the queue of a store holds, so that the sender has to wait.
CHUNKS = [b"chunk %d;" % number for number in range(30)]
CONTENT = b"".join(CHUNKS)


class _Slow(MemoryStore):
    """Takes nothing before it is allowed to."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.allowed = threading.Event()

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        self.allowed.wait(timeout=30)
        return super().put(key, chunks)


class _SlowlyRefusing(_Slow):
    """Takes nothing, and says so late."""

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        self.allowed.wait(timeout=30)
        raise StoreError("it refused")


class _Broken(MemoryStore):
    """Fails with what no store should raise."""

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        raise ZeroDivisionError(key)


def _writers() -> list[str]:
    """Return the threads that still write; one that is stuck cannot be ended."""
    names = [thread.name for thread in threading.enumerate()]
    return [n for n in names if n.startswith("store-") and n != "store-stuck"]


def test_every_store_gets_the_stream(tmp_path: Path) -> None:
    """Each store holds the same bytes, and size and digest are theirs."""
    stores: list[Store] = [MemoryStore("a"), LocalStore("b", tmp_path)]
    stored = put_everywhere(stores, KEY, iter(CHUNKS))

    assert [read(store, KEY) for store in stores] == [CONTENT, CONTENT]
    assert stored.size_bytes == len(CONTENT)
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert stored.failed == {}
    assert _writers() == []


def test_an_empty_stream_is_an_empty_object() -> None:
    """A stream without chunks is stored as an object of no bytes."""
    store = MemoryStore()
    stored = put_everywhere([store], KEY, [])

    assert (read(store, KEY), stored.size_bytes) == (b"", 0)
    assert stored.sha256 == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("after", range(len(CHUNKS) + 1))
def test_a_store_that_fails_does_not_hold_up_the_others(after: int) -> None:
    """Wherever one store gives up, the others get everything, and it is named."""
    failing, sound = MemoryStore("failing"), MemoryStore("sound")
    faulty = FaultyStore(failing, fail_put_at=1, fail_after_chunks=after)
    stored = put_everywhere([faulty, sound], KEY, iter(CHUNKS))

    assert read(sound, KEY) == CONTENT
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert list(stored.failed) == ["failing"]
    assert "on purpose" in stored.failed["failing"].message
    assert keys(failing) == []
    assert _writers() == []


def test_a_key_that_is_taken_in_one_store_is_told() -> None:
    """An object that exists is an error of that store alone."""
    taken, free = MemoryStore("taken"), MemoryStore("free")
    taken.put(KEY, [b"old"])
    stored = put_everywhere([taken, free], KEY, CHUNKS)

    assert isinstance(stored.failed["taken"], ObjectExists)
    assert (read(taken, KEY), read(free, KEY)) == (b"old", CONTENT)


@pytest.mark.parametrize("length", [0, 1, len(CONTENT) - 1])
def test_a_store_that_loses_bytes_has_failed(length: int) -> None:
    """What a store says that it holds must be what was sent."""
    lossy = FaultyStore(MemoryStore("lossy"), truncate_at=length)
    stored = put_everywhere([lossy, MemoryStore("sound")], KEY, CHUNKS)

    assert f"holds {length} bytes of {KEY}" in stored.failed["lossy"].message
    assert f"where {len(CONTENT)} were sent" in stored.failed["lossy"].message


@pytest.mark.parametrize("after", [0, 1, 20])
def test_all_stores_failing_is_an_error(after: int) -> None:
    """If no store took it, the first one's error comes out."""
    stores = [
        FaultyStore(MemoryStore(name), fail_put_at=1, fail_after_chunks=after)
        for name in ("first", "second")
    ]

    with pytest.raises(StoreError, match="store first failed on purpose"):
        put_everywhere(stores, KEY, iter(CHUNKS))

    assert [keys(store) for store in stores] == [[], []]
    assert _writers() == []


def test_a_stream_is_not_read_on_for_nobody() -> None:
    """Once every store has failed, the rest of the stream is left alone."""
    read_so_far = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read_so_far
        for _ in range(1000):
            read_so_far += 1
            yield b"x"

    with pytest.raises(StoreError):
        put_everywhere([FaultyStore(MemoryStore(), fail_put_at=1)], KEY, chunks())

    assert read_so_far < 50


@pytest.mark.parametrize("after", range(len(CHUNKS) + 1))
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), OSError("no"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_a_stream_that_breaks_off_is_stored_nowhere(
    tmp_path: Path, after: int, error: BaseException
) -> None:
    """Wherever the stream raises, no store keeps a byte, and its error comes out."""

    def chunks() -> Iterator[bytes]:
        yield from CHUNKS[:after]
        raise error

    stores: list[Store] = [
        MemoryStore("a"),
        LocalStore("b", tmp_path),
        FaultyStore(MemoryStore("c"), fail_put_at=1),
    ]
    with pytest.raises(type(error)) as raised:
        put_everywhere(stores, KEY, chunks())

    assert raised.value is error
    for store in stores:
        with pytest.raises(ObjectNotFound):
            store.stat(KEY)
        assert [*store.list(), *store.unfinished()] == []
    assert _writers() == []


def test_a_slow_store_is_waited_for() -> None:
    """A store that is behind gets everything all the same."""
    slow, quick = _Slow("slow"), MemoryStore("quick")
    threading.Timer(0.2, slow.allowed.set).start()
    stored = put_everywhere([slow, quick], KEY, iter(CHUNKS))

    assert stored.failed == {}
    assert read(slow, KEY) == CONTENT


def test_a_slow_store_that_fails_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sender that waits for room goes on as soon as the store has failed."""
    monkeypatch.setattr(catalog_writer, "_STALLED_SECONDS_MAX", 60.0)
    slow, sound = _SlowlyRefusing("slow"), MemoryStore("sound")
    threading.Timer(0.2, slow.allowed.set).start()
    stored = put_everywhere([slow, sound], KEY, iter(CHUNKS))

    assert stored.failed["slow"].message == "it refused"
    assert read(sound, KEY) == CONTENT


def test_a_store_that_takes_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The wait for a store is bounded; the others go on without it."""
    monkeypatch.setattr(catalog_writer, "_STALLED_SECONDS_MAX", 3.0)
    stuck, sound = _Slow("stuck"), MemoryStore("sound")
    try:
        stored = put_everywhere([stuck, sound], KEY, iter(CHUNKS))
    finally:
        stuck.allowed.set()

    assert "store stuck took nothing for 3 seconds" in stored.failed["stuck"].message
    assert read(sound, KEY) == CONTENT


def test_a_store_that_was_given_up_stores_nothing_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told as failed must not appear when its caller has cleaned up."""
    monkeypatch.setattr(catalog_writer, "_STALLED_SECONDS_MAX", 3.0)
    stuck = _Slow("stuck")
    stored = put_everywhere([stuck, MemoryStore("sound")], KEY, [b"short"])
    (writer,) = [t for t in threading.enumerate() if t.name == "store-stuck"][-1:]
    stuck.allowed.set()
    writer.join(timeout=60)

    assert not writer.is_alive()
    assert list(stored.failed) == ["stuck"]
    assert keys(stuck) == []


def test_an_error_that_is_no_stores_comes_out() -> None:
    """A bug in a store is not taken for a store that is out of order."""
    with pytest.raises(ZeroDivisionError):
        put_everywhere([_Broken("broken"), MemoryStore("sound")], KEY, CHUNKS)


def test_no_store_at_all_is_an_error() -> None:
    """Nothing stored anywhere is no success, nor a bug."""
    with pytest.raises(StoreError):
        put_everywhere([], KEY, CHUNKS)
