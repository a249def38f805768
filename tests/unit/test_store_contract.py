"""Every store and every wrapper of one keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.store import LocalStore, RetryingStore, Store, ThrottledStore
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    """A store in memory."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        return MemoryStore("ram")


class TestLocalStore(StoreContract):
    """A store in a folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """An empty store."""
        return LocalStore("disk", tmp_path)


class TestFaultyStore(StoreContract):
    """A wrapper that is told of no fault."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        return FaultyStore(MemoryStore("sound"))


class TestRetryingStore(StoreContract):
    """A wrapper that asks again, where there is no need."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        return RetryingStore(MemoryStore("steady"), attempts=3)


class TestThrottledStore(StoreContract):
    """A wrapper that slows down, but not so that one would notice."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        return ThrottledStore(MemoryStore("slow"), bytes_per_second=10**12)
