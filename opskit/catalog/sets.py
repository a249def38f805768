"""Backup sets as they lie in stores: what is known of one, and how it is read."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, TypeVar

from pydantic import AwareDatetime

from opskit.catalog import manifest as manifests
from opskit.catalog.manifest import MANIFEST_NAME, Manifest, is_backup_id, set_prefix
from opskit.catalog.proof import (
    PIN_FOLDER,
    EvidenceName,
    Proof,
    best,
    combined,
    is_mark,
    parse_evidence,
    proof_of,
)
from opskit.catalog.trust import NOT_SIGNED, Trust
from opskit.errors import IntegrityError, ObjectNotFound, OpskitError, StoreError
from opskit.store import ObjectInfo, S3Store, Store, unwrapped
from opskit.store.base import read_whole
from opskit.store.wrappers import StoreWrapper
from opskit.threads import Pool

_SET_DEPTH = 3  # source, date, backup id
# As many connections as a store in a bucket keeps open.
_READERS_ON_S3 = 8
_AHEAD = 4  # how many sets are waiting for each reader

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What it takes to list a set, to choose it, and to decide how long it stays."""

    backup_id: str
    source: str
    started_at: AwareDatetime
    snapshot_at: AwareDatetime
    finished_at: AwareDatetime
    size_bytes: int
    sudden_changes: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """The set's place in a store, with a slash at its end."""
        return set_prefix(self.source, self.started_at, self.backup_id)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A set as it lies in one store, with what lies beside it there.

    `faults` are the keys of documents that do not count, and why; evidence that is
    merely not signed is not among them.
    """

    store: Store
    evidence: tuple[EvidenceName, ...]
    is_pinned: bool = False
    faults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListedSet:
    """A set of a listing, of which only the summary is known, maybe from a cache.

    It has no manifest, so that nothing can act on it: `Catalog.find` and
    `Catalog.newest` read the one that was chosen from its stores. `manifest_sha256` is
    of the manifest's own bytes: evidence names it.
    """

    summary: Summary
    manifest_sha256: str
    copies: tuple[Copy, ...]

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores that hold the set, in the order of the configuration."""
        return tuple(copy.store for copy in self.copies)

    @property
    def is_pinned(self) -> bool:
        """Whether a pin lies beside one of the copies."""
        return any(copy.is_pinned for copy in self.copies)

    @property
    def proof(self) -> Proof:
        """The strongest thing known of the set."""
        return combined(proof_of(copy.evidence) for copy in self.copies)

    @property
    def best_proof(self) -> Proof:
        """The proof of the best copy: whether the set can be relied on to come back."""
        return best(proof_of(copy.evidence) for copy in self.copies)


@dataclass(frozen=True, kw_only=True)
class BackupSet(ListedSet):
    """A set whose manifest, signature and evidence were read from the stores now.

    Whatever acts on a set takes this one.
    """

    manifest: Manifest

    def without_manifest(self) -> ListedSet:
        """Return what a listing keeps of the set: manifests are large."""
        return ListedSet(
            summary=self.summary,
            manifest_sha256=self.manifest_sha256,
            copies=self.copies,
        )


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A manifest that cannot be used, and why."""

    store: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a set lies in a store, with a slash at its end, and all that lies there."""

    prefix: str
    objects: Sequence[ObjectInfo]

    @property
    def manifest_key(self) -> str:
        """The key of the manifest, whether it exists or not."""
        return self.prefix + MANIFEST_NAME

    @property
    def has_manifest(self) -> bool:
        """Whether a set lies here, or something that cannot be listed and may be one.

        Otherwise it is what an unfinished run left.
        """
        there = {each.key for each in self.objects}
        return not there.isdisjoint((self.manifest_key, self.prefix))


def places_of(store: Store, prefix: str) -> list[Place]:
    """List the places of a store that hold a manifest.

    Raises:
        StoreError: the store cannot be listed.
    """
    places = (
        Place(prefix=place, objects=objects)
        for place, objects in group_by_set(store.list(prefix))
    )
    return [each for each in places if each.has_manifest]


def group_by_set(
    objects: Iterable[ObjectInfo],
) -> list[tuple[str, list[ObjectInfo]]]:
    """Group objects by set; what does not lie where sets lie is left out."""
    groups: dict[str, list[ObjectInfo]] = {}
    for each in objects:
        parts = each.key.split("/")
        if len(parts) > _SET_DEPTH and is_backup_id(parts[_SET_DEPTH - 1]):
            groups.setdefault("/".join(parts[:_SET_DEPTH]) + "/", []).append(each)
    return sorted(groups.items())


def read_set(store: Store, place: Place, trust: Trust) -> BackupSet:
    """Read a set's manifest, the signature that is required, and what lies beside it.

    Raises:
        IntegrityError: the manifest cannot be used, or no trusted key signed it.
        StoreError: the store cannot be read.
    """
    key = place.manifest_key
    for each in place.objects:
        if each.key == key and each.size_bytes > manifests.BYTES_MAX:
            raise manifests.too_large(key)
    content = read_whole(store, key, bytes_max=manifests.BYTES_MAX)
    trust.require(store, key, content)
    manifest = manifests.parse(content, key=key)
    sha256 = hashlib.sha256(content).hexdigest()
    return BackupSet(
        summary=summary_of(manifest),
        manifest=manifest,
        manifest_sha256=sha256,
        copies=(_read_copy(store, place, trust, sha256),),
    )


def _read_copy(store: Store, place: Place, trust: Trust, sha256: str) -> Copy:
    """Read which pins and which evidence beside a set count."""
    evidence: list[EvidenceName] = []
    faults: list[tuple[str, str]] = []
    is_pinned = False
    for each in place.objects:
        name = each.key.removeprefix(place.prefix)
        proof = parse_evidence(name)
        if proof is None and not is_mark(PIN_FOLDER, name):
            continue
        facts = {} if proof is None else {"name": name, "passed": proof.passed}
        fault = trust.fault(store, each.key, manifest_sha256=sha256, **facts)
        if fault and (proof is None or fault != NOT_SIGNED):
            faults.append((each.key, fault))
        elif not fault and proof is None:
            is_pinned = True
        elif not fault and proof is not None:
            evidence.append(proof)
    return Copy(
        store=store,
        evidence=tuple(evidence),
        is_pinned=is_pinned,
        faults=tuple(faults),
    )


def attempt(
    store: Store, place: Place, trust: Trust
) -> tuple[BackupSet | Unreadable | None, bool]:
    """Read a set, or say why not; and whether that holds until its place changes.

    A set that another run has deleted meanwhile is None. What a store did not answer,
    or had listed and then did not find, may be different the next time.
    """
    witness = _Witness(store)
    listed = {each.key for each in place.objects}
    try:
        read = read_set(witness, place, trust)
    except StoreError as error:
        return _unreadable(store, place, error), False
    except IntegrityError as error:
        return _unreadable(store, place, error), not witness.missed & listed
    copies = tuple(replace(copy, store=store) for copy in read.copies)
    return replace(read, copies=copies), not witness.missed & listed


def _unreadable(store: Store, place: Place, error: OpskitError) -> Unreadable | None:
    """Return why a set cannot be used; None for one that does not exist any more."""
    key = place.manifest_key
    with contextlib.suppress(StoreError):
        if not any(each.key == key for each in store.list(key)):
            return None
    return Unreadable(store=store.name, key=key, reason=error.message)


def summary_of(manifest: Manifest) -> Summary:
    """Return what a listing needs of a manifest."""
    return Summary(
        backup_id=manifest.backup_id,
        source=manifest.source,
        started_at=manifest.started_at,
        snapshot_at=manifest.snapshot_at,
        finished_at=manifest.finished_at,
        size_bytes=manifest.size_bytes,
        sudden_changes=manifest.sudden_changes,
    )


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


class _Witness(StoreWrapper):
    """Notes which keys do not exist: what was listed may have been deleted since."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.missed: set[str] = set()

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        try:
            with self._inner.open(key, start) as file:
                yield file
        except ObjectNotFound:
            self.missed.add(key)
            raise
