"""Where bytes live."""

from __future__ import annotations

from opskit.store.base import ObjectInfo, Store
from opskit.store.local import LocalStore
from opskit.store.memory import MemoryStore

__all__ = ["LocalStore", "MemoryStore", "ObjectInfo", "Store", "open_store"]


def open_store(name: str, url: str) -> Store:
    """Return the store that a configured URL names."""
    return LocalStore(name, url.removeprefix("file://"))
