"""Where bytes live."""

from __future__ import annotations

from opskit.config import StoreSettings
from opskit.store.base import ObjectInfo, Store
from opskit.store.local import LocalStore
from opskit.store.s3.store import S3Store
from opskit.store.wrappers import RetryingStore, ThrottledStore, unwrapped

__all__ = [
    "LocalStore",
    "ObjectInfo",
    "RetryingStore",
    "S3Store",
    "Store",
    "ThrottledStore",
    "open_store",
    "unwrapped",
]


def open_store(name: str, settings: StoreSettings) -> Store:
    """Return the store that the settings describe; nothing is touched yet.

    One in a bucket is asked again where its answer breaks off, and one with a bandwidth
    limit keeps it. `unwrapped` gives the store itself.
    """
    store: Store
    if settings.on_s3:
        store = RetryingStore(S3Store(name, settings), attempts=settings.attempts)
    else:
        store = LocalStore(name, settings.url.removeprefix("file://"))
    if settings.bandwidth_limit:
        store = ThrottledStore(store, bytes_per_second=settings.bandwidth_limit)
    return store
