"""Orphans: what a run left in a store when it died before its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from opskit.catalog.catalog import group_by_set
from opskit.catalog.reading import Place
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

    The caller holds the lock of the source in these stores, and `now` is the time by
    their own clock: what another host writes at this moment is no orphan.
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
    if Place(prefix=prefix, objects=objects).has_manifest:
        return False
    return max(each.modified_at for each in objects) < now - GRACE
