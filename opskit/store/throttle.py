"""A store that is kept below a number of bytes per second."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from opskit.store.base import ObjectInfo, Store
from opskit.store.wrapper import StoreWrapper

if TYPE_CHECKING:
    from typing_extensions import Buffer

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
        """See `Store.put`."""
        return self._inner.put(key, self._paced(chunks))

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        """See `Store.open`."""
        with (
            self._inner.open(key, start) as file,
            io.BufferedReader(_Paced(file, self._pace), _READ_BYTES) as paced,
        ):
            yield cast("BinaryIO", paced)

    def _paced(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._pace.take(len(chunk))
            yield chunk


class _Pace:
    """Tells each taker to wait until what was taken before has had its time."""

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


class _Paced(io.RawIOBase):
    """A file read at the pace; closing it leaves the file inside to its owner."""

    def __init__(self, file: BinaryIO, pace: _Pace) -> None:
        super().__init__()
        self._file, self._pace = file, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        got = self._file.read(min(len(view), _READ_BYTES))
        view[: len(got)] = got
        self._pace.take(len(got))
        return len(got)
