"""Writes the objects of one set into the stores that have not failed so far."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from opskit.backup.protection import Protection
from opskit.catalog.manifest import StoredObject
from opskit.catalog.naming import MANIFEST_NAME
from opskit.catalog.verify import require_stored
from opskit.catalog.writer import put_everywhere
from opskit.crypto import age
from opskit.errors import StoreError
from opskit.log import logger
from opskit.store import Store


@dataclass(kw_only=True)
class SetWriter:
    """One set on its way: its objects so far, and the stores that still take them.

    Several objects may be put at once, from several threads.
    """

    prefix: str
    stores: list[Store]
    protection: Protection
    objects: list[StoredObject] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def put(self, name: str, role: str, chunks: Iterable[bytes]) -> None:
        """Store an object of the set, encrypted where the set is.

        Raises:
            StoreError: no store is left that takes it.
        """
        if not self.protection.encrypts:
            self.put_open(name, role, chunks)
            return
        # Its thread must not outlive stores that take no more.
        with closing(age.encrypted(chunks, self.protection.recipients)) as encrypted:
            self.put_open(name + age.SUFFIX, role, encrypted)

    def put_open(self, name: str, role: str, chunks: Iterable[bytes]) -> None:
        """Store an object that anybody may read."""
        key = self.prefix + name
        size_bytes, sha256 = self._everywhere(key, chunks)
        stored = StoredObject(key=key, role=role, size_bytes=size_bytes, sha256=sha256)
        with self._lock:
            self.objects.append(stored)

    def leave_out(self, failed: Mapping[str, StoreError]) -> None:
        """Go on without stores that have failed."""
        with self._lock:
            for name, error in failed.items():
                if name not in self.failed:
                    logger().error("a store failed", store=name, error=error.message)
            self.failed |= failed
            self.stores = [e for e in self.stores if e.name not in self.failed]

    def look_again(self) -> None:
        """Leave out every store that does not hold all objects any more."""
        lost: dict[str, StoreError] = {}
        for store in self.stores:
            try:
                require_stored(self.objects, store)
            except StoreError as error:
                lost[store.name] = error
        self.leave_out(lost)
        if lost and not self.stores:
            raise next(iter(lost.values()))

    def record(self, name: str, content: bytes) -> None:
        """Store what is no object of the set itself: its manifest, a signature."""
        self._everywhere(self.prefix + name, [content])

    def discard(self, everywhere: Sequence[Store]) -> bool:
        """Remove the set again; return whether every store could do so."""
        clean = True
        for store in everywhere:
            try:
                # Its manifest first, lest a kill leave a listed set without objects.
                store.delete(self.prefix + MANIFEST_NAME)
                store.discard(self.prefix)
            except StoreError as error:
                clean = False
                logger().error("cannot clean up", store=store.name, error=error.message)
        return clean

    def _everywhere(self, key: str, chunks: Iterable[bytes]) -> tuple[int, str]:
        stored = put_everywhere(self.stores, key, chunks)
        self.leave_out(stored.failed)
        return stored.size_bytes, stored.sha256
