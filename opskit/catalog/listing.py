"""Lists the sets without reading every manifest, and reads the one that is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from opskit.catalog.cache import CatalogCache, Seen
from opskit.catalog.catalog import Catalog, Found, collect, read_place
from opskit.catalog.sets import (
    BackupSet,
    Copy,
    ListedSet,
    Place,
    ReadSet,
    Refusal,
    attempt,
    in_order,
    readers,
    summary_of,
)
from opskit.catalog.trust import Trust, warn_of
from opskit.log import logger
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class Listing(Found[ListedSet]):
    """Every set in the stores, newest first, as `catalog.read` would find them.

    What is chosen is read from all stores that hold it, so that what acts on a set
    never relies on what was remembered.
    """

    trust: Trust = field(default_factory=Trust)

    def find(self, wanted: str, *, source: str | None = None) -> BackupSet:
        """Read the set that `Found.choose` chooses from its stores.

        Raises:
            IntegrityError: its manifest cannot be used.
            UsageError: no store holds it, or several sets are meant.
            StoreError: its stores cannot be reached.
        """
        return self._read_again(self.choose(wanted, source=source))

    def newest(self, source: str, *, at: datetime | None = None) -> BackupSet:
        """Read the set that `Found.choose_newest` chooses from its stores.

        Raises:
            IntegrityError: its manifest, or that of a newer one, cannot be used.
            UsageError: there is none.
            StoreError: its stores cannot be reached.
        """
        return self._read_again(self.choose_newest(source, at=at))

    def _read_again(self, chosen: ListedSet) -> BackupSet:
        return self._read(chosen).find(chosen.summary.backup_id)

    def _read(self, chosen: ListedSet) -> Catalog:
        found = read_place(chosen.stores, chosen.summary.prefix, trust=self.trust)
        for bad in found.unreadable:
            logger().warning(
                "a backup set cannot be used",
                store=bad.store,
                key=bad.key,
                reason=bad.reason,
            )
        for error in found.unreachable:
            logger().error("a store cannot be reached", error=error.message)
        return found


def read(
    stores: Iterable[Store],
    *,
    source: str | None = None,
    trust: Trust | None = None,
    caches: Mapping[str, CatalogCache] | None = None,
) -> Listing:
    """List the stores; read only the manifests that their caches do not know.

    Args:
        caches: the cache of each store that has one, by the store's name.

    Raises:
        StoreError: no store can be reached.
    """
    prefix = f"{source}/" if source else ""
    believed = trust or Trust()

    def read_all(
        store: Store, places: list[Place]
    ) -> Iterator[ListedSet | Refusal | None]:
        cache = (caches or {}).get(store.name)
        for seen in _seen_in(store, prefix, places, believed, cache):
            yield _as_set(store, seen) if isinstance(seen, Seen) else seen

    found = collect(stores, prefix, read_all)
    return Listing(
        sets=found.sets,
        unreadable=found.unreadable,
        unreachable=found.unreachable,
        trust=believed,
    )


def _seen_in(
    store: Store,
    prefix: str,
    places: list[Place],
    trust: Trust,
    cache: CatalogCache | None,
) -> Iterator[Seen | Refusal | None]:
    """Yield what there is in each place, remembered or read now."""
    known = {} if cache is None else {p.prefix: cache.recall(p, trust) for p in places}
    missing = [each for each in places if known.get(each.prefix) is None]
    outcomes = in_order(
        lambda place: _looked(store, place, trust), missing, threads=readers(store)
    )
    try:
        for place in places:
            seen = known.get(place.prefix)
            if seen is None:
                seen, is_lasting = next(outcomes)
                if cache is not None and is_lasting and seen is not None:
                    cache.remember(place, trust, seen)
            yield seen
    finally:  # an interrupted run has not read in vain
        if cache is not None:
            cache.drop_others(prefix, places)
            cache.save()


def _looked(
    store: Store, place: Place, trust: Trust
) -> tuple[Seen | Refusal | None, bool]:
    """Read a set, and keep only what is needed of it: manifests are large."""
    outcome, is_lasting = attempt(store, place, trust)
    return _in_short(outcome), is_lasting


def _in_short(outcome: ReadSet | Refusal | None) -> Seen | Refusal | None:
    if not isinstance(outcome, ReadSet):
        return outcome
    return Seen(
        summary=summary_of(outcome.manifest),
        manifest_sha256=outcome.manifest_sha256,
        evidence=outcome.evidence,
        is_pinned=outcome.is_pinned,
        amiss=outcome.amiss,
    )


def _as_set(store: Store, seen: Seen) -> ListedSet:
    for key, reason in seen.amiss:
        warn_of(store, key, reason)
    return ListedSet(
        summary=seen.summary,
        manifest_sha256=seen.manifest_sha256,
        copies=(Copy(store=store, evidence=seen.evidence, is_pinned=seen.is_pinned),),
    )
