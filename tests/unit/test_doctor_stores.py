"""What doctor says of stores that misbehave, and that it cleans up after itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from opskit.checks import Check, Health
from opskit.config import StoreSettings
from opskit.doctor import stores
from opskit.doctor.stores import examine
from opskit.errors import StoreError
from opskit.store import LocalStore, ObjectInfo, RetryingStore, S3Store
from opskit.store.s3.trial import Scratch, challenge
from opskit.store.wrappers import StoreWrapper
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore

NOW = datetime(2026, 3, 10, 3, tzinfo=UTC)


def _examined(store: Any) -> Check:
    (found,) = examine(store, now=lambda: NOW)
    return found


def test_a_good_store_is_healthy_and_left_empty() -> None:
    """One finding for a store that is no bucket."""
    store = MemoryStore()

    found = _examined(store)

    assert found == Check(
        name="store memory",
        passed=True,
        observed="writes, reads, lists and deletes",
    )
    assert [*store.list()] == []


def test_a_store_in_wrappers_is_examined_through_them(tmp_path: Path) -> None:
    """A wrapper does not hide what kind of store it is."""
    store = RetryingStore(LocalStore("local", tmp_path), attempts=2)

    found = _examined(store)

    assert found.status is Health.HEALTHY
    assert [*tmp_path.iterdir()] == []


def test_a_store_that_cannot_be_written_is_unhealthy_once_told() -> None:
    """The store's name is not said twice."""
    found = _examined(FaultyStore(MemoryStore(), fail_put_at=1))

    assert found.status is Health.UNHEALTHY
    assert found.observed == "store memory failed on purpose"
    assert found.hint == "It is a test."


def test_a_folder_that_is_missing_is_told_with_its_hint(tmp_path: Path) -> None:
    """The error's hint is the finding's."""
    found = _examined(LocalStore("local", tmp_path / "missing"))

    assert found.status is Health.UNHEALTHY
    assert found.observed == f"the folder {tmp_path / 'missing'} does not exist"
    assert found.hint.startswith("Create it")


def test_a_store_that_loses_bytes_is_unhealthy() -> None:
    """What comes back is compared, and removed again."""
    store = MemoryStore()

    found = _examined(FaultyStore(store, truncate_at=100))

    assert found.status is Health.UNHEALTHY
    assert found.observed == "what was read is not what was written"
    assert [*store.list()] == []


class _Forgetful(MemoryStore):
    """Does not list what was just written."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(())


def test_a_store_that_does_not_list_what_was_written_is_unhealthy() -> None:
    """Without a listing no set would be found."""
    store = _Forgetful()

    found = _examined(store)

    assert found.status is Health.UNHEALTHY
    assert "not in the listing" in found.observed
    assert [*MemoryStore.list(store)] == []


class TestClock:
    """The difference to the server's clock."""

    @pytest.mark.parametrize(
        ("skew", "status"),
        [
            (timedelta(minutes=4), Health.HEALTHY),
            (timedelta(minutes=6), Health.DEGRADED),
            (timedelta(minutes=-6), Health.DEGRADED),
            (timedelta(minutes=16), Health.UNHEALTHY),
            (timedelta(hours=-1), Health.UNHEALTHY),
        ],
    )
    def test_its_size_decides(
        self, monkeypatch: pytest.MonkeyPatch, skew: timedelta, status: Health
    ) -> None:
        """Over 5 minutes it is degraded, over 15 unhealthy, in either direction."""
        scratch = _scratch()
        monkeypatch.setattr(scratch, "server_time", lambda: NOW + skew)

        found = stores.clock(scratch, lambda: NOW)

        assert found.name == "store off: clock"
        assert found.status is status
        assert f"{abs(skew).total_seconds():.0f} seconds" in found.observed

    def test_a_server_that_tells_none_is_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is claimed of it."""
        scratch = _scratch()
        monkeypatch.setattr(scratch, "server_time", lambda: None)

        found = stores.clock(scratch, lambda: NOW)

        assert found.observed == "the server does not send its own"


def _scratch() -> Scratch:
    return Scratch(S3Store("off", StoreSettings(url="s3://bucket")), "_doctor/x/")


class _Worm(MemoryStore):
    """Keeps what it has."""

    def delete(self, key: str) -> None:
        raise StoreError(f"store {self.name}: {key}: refused", hint="It is a test.")


class _Liar(MemoryStore):
    """Says that it refuses, and deletes all the same."""

    def delete(self, key: str) -> None:
        super().delete(key)
        raise StoreError(f"store {self.name}: {key}: refused", hint="It is a test.")


class _Broken(StoreWrapper):
    """Cannot be read."""

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        raise StoreError(f"store {self.name}: {key}: broken", hint="It is a test.")


class TestChallenge:
    """Trying to destroy an object, through the protocol."""

    def test_a_folder_lets_its_bytes_go_so_the_checks_fail(
        self, tmp_path: Path
    ) -> None:
        """Each attempt is told, and nothing is left of it."""
        found = challenge(LocalStore("local", tmp_path), "shop/set/")

        assert [(each.name, each.passed, each.observed) for each in found] == [
            (
                "store local: delete with the running credentials",
                False,
                "the bytes are gone",
            ),
            (
                "store local: overwrite with the running credentials",
                False,
                "the bytes are gone",
            ),
        ]
        assert "object_lock_days" in found[0].detail
        assert [each for each in tmp_path.rglob("*") if each.is_file()] == []

    def test_a_store_that_refuses_passes(self) -> None:
        """The bytes are read again, and are the same."""
        found = challenge(_Worm(), "shop/set/")

        assert [(each.passed, each.observed) for each in found] == [
            (True, "refused"),
            (True, "refused"),
        ]

    def test_a_refusal_that_was_none_fails(self) -> None:
        """What counts is whether the bytes are there."""
        found = challenge(_Liar(), "shop/set/")

        assert [each.passed for each in found] == [False, False]
        assert found[0].observed == "refused, but the bytes are gone"

    def test_a_store_that_cannot_be_read_proves_nothing(self) -> None:
        """The error comes through: nothing was tried."""
        with pytest.raises(StoreError, match="broken"):
            challenge(_Broken(MemoryStore()), "shop/set/")

    def test_other_objects_are_not_touched(self) -> None:
        """Only the object that was made for it is."""
        store = MemoryStore()
        store.put("shop/set/dump", [b"the dump"])

        challenge(store, "shop/set/")

        assert [each.key for each in store.list()] == ["shop/set/dump"]
