"""The catalog: reads what sets the stores hold, and what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opskit.catalog import manifest as manifests
from opskit.catalog.manifest import MANIFEST_NAME, Manifest
from opskit.catalog.proof import (
    EvidenceName,
    Proof,
    best,
    combined,
    parse_evidence,
    proof_of,
)
from opskit.catalog.trust import Trust
from opskit.errors import IntegrityError, StoreError, UsageError
from opskit.store import ObjectInfo, Store

_SET_DEPTH = 3  # source, date, backup id


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A set as it lies in one store, with the evidence that lies beside it there."""

    store: Store
    evidence: tuple[EvidenceName, ...]


@dataclass(frozen=True, kw_only=True)
class BackupSet:
    """One set: its manifest, where it lies, and the proof known of it.

    `manifest_sha256` is of the manifest's own bytes: evidence names it.
    """

    manifest: Manifest
    manifest_sha256: str
    copies: tuple[Copy, ...]

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that hold the set, in the order of the configuration."""
        return tuple(copy.store for copy in self.copies)

    @property
    def proof(self) -> Proof:
        """The strongest thing known of the set."""
        return combined(proof_of(copy.evidence) for copy in self.copies)

    @property
    def best_proof(self) -> Proof:
        """The proof of the best copy: whether the set can be relied on to come back."""
        return best(proof_of(copy.evidence) for copy in self.copies)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A manifest that cannot be used, and why."""

    store: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every set in the stores, newest first, and what could not be used."""

    sets: tuple[BackupSet, ...]
    unreadable: tuple[Unreadable, ...]
    unreachable: tuple[StoreError, ...] = ()

    def of(self, source: str | None) -> list[BackupSet]:
        """Return the sets of one source, or of all, newest first."""
        return [each for each in self.sets if source in (None, each.manifest.source)]

    def find(self, backup_id: str) -> BackupSet:
        """Return the set with this id.

        Raises:
            IntegrityError: its manifest cannot be used.
            UsageError: no store holds it.
        """
        for each in self.sets:
            if each.manifest.backup_id == backup_id:
                return each
        for bad in self.unreadable:
            if f"/{backup_id}/" in bad.key:
                raise IntegrityError(
                    f"the set {backup_id} cannot be used: {bad.reason}",
                    hint="Use another set; `invoke backups` lists them.",
                    details={"bad": [{"key": bad.key, "reason": bad.reason}]},
                )
        raise UsageError(
            f"no store holds a backup set {backup_id}",
            hint="`invoke backups` lists the sets that exist.",
        )

    def newest(self, source: str) -> BackupSet:
        """Return the newest set of a source.

        Raises:
            IntegrityError: there is a newer one, but its manifest cannot be used.
            UsageError: there is none.
        """
        sets = self.of(source)
        newest_id = sets[0].manifest.backup_id if sets else ""
        for bad in self.unreadable:
            of_source, _date, backup_id, _name = bad.key.split("/")
            if of_source == source and backup_id > newest_id:
                self.find(backup_id)  # says why it cannot be used
        if not sets:
            raise UsageError(
                f"there is no backup set of {source} yet",
                hint=f"Run `invoke backup --database {source}` first.",
            )
        return sets[0]


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
    found: dict[str, BackupSet] = {}
    unreadable: list[Unreadable] = []
    unreachable: list[StoreError] = []
    stores = list(stores)
    trust = trust or Trust()
    for store in stores:
        try:
            places = group_by_set(store.list(f"{source}/" if source else ""))
        except StoreError as error:
            unreachable.append(error)
            continue
        for place, objects in places:
            if not any(each.key == place + MANIFEST_NAME for each in objects):
                continue  # an unfinished run: see `opskit.catalog.orphans`
            try:
                each = _read_set(store, place, objects, trust)
                backup_id = each.manifest.backup_id
                found[backup_id] = _merge(found.get(backup_id), each)
            except (IntegrityError, StoreError) as error:
                unreadable.append(
                    Unreadable(
                        store=store.name,
                        key=place + MANIFEST_NAME,
                        reason=error.message,
                    )
                )
    if unreachable and len(unreachable) == len(stores):
        raise unreachable[0]
    newest_first = sorted(
        found.values(),
        key=lambda each: (each.manifest.started_at, each.manifest.backup_id),
        reverse=True,
    )
    return Catalog(
        sets=tuple(newest_first),
        unreadable=tuple(unreadable),
        unreachable=tuple(unreachable),
    )


def latest(
    stores: Iterable[Store], *, source: str, trust: Trust | None = None
) -> Manifest | None:
    """Return the manifest of the newest set of a source, without reading the others.

    Where the names of places lie about the time, it may be another set's.

    Raises:
        StoreError: a store cannot be read.
    """
    newest: Manifest | None = None
    for store in stores:
        for place, objects in reversed(group_by_set(store.list(f"{source}/"))):
            if not any(each.key == place + MANIFEST_NAME for each in objects):
                continue
            try:
                found = _read_set(store, place, (), trust or Trust()).manifest
            except IntegrityError:
                continue  # told by whatever reads the whole catalog
            if newest is None or found.started_at > newest.started_at:
                newest = found
            break
    return newest


def group_by_set(
    objects: Iterable[ObjectInfo],
) -> list[tuple[str, list[ObjectInfo]]]:
    """Group objects by set; what does not lie where sets lie is left out."""
    groups: dict[str, list[ObjectInfo]] = {}
    for each in objects:
        parts = each.key.split("/")
        if len(parts) > _SET_DEPTH and manifests.is_backup_id(parts[_SET_DEPTH - 1]):
            groups.setdefault("/".join(parts[:_SET_DEPTH]) + "/", []).append(each)
    return sorted(groups.items())


def _read_set(
    store: Store, place: str, objects: Sequence[ObjectInfo], trust: Trust
) -> BackupSet:
    key = place + MANIFEST_NAME
    with store.open(key) as file:
        content = file.read()
    trust.require(store, key, content)
    manifest = manifests.parse(content, key=key)
    sha256 = hashlib.sha256(content).hexdigest()
    names = (parse_evidence(each.key.removeprefix(place)) for each in objects)
    evidence = tuple(
        name
        for name in filter(None, names)
        if trust.counts(
            store,
            place + name.name(),
            manifest_sha256=sha256,
            name=name.name(),
            passed=name.passed,
        )
    )
    return BackupSet(
        manifest=manifest,
        manifest_sha256=sha256,
        copies=(Copy(store=store, evidence=evidence),),
    )


def _merge(known: BackupSet | None, other: BackupSet) -> BackupSet:
    if known is None:
        return other
    if known.manifest_sha256 != other.manifest_sha256:
        raise IntegrityError(
            f"it is not the same as the manifest in store {known.stores[0].name}",
            hint="One of the two was altered after it was written.",
        )
    return replace(known, copies=known.copies + other.copies)
