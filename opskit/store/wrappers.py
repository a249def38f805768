"""Stores around a store: one asks again, one keeps to a bandwidth."""

from __future__ import annotations

import contextlib
import io
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from typing import BinaryIO, TypeVar, cast

from opskit.errors import RetriesExhausted, StoreUnavailable
from opskit.store.base import ObjectInfo, RawReader, Store


class StoreWrapper:
    """Passes everything on to the store inside."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        return self.inner.put(key, chunks)

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        return self.inner.open(key, start)

    def stat(self, key: str) -> ObjectInfo:
        return self.inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.unfinished(prefix)

    def sweep(self, prefix: str, *, before: datetime) -> int:
        return self.inner.sweep(prefix, before=before)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def discard(self, prefix: str) -> None:
        self.inner.discard(prefix)


def unwrapped(store: Store) -> Store:
    """Return the store inside all wrappers."""
    while isinstance(store, StoreWrapper):
        store = store.inner
    return store


_T = TypeVar("_T")
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 20.0
_BUFFER_BYTES = 256 * 1024


class RetryingStore(StoreWrapper):
    """Asks up to `attempts` times, with growing and random waits in between.

    Only a `StoreUnavailable` is asked again for, and not one that says that its retries
    are exhausted. A read that breaks off goes on where it was; `attempts` then counts
    from the last byte that came. `put` is not tried again, since its chunks are gone.

    Args:
        sleep: waits so many seconds.
        chance: returns a number from 0 to 1.
    """

    def __init__(
        self,
        inner: Store,
        *,
        attempts: int,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        self._attempts, self._sleep, self._chance = attempts, sleep, chance

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        with _Resumed(self.inner, key, start, self.again) as resumed:
            yield cast("BinaryIO", io.BufferedReader(resumed, _BUFFER_BYTES))

    def stat(self, key: str) -> ObjectInfo:
        return self.again(lambda: self.inner.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self.again(lambda: [*self.inner.list(prefix)]))

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self.again(lambda: [*self.inner.unfinished(prefix)]))

    def sweep(self, prefix: str, *, before: datetime) -> int:
        return self.again(lambda: self.inner.sweep(prefix, before=before))

    def delete(self, key: str) -> None:
        self.again(lambda: self.inner.delete(key))

    def discard(self, prefix: str) -> None:
        self.again(lambda: self.inner.discard(prefix))

    def again(self, call: Callable[[], _T]) -> _T:
        """Return what the call returns, at the latest at the last attempt.

        Raises:
            RetriesExhausted: it was unavailable each time.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except RetriesExhausted:
                raise
            except StoreUnavailable as error:
                if attempt == self._attempts:
                    raise RetriesExhausted(
                        f"{error.message}, after {attempt} attempts", hint=error.hint
                    ) from error
            longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)
            self._sleep(longest * (0.5 + self._chance() / 2))
        raise AssertionError("attempts must be at least 1")


class _Resumed(RawReader):
    """A file that is opened again where reading it broke off."""

    def __init__(
        self,
        store: Store,
        key: str,
        start: int,
        again: Callable[[Callable[[], bytes]], bytes],
    ) -> None:
        super().__init__(lambda count: again(lambda: self._try(count)))
        self._store, self._key, self._at = store, key, start
        self._opened = ExitStack()
        self._file: BinaryIO | None = None
        self._read(0)

    def _try(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._opened.enter_context(
                    self._store.open(self._key, self._at)
                )
            got = self._file.read(count)
        except StoreUnavailable:
            self._file = None
            self._opened.close()
            raise
        self._at += len(got)
        return got

    def close(self) -> None:
        self._opened.close()
        super().close()


_READ_BYTES = 64 * 1024


class ThrottledStore(StoreWrapper):
    """Lets the bytes of all its puts and reads together pass at a bounded rate.

    The rate is that of the stream. A store that gathers parts sends each of them as
    fast as it goes, so over one part's time it may be more.
    """

    def __init__(
        self,
        inner: Store,
        *,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._pace = _Pace(bytes_per_second, clock, sleep)

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        return self.inner.put(key, self._paced(chunks))

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        with self.inner.open(key, start) as file:

            def read(count: int) -> bytes:
                got = file.read(min(count, _READ_BYTES))
                self._pace.take(len(got))
                return got

            with io.BufferedReader(RawReader(read), _READ_BYTES) as paced:
                yield cast("BinaryIO", paced)

    def _paced(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._pace.take(len(chunk))
            yield chunk


class _Pace:
    """Lets each taker wait until what was taken before has had its time."""

    def __init__(
        self,
        bytes_per_second: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._rate, self._clock, self._sleep = bytes_per_second, clock, sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        with self._lock:
            now = self._clock()
            begin = max(now, self._free_at)
            self._free_at = begin + count / self._rate
        if begin > now:
            self._sleep(begin - now)
