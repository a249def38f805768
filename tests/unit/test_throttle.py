"""A bandwidth limit: bytes pass at its rate, by a clock of the test's own."""

from __future__ import annotations

import pytest

from opskit.config import StoreSettings
from opskit.store import (
    LocalStore,
    RetryingStore,
    S3Store,
    Store,
    ThrottledStore,
    open_store,
    unwrapped,
)
from tests.memory_store import MemoryStore


class _Clock:
    """Passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> _Clock:
    """A clock that stands still."""
    return _Clock()


@pytest.fixture
def store(clock: _Clock) -> Store:
    """A store of a thousand bytes a second."""
    return ThrottledStore(
        MemoryStore(), bytes_per_second=1000, clock=clock, sleep=clock.sleep
    )


def test_a_put_takes_its_time(store: Store, clock: _Clock) -> None:
    """Ten chunks of a second each wait for the nine before the last."""
    store.put("a", [b"x" * 1000] * 10)

    assert clock.now == pytest.approx(109.0)


def test_reading_takes_its_time(store: Store, clock: _Clock) -> None:
    """What is read counts as what is put, one after the other."""
    store.put("a", [b"x" * 200_000])
    with store.open("a") as file:
        content = file.read()

    assert len(content) == 200_000
    assert clock.now == pytest.approx(100 + 200 + 200)


def test_a_pause_is_no_credit(store: Store, clock: _Clock) -> None:
    """After an idle hour the rate is still the rate."""
    clock.sleep(3600)
    store.put("a", [b"x" * 1000] * 3)

    assert clock.now == pytest.approx(3702.0)


def test_a_configured_limit_is_kept() -> None:
    """A limit wraps any store; without one there is none; a bucket is asked again."""
    limited = open_store(
        "a", StoreSettings(url="file:///x", bandwidth_limit=_bytes("20m"))
    )
    free = open_store("b", StoreSettings(url="file:///x"))
    bucket = open_store("c", StoreSettings(url="s3://bucket/deep"))

    assert isinstance(limited, ThrottledStore)
    assert isinstance(unwrapped(limited), LocalStore)
    assert isinstance(free, LocalStore)
    assert isinstance(bucket, RetryingStore)
    assert isinstance(inner := unwrapped(bucket), S3Store)
    assert (inner.bucket.name, inner.bucket.full_key("a/b")) == ("bucket", "deep/a/b")


def _bytes(text: str) -> int:
    return StoreSettings.model_validate(
        {"url": "file:///x", "bandwidth_limit": text}
    ).bandwidth_limit
