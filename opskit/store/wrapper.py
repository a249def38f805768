"""A store around a store: hands every call on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO

from opskit.store.base import ObjectInfo, Store


class StoreWrapper:
    """Does nothing of its own."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def inner(self) -> Store:
        """The store that is wrapped."""
        return self._inner

    @property
    def name(self) -> str:
        """The name that the configuration gives the store inside."""
        return self._inner.name

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        return self._inner.put(key, chunks)

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """See `Store.open`."""
        return self._inner.open(key, start)

    def stat(self, key: str) -> ObjectInfo:
        """See `Store.stat`."""
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        return self._inner.list(prefix)

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`."""
        return self._inner.unfinished(prefix)

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """See `Store.sweep`."""
        return self._inner.sweep(prefix, before=before)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._inner.delete(key)

    def discard(self, prefix: str) -> None:
        """See `Store.discard`."""
        self._inner.discard(prefix)


def unwrapped(store: Store) -> Store:
    """Return the store inside all wrappers."""
    while isinstance(store, StoreWrapper):
        store = store.inner
    return store
