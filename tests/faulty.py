"""A store that fails where a test wants it to: at the seam, and reproducibly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO

from opskit.errors import StoreError
from opskit.store import ObjectInfo, Store


class Crash(BaseException):
    """The process dies here: nothing that handles errors gets to run on the store."""


class FaultyStore:
    """Wraps a store and fails on purpose; without a fault it is what it wraps.

    Args:
        fail_put_at: the number of the `put`, from 1, that fails with a StoreError.
        fail_after_chunks: how many chunks the failing `put` takes before it fails.
        truncate_at: how many bytes of each object are stored; the rest is lost without
            a word, but for the size that `put` returns.
        crash_at: the number of the step, from 1, instead of which the process dies; a
            step is a `put`, a `delete`, or one object's deletion in `discard`.
    """

    def __init__(
        self,
        store: Store,
        *,
        fail_put_at: int | None = None,
        fail_after_chunks: int = 0,
        truncate_at: int | None = None,
        crash_at: int | None = None,
    ) -> None:
        self._store = store
        self._fail_put_at = fail_put_at
        self._fail_after_chunks = fail_after_chunks
        self._truncate_at = truncate_at
        self._crash_at = crash_at
        self.puts = 0
        self.steps = 0

    @property
    def name(self) -> str:
        """See `Store.name`."""
        return self._store.name

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        self._step()
        self.puts += 1
        if self.puts == self._fail_put_at:
            chunks = self._failing(chunks)
        if self._truncate_at is not None:
            chunks = _truncated(chunks, self._truncate_at)
        return self._store.put(key, chunks)

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """See `Store.open`."""
        return self._store.open(key, start)

    def stat(self, key: str) -> ObjectInfo:
        """See `Store.stat`."""
        return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        return self._store.list(prefix)

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`."""
        return self._store.unfinished(prefix)

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """See `Store.sweep`."""
        return self._store.sweep(prefix, before=before)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._step()
        self._store.delete(key)

    def discard(self, prefix: str) -> None:
        """See `Store.discard`; object by object, so that it can die in between."""
        for each in [*self._store.list(prefix)]:
            self.delete(each.key)
        self._store.discard(prefix)

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self._crash_at:
            raise Crash

    def _failing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            if number == self._fail_after_chunks:
                break
            yield chunk
        raise StoreError(f"store {self.name} failed on purpose", hint="It is a test.")


def _truncated(chunks: Iterable[bytes], length: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:length]
        length -= len(chunk[:length])
