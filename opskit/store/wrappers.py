"""A store that is asked again where asking again may help."""

from __future__ import annotations

import contextlib
import io
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from opskit.errors import RetriesExhausted, StoreUnavailable
from opskit.store.base import ObjectInfo, Store
from opskit.store.wrapper import StoreWrapper

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
        """See `Store.open`."""
        with _Resumed(self._inner, key, start, self.again) as resumed:
            yield cast("BinaryIO", io.BufferedReader(resumed, _BUFFER_BYTES))

    def stat(self, key: str) -> ObjectInfo:
        """See `Store.stat`."""
        return self.again(lambda: self._inner.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        return iter(self.again(lambda: [*self._inner.list(prefix)]))

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`."""
        return iter(self.again(lambda: [*self._inner.unfinished(prefix)]))

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """See `Store.sweep`."""
        return self.again(lambda: self._inner.sweep(prefix, before=before))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self.again(lambda: self._inner.delete(key))

    def discard(self, prefix: str) -> None:
        """See `Store.discard`."""
        self.again(lambda: self._inner.discard(prefix))

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


class _Resumed(io.RawIOBase):
    """A file that is opened again where reading it broke off."""

    def __init__(
        self,
        store: Store,
        key: str,
        start: int,
        again: Callable[[Callable[[], bytes]], bytes],
    ) -> None:
        super().__init__()
        self._store, self._key, self._at, self._again = store, key, start, again
        self._opened = ExitStack()
        self._file: BinaryIO | None = None
        self._again(lambda: self._read(0))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        got = self._again(lambda: self._read(len(view)))
        view[: len(got)] = got
        self._at += len(got)
        return len(got)

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._opened.enter_context(
                    self._store.open(self._key, self._at)
                )
            return self._file.read(count)
        except StoreUnavailable:
            self._file = None
            self._opened.close()
            raise

    def close(self) -> None:
        self._opened.close()
        super().close()
