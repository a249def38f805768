"""A store in memory: a real second implementation of the protocol."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from opskit.errors import ObjectExists, ObjectNotFound
from opskit.store.base import ObjectInfo, check_key


class MemoryStore:
    """Objects in a dictionary."""

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    @property
    def name(self) -> str:
        """The name that the configuration gives it."""
        return self._name

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        check_key(key)
        content = b"".join(chunks)
        if key in self._objects:
            raise ObjectExists(f"store {self._name}: {key} exists already")
        self._objects[key] = (content, datetime.now(UTC))
        return self.stat(key)

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        """See `Store.open`."""
        self.stat(key)
        yield io.BytesIO(self._objects[key][0][start:])

    def stat(self, key: str) -> ObjectInfo:
        """See `Store.stat`."""
        check_key(key)
        if key not in self._objects:
            raise ObjectNotFound(f"store {self._name}: there is no object {key}")
        content, modified_at = self._objects[key]
        return ObjectInfo(key=key, size_bytes=len(content), modified_at=modified_at)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        for key in sorted(self._objects):
            if key.startswith(prefix):
                yield self.stat(key)

    def unfinished(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.unfinished`; memory holds none."""
        return iter(())

    def sweep(self, prefix: str, *, before: datetime) -> int:
        """See `Store.sweep`; memory holds none."""
        return 0

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._objects.pop(check_key(key), None)

    def discard(self, prefix: str) -> None:
        """See `Store.discard`."""
        for key in [key for key in self._objects if key.startswith(prefix)]:
            del self._objects[key]
