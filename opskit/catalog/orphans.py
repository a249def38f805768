"""Orphans: what a run left in a store when it died before its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from opskit.catalog.catalog import group_by_set
from opskit.catalog.naming import MANIFEST_NAME
from opskit.store import ObjectInfo, Store

GRACE = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """The place of a set that never came to be."""

    store: Store
    prefix: str
    size_bytes: int


def find(stores: Iterable[Store], *, source: str, now: datetime) -> list[Orphan]:
    """Return the orphans of one source that nothing was added to for the grace time.

    Younger ones may be a backup that another host is writing at this moment.
    """
    found = []
    for store in stores:
        everything = [*store.list(f"{source}/"), *store.unfinished(f"{source}/")]
        for prefix, objects in group_by_set(everything):
            if _is_orphan(prefix, objects, now):
                size_bytes = sum(each.size_bytes for each in objects)
                found.append(Orphan(store=store, prefix=prefix, size_bytes=size_bytes))
    return found


def _is_orphan(prefix: str, objects: list[ObjectInfo], now: datetime) -> bool:
    if any(each.key == prefix + MANIFEST_NAME for each in objects):
        return False
    return max(each.modified_at for each in objects) < now - GRACE
