"""The catalog: which sets the stores hold, and which one is meant."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Generic, TypeVar

from opskit.catalog.documents import ANYONE, Trust, warn_of
from opskit.catalog.manifest import MANIFEST_NAME, Manifest
from opskit.catalog.sets import (
    BackupSet,
    CatalogCache,
    ListedSet,
    Place,
    Unreadable,
    attempt,
    read_set,
    sets_in,
)
from opskit.checks import some
from opskit.errors import (
    IntegrityError,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
    UsageError,
)
from opskit.log import logger
from opskit.store import S3Store, Store, unwrapped
from opskit.threads import Pool

LATEST = "latest"
_CANDIDATES_SHOWN = 20
# The number of connections that a store in a bucket keeps open.
_READERS_ON_S3 = 8
_AHEAD = 4  # how many sets are waiting for each reader

Known = TypeVar("Known", bound=ListedSet)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Catalog(Generic[Known]):
    """Every set in the stores, newest first, and what could not be used.

    `find` and `newest` return sets that were read from their stores, also where the
    others are only listed: what acts on a set never relies on a cache.
    """

    sets: tuple[Known, ...]
    unreadable: tuple[Unreadable, ...]
    unreachable: tuple[StoreError, ...] = ()
    trust: Trust = ANYONE

    def of(self, source: str | None) -> list[Known]:
        """Return the sets of one source, or of all, newest first."""
        return [each for each in self.sets if source in (None, each.source)]

    def _choose(self, wanted: str, *, source: str | None = None) -> Known:
        if wanted == LATEST:
            return self._choose_newest(source or self.only_source())
        bad = {each.key.split("/")[2]: each for each in self.unreadable}
        known = {each.backup_id: each for each in self.sets}
        beginning = f"{source}-" if source else ""
        matching = sorted(
            each
            for each in known.keys() | bad.keys()
            if each == wanted
            or (each.startswith(wanted) and each.startswith(beginning))
        )
        if wanted not in matching and len(matching) > 1:
            raise _ambiguous(
                f"{wanted} is the beginning of {len(matching)} backup IDs", matching
            )
        if not matching:
            raise UsageError(
                f"no store holds a backup set {wanted}",
                hint="`inv backups` lists the sets that exist.",
            )
        chosen = wanted if wanted in matching else matching[0]
        if chosen in known:
            return known[chosen]
        raise IntegrityError(
            f"the set {chosen} cannot be used: {bad[chosen].reason}",
            hint="Use another set; `inv backups` lists them.",
            details={"bad": [{"key": bad[chosen].key, "reason": bad[chosen].reason}]},
        )

    def _choose_newest(self, source: str, *, at: datetime | None = None) -> Known:
        sets = self.of(source)
        if at is not None:
            sets = [each for each in sets if each.snapshot_at <= at]
            sets.sort(key=lambda each: each.snapshot_at, reverse=True)
        newest_id = sets[0].backup_id if sets else ""
        newer_than_asked = f"{source}-{at:%Y%m%dT%H%M%SZ}-~" if at else "~"
        for bad in self.unreadable:
            of_source, _date, backup_id, _name = bad.key.split("/")
            if of_source == source and newest_id < backup_id < newer_than_asked:
                self._choose(backup_id)  # says why it cannot be used
        if sets:
            return sets[0]
        if at is not None and (oldest := self.of(source)[-1:]):
            raise UsageError(
                f"there is no backup set of {source} from {at:%Y-%m-%d %H:%M:%S} UTC "
                "or before",
                hint=f"The oldest is {oldest[0].backup_id}.",
            )
        raise UsageError(
            f"there is no backup set of {source} yet",
            hint="Take one with `inv backup`.",
        )

    def find(self, wanted: str, *, source: str | None = None) -> BackupSet:
        """Return the set with this id or with the only id that begins so, or `latest`.

        With a source, the last two mean a set of that source.

        Raises:
            IntegrityError: its manifest cannot be used.
            UsageError: no store holds it, or several sets are meant.
            StoreError: its stores cannot be reached.
        """
        return self._read(self._choose(wanted, source=source))

    def newest(self, source: str, *, at: datetime | None = None) -> BackupSet:
        """Return the newest set of a source, or the newest of its state at a time.

        Raises:
            IntegrityError: its manifest, or that of a newer one, cannot be used.
            UsageError: there is none.
            StoreError: its stores cannot be reached.
        """
        return self._read(self._choose_newest(source, at=at))

    def _read(self, chosen: ListedSet) -> BackupSet:
        if isinstance(chosen, BackupSet):
            return chosen
        catalog = read_below(chosen.stores, chosen.prefix, self.trust)
        catalog.warn()
        return catalog._choose(chosen.backup_id)

    def warn(self) -> None:
        """Log every store and manifest that cannot be used."""
        for error in self.unreachable:
            logger().error("a store cannot be reached", error=error.message)
        for bad in self.unreadable:
            logger().warning(
                "a backup set cannot be used",
                store=bad.store,
                key=bad.key,
                reason=bad.reason,
            )

    def only_source(self) -> str:
        """Return the source that all sets are of.

        Raises:
            UsageError: there is no set, or there are sets of several sources.
        """
        names = {each.source for each in self.sets}
        names |= {each.key.partition("/")[0] for each in self.unreadable}
        if not names:
            raise UsageError(
                "there is no backup set yet", hint="Take one with `inv backup`."
            )
        if len(names) > 1:
            error = _ambiguous(
                f"there are sets of several sources: {some(sorted(names))}",
                [
                    each[0].backup_id
                    for name in sorted(names)
                    if (each := self.of(name))
                ],
            )
            raise error.replace(
                hint=f"{error.hint} Where the command has --database or --files, the "
                "source is enough."
            )
        return names.pop()


def _ambiguous(message: str, candidates: list[str]) -> UsageError:
    shown = ", ".join(candidates[:_CANDIDATES_SHOWN])
    more = len(candidates) - _CANDIDATES_SHOWN
    return UsageError(
        message,
        hint=f"Name one of: {shown}{f' and {more} more' if more > 0 else ''}.",
        details={"candidates": candidates},
    )


def read(
    stores: Iterable[Store], *, source: str | None = None, trust: Trust = ANYONE
) -> Catalog[BackupSet]:
    """List the stores and read every manifest in them.

    A set that lies in several stores is one set. A manifest that cannot be read is
    reported, and so is a store that cannot be reached as long as another one can. What
    no trusted key signed cannot be used, and as evidence it does not count.

    Raises:
        StoreError: no store can be reached.
    """
    return read_below(stores, _prefix(source), trust)


def _prefix(source: str | None) -> str:
    return f"{source}/" if source else ""


def read_below(
    stores: Iterable[Store], prefix: str, trust: Trust
) -> Catalog[BackupSet]:
    """Read like `read` what lies below a prefix.

    Raises:
        StoreError: no store can be reached.
    """

    def read_all(
        store: Store, places: list[Place]
    ) -> Iterator[BackupSet | Unreadable | None]:
        return in_order(
            lambda place: attempt(store, place, trust)[0],
            places,
            threads=readers(store),
        )

    return _collect(stores, prefix, trust, read_all)


def list_sets(
    stores: Iterable[Store],
    *,
    source: str | None = None,
    trust: Trust = ANYONE,
    caches: Mapping[str, CatalogCache] | None = None,
) -> Catalog[ListedSet]:
    """List the stores; read only the manifests that their caches do not know.

    Args:
        caches: the cache of each store that has one, by the store's name.

    Raises:
        StoreError: no store can be reached.
    """
    prefix = _prefix(source)

    def list_all(
        store: Store, places: list[Place]
    ) -> Iterator[ListedSet | Unreadable | None]:
        def look(place: Place) -> tuple[ListedSet | Unreadable | None, bool]:
            each, is_lasting = attempt(store, place, trust)
            if isinstance(each, BackupSet):
                return each.without_manifest(), is_lasting
            return each, is_lasting

        cache = (caches or {}).get(store.name)
        known: dict[str, ListedSet | Unreadable | None] = {}
        if cache is not None:
            known = {e.prefix: cache.recall(store, e, trust) for e in places}
        missing = [each for each in places if known.get(each.prefix) is None]
        outcomes = in_order(look, missing, threads=readers(store))
        try:
            for place in places:
                each = known.get(place.prefix)
                if each is None:
                    each, is_lasting = next(outcomes)
                    if cache is not None and is_lasting and each is not None:
                        cache.remember(place, trust, each)
                yield each
        finally:  # also what an interrupted run has read
            if cache is not None:
                cache.drop_others(prefix, places)
                cache.save()

    return _collect(stores, prefix, trust, list_all)


def readers(store: Store) -> int:
    """Return how many sets of a store are read at once."""
    return _READERS_ON_S3 if isinstance(unwrapped(store), S3Store) else 1


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Generator[_Result, None, None]:
    """Yield what the function returns for each item, in the order of the items.

    With several threads, a bounded number of results are made ahead.
    """
    if threads == 1:
        yield from map(function, items)
        return
    left = iter(items)
    ahead: deque[Future[_Result]] = deque()
    with Pool(threads, thread_name_prefix="catalog") as pool:
        try:
            for item in islice(left, threads * _AHEAD):
                ahead.append(pool.submit(function, item))
            while ahead:
                result = ahead.popleft().result()
                for item in islice(left, 1):
                    ahead.append(pool.submit(function, item))
                yield result
        finally:
            for each in ahead:
                each.cancel()


def _collect(
    stores: Iterable[Store],
    prefix: str,
    trust: Trust,
    read_all: Callable[[Store, list[Place]], Iterable[Known | Unreadable | None]],
) -> Catalog[Known]:
    """Bring together what there is below a prefix of all stores.

    `read_all` gives what there is in each place of a store, in the order of the places;
    None for a set that does not exist any more.

    Raises:
        StoreError: no store can be reached.
    """
    catalogs: list[Catalog[Known]] = []
    unreachable: list[StoreError] = []
    stores = list(stores)
    for store in stores:
        try:
            places = sets_in(store, prefix)
        except StoreError as error:
            unreachable.append(error)
            continue
        sets: list[Known] = []
        unreadable: list[Unreadable] = []
        for each in read_all(store, places):
            if isinstance(each, ListedSet):
                for key, reason in each.copies[0].faults:
                    warn_of(store, key, reason)
                sets.append(each)
            elif each is not None:
                unreadable.append(each)
        catalogs.append(Catalog(sets=tuple(sets), unreadable=tuple(unreadable)))
    if unreachable and len(unreachable) == len(stores):
        raise unreachable[0]
    return replace(joined(catalogs), unreachable=tuple(unreachable), trust=trust)


def joined(catalogs: Iterable[Catalog[Known]]) -> Catalog[Known]:
    """Return one catalog of several stores' own."""
    sets: dict[str, Known] = {}
    unreadable: list[Unreadable] = []
    for one in catalogs:
        unreadable += one.unreadable
        for each in one.sets:
            merged = _merge(sets.get(each.backup_id), each)
            if isinstance(merged, Unreadable):
                unreadable.append(merged)
            else:
                sets[each.backup_id] = merged
    newest_first = sorted(
        sets.values(), key=lambda each: (each.started_at, each.backup_id), reverse=True
    )
    return Catalog(sets=tuple(newest_first), unreadable=tuple(unreadable))


def _merge(known: Known | None, other: Known) -> Known | Unreadable:
    if known is None:
        return other
    if known.manifest_sha256 != other.manifest_sha256:
        # One of the two was altered after it was written.
        return Unreadable(
            store=other.stores[0].name,
            key=other.prefix + MANIFEST_NAME,
            reason="it is not the same as the manifest in store "
            f"{known.stores[0].name}",
        )
    return replace(known, copies=known.copies + other.copies)


def latest(
    stores: Iterable[Store], *, source: str, trust: Trust = ANYONE
) -> Manifest | None:
    """Return the manifest of the newest set of a source, without reading the others.

    Where the names of places lie about the time, it may be another set's. A store that
    cannot be read is passed over as long as another one knows a set.

    Raises:
        StoreError: a store cannot be read, and no other one knows a set.
    """
    newest: Manifest | None = None
    trouble: StoreError | None = None
    for store in stores:
        try:
            manifest = _latest_in(store, source, trust)
        except StoreError as error:
            trouble = error
            continue
        if manifest and (newest is None or manifest.started_at > newest.started_at):
            newest = manifest
    if newest is None and trouble is not None:
        raise trouble
    return newest


def _latest_in(store: Store, source: str, trust: Trust) -> Manifest | None:
    for place in reversed(sets_in(store, f"{source}/")):
        bare = replace(place, objects=())  # evidence does not matter here
        try:
            return read_set(store, bare, trust).manifest
        except (IntegrityError, ObjectNotFound, ObjectUnreadable):
            continue  # reported where the whole catalog is read, or just pruned
    return None
