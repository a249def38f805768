"""Writes the objects of one set into the stores that have not failed so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from opskit.backup.fanout import put_everywhere
from opskit.backup.protection import Protection
from opskit.catalog.manifest import MANIFEST_NAME, StoredObject
from opskit.crypto import age
from opskit.errors import StoreError
from opskit.log import logger
from opskit.store import Store


@dataclass(kw_only=True)
class SetWriter:
    """One set on its way: its objects so far, and the stores that still take them."""

    prefix: str
    stores: list[Store]
    protection: Protection
    objects: list[StoredObject] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)

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
        self.objects.append(
            StoredObject(key=key, role=role, size_bytes=size_bytes, sha256=sha256)
        )

    def leave_out(self, failed: Mapping[str, StoreError]) -> None:
        """Go on without stores that have failed."""
        for store_name, error in failed.items():
            logger().error("a store failed", store=store_name, error=error.message)
        self.failed |= failed
        self.stores = [each for each in self.stores if each.name not in self.failed]

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
