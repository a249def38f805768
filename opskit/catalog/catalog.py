"""The catalog: reads what sets the stores hold, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar

from opskit.catalog.manifest import Manifest
from opskit.catalog.sets import (
    BackupSet,
    Copy,
    KnownSet,
    ListedSet,
    Place,
    ReadSet,
    Refusal,
    Unreadable,
    attempt,
    group_by_set,
    in_order,
    places_of,
    read_set,
    readers,
)
from opskit.catalog.trust import Trust, warn_of
from opskit.errors import (
    IntegrityError,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
    UsageError,
)
from opskit.store import Store

__all__ = [
    "BackupSet",
    "Catalog",
    "Copy",
    "Found",
    "Unreadable",
    "collect",
    "group_by_set",
    "latest",
    "read",
    "read_place",
]

LATEST = "latest"
_CANDIDATES_SHOWN = 20

Known = TypeVar("Known", BackupSet, ListedSet)


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Known]):
    """Every set in the stores, newest first, and what could not be used."""

    sets: tuple[Known, ...]
    unreadable: tuple[Unreadable, ...]
    unreachable: tuple[StoreError, ...] = ()

    def of(self, source: str | None) -> list[Known]:
        """Return the sets of one source, or of all, newest first."""
        return [each for each in self.sets if source in (None, each.summary.source)]

    def choose(self, wanted: str, *, source: str | None = None) -> Known:
        """Return the set with this id, whose id alone begins so, or `latest`.

        With a source, the last two mean a set of that source.

        Raises:
            IntegrityError: its manifest cannot be used.
            UsageError: no store holds it, or several sets are meant.
        """
        if wanted == LATEST:
            return self.choose_newest(source or self.only_source())
        bad = {_id_of(each): each for each in self.unreadable}
        known = {each.summary.backup_id: each for each in self.sets}
        beginning = f"{source}-" if source else ""
        found = sorted(
            each
            for each in known.keys() | bad.keys()
            if each == wanted
            or (each.startswith(wanted) and each.startswith(beginning))
        )
        if wanted not in found and len(found) > 1:
            raise _ambiguous(
                f"{wanted} is the beginning of {len(found)} backup IDs", found
            )
        if not found:
            raise UsageError(
                f"no store holds a backup set {wanted}",
                hint="`inv backups` lists the sets that exist.",
            )
        chosen = wanted if wanted in found else found[0]
        if chosen in known:
            return known[chosen]
        raise IntegrityError(
            f"the set {chosen} cannot be used: {bad[chosen].reason}",
            hint="Use another set; `inv backups` lists them.",
            details={"bad": [{"key": bad[chosen].key, "reason": bad[chosen].reason}]},
        )

    def choose_newest(self, source: str, *, at: datetime | None = None) -> Known:
        """Return the newest set of a source, or the newest of its state at a time.

        Raises:
            IntegrityError: there is a newer one, but its manifest cannot be used.
            UsageError: there is none.
        """
        sets = self.of(source)
        if at is not None:
            sets = [each for each in sets if each.summary.snapshot_at <= at]
            sets.sort(key=lambda each: each.summary.snapshot_at, reverse=True)
        newest_id = sets[0].summary.backup_id if sets else ""
        newer_than_asked = f"{source}-{at:%Y%m%dT%H%M%SZ}-~" if at else "~"
        for bad in self.unreadable:
            of_source, _date, backup_id, _name = bad.key.split("/")
            if of_source == source and newest_id < backup_id < newer_than_asked:
                self.choose(backup_id)  # says why it cannot be used
        if sets:
            return sets[0]
        if at is not None and (oldest := self.of(source)[-1:]):
            raise UsageError(
                f"there is no backup set of {source} from {at:%Y-%m-%d %H:%M:%S} UTC "
                "or before",
                hint=f"The oldest is {oldest[0].summary.backup_id}.",
            )
        raise UsageError(
            f"there is no backup set of {source} yet",
            hint=f"Run `inv backup --database {source}` first.",
        )

    def only_source(self) -> str:
        """Return the source that all sets are of.

        Raises:
            UsageError: there is no set, or there are sets of several sources.
        """
        names = {each.summary.source for each in self.sets}
        names |= {each.key.partition("/")[0] for each in self.unreadable}
        if not names:
            raise UsageError(
                "there is no backup set yet", hint="Take one with `inv backup`."
            )
        if len(names) > 1:
            raise _ambiguous(
                f"there are sets of several sources: {', '.join(sorted(names))}",
                [
                    each[0].summary.backup_id
                    for name in sorted(names)
                    if (each := self.of(name))
                ],
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


def _id_of(bad: Unreadable) -> str:
    return bad.key.split("/")[2]


@dataclass(frozen=True, kw_only=True)
class Catalog(Found[BackupSet]):
    """Sets whose manifests were read from the stores."""

    def find(self, wanted: str) -> BackupSet:
        """See `Found.choose`."""
        return self.choose(wanted)

    def newest(self, source: str) -> BackupSet:
        """See `Found.choose_newest`."""
        return self.choose_newest(source)


def read(
    stores: Iterable[Store], *, source: str | None = None, trust: Trust | None = None
) -> Catalog:
    """List the stores and read every manifest in them.

    A set that lies in several stores is one set. What cannot be read is told, never
    guessed at; a store that cannot be reached is told as long as another one can. What
    no trusted key signed cannot be used, and as evidence it does not count.

    Raises:
        StoreError: no store can be reached.
    """
    return read_place(stores, f"{source}/" if source else "", trust=trust or Trust())


def read_place(stores: Iterable[Store], prefix: str, *, trust: Trust) -> Catalog:
    """Read the sets whose keys begin with a prefix; see `read`."""

    def read_all(
        store: Store, places: list[Place]
    ) -> Iterator[BackupSet | Refusal | None]:
        outcomes = in_order(
            lambda place: attempt(store, place, trust)[0],
            places,
            threads=readers(store),
        )
        for outcome in outcomes:
            if isinstance(outcome, ReadSet):
                yield _as_set(store, outcome)
            else:
                yield outcome

    found = collect(stores, prefix, read_all)
    return Catalog(
        sets=found.sets, unreadable=found.unreadable, unreachable=found.unreachable
    )


def collect(
    stores: Iterable[Store],
    prefix: str,
    read_all: Callable[[Store, list[Place]], Iterable[Known | Refusal | None]],
) -> Found[Known]:
    """Bring together what there is below a prefix of all stores.

    `read_all` gives what there is in each place of a store, in the order of the places;
    nothing for a set that is not there any more.

    Raises:
        StoreError: no store can be reached.
    """
    found: dict[str, Known] = {}
    unreadable: list[Unreadable] = []
    unreachable: list[StoreError] = []
    stores = list(stores)
    for store in stores:
        try:
            places = places_of(store, prefix)
        except StoreError as error:
            unreachable.append(error)
            continue
        for place, outcome in zip(places, read_all(store, places), strict=True):
            if outcome is None:
                continue
            if not isinstance(outcome, Refusal):
                backup_id = outcome.summary.backup_id
                outcome = _merged(found.get(backup_id), outcome)
            if isinstance(outcome, Refusal):
                unreadable.append(
                    Unreadable(
                        store=store.name, key=place.manifest_key, reason=outcome.reason
                    )
                )
            else:
                found[outcome.summary.backup_id] = outcome
    if unreachable and len(unreachable) == len(stores):
        raise unreachable[0]
    return Found(
        sets=tuple(sorted(found.values(), key=_age, reverse=True)),
        unreadable=tuple(unreadable),
        unreachable=tuple(unreachable),
    )


def latest(
    stores: Iterable[Store], *, source: str, trust: Trust | None = None
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
            found = _latest_in(store, source, trust or Trust())
        except StoreError as error:
            trouble = error
            continue
        if found and (newest is None or found.started_at > newest.started_at):
            newest = found
    if newest is None and trouble is not None:
        raise trouble
    return newest


def _latest_in(store: Store, source: str, trust: Trust) -> Manifest | None:
    for place in reversed(places_of(store, f"{source}/")):
        bare = replace(place, objects=())  # evidence does not matter here
        try:
            return read_set(store, bare, trust).manifest
        except (IntegrityError, ObjectNotFound, ObjectUnreadable):
            continue  # told by whatever reads the whole catalog, or just pruned
    return None


def _as_set(store: Store, found: ReadSet) -> BackupSet:
    for key, reason in found.amiss:
        warn_of(store, key, reason)
    return BackupSet(
        manifest=found.manifest,
        manifest_sha256=found.manifest_sha256,
        copies=(Copy(store=store, evidence=found.evidence, is_pinned=found.is_pinned),),
    )


def _age(each: KnownSet) -> tuple[object, ...]:
    return (each.summary.started_at, each.summary.backup_id)


def _merged(known: Known | None, other: Known) -> Known | Refusal:
    if known is None:
        return other
    if known.manifest_sha256 != other.manifest_sha256:
        # One of the two was altered after it was written.
        return Refusal(
            reason=f"it is not the same as the manifest in store {known.stores[0].name}"
        )
    return replace(known, copies=known.copies + other.copies)
