"""The Store protocol: a small contract that every place for bytes fulfils."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol

from opskit.errors import IntegrityError, ObjectNotFound, StoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object.

    `etag` changes whenever the object is written again; it is empty where a store has
    none.
    """

    key: str
    size_bytes: int
    modified_at: datetime
    etag: str = ""


class Store(Protocol):
    """Where bytes live.

    Keys are `/`-separated names. Errors are `StoreError` or one of its kinds, each
    naming the store and the key.
    """

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Store an object, durably, all or nothing.

        Nothing is visible under the key before the last chunk is safe. If the
        chunks raise, nothing is stored and their error comes through.

        Raises:
            ObjectExists: the key is taken; what is there is not touched.
        """

    def open(self, key: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Return a context manager that yields the bytes from `start` on.

        Raises:
            ObjectNotFound: there is no such object.
            ObjectUnreadable: here or while reading, this object cannot be read.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Return what is known of one object.

        Raises:
            ObjectNotFound: there is no such object.
        """

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, in the order of keys.

        A part of the store that cannot be listed is one entry, whose key ends with `/`.
        """

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield uploads that never finished; the key tells where, not what."""

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """Remove uploads that grew no more since then; return how many they were."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is deleted already."""

    def discard(self, prefix: str) -> None:
        """Remove every object and every unfinished upload below a `/`-ended prefix."""


class RawReader(io.RawIOBase):
    """A raw file whose bytes come from a function, at most as many as it is given."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        got = self._read(len(view))
        view[: len(got)] = got
        return len(got)


def check_key(key: str) -> str:
    """Return the key if it is one that every store can hold.

    Raises:
        StoreError: it is empty, absolute, or climbs out of the store.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise StoreError(f"{key!r} is not a key", hint="Keys are relative paths.")
    if parts[-1].startswith("."):
        raise StoreError(
            f"{key!r} is not a key", hint="Names must not begin with a dot."
        )
    return key


def holds(store: Store, key: str) -> bool:
    """Return whether a store has an object.

    Raises:
        StoreError: see `Store.stat`.
    """
    try:
        store.stat(key)
    except ObjectNotFound:
        return False
    return True


def read_whole(store: Store, key: str, *, bytes_max: int) -> bytes:
    """Return an object's bytes; of one that is too large no more is read.

    Raises:
        IntegrityError: it is larger than it may be.
        StoreError: see `Store.open`.
    """
    content = bytearray()
    with store.open(key) as file:
        while len(content) <= bytes_max and (block := file.read(_BLOCK_BYTES)):
            content += block
    if len(content) > bytes_max:
        raise IntegrityError(
            f"{key} is larger than {bytes_max} bytes, the most that it may be",
            hint="It was not written by opskit; use another set or another store.",
        )
    return bytes(content)
