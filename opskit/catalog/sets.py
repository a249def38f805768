"""Backup sets as they lie in stores: read from there, or remembered by a cache.

A cache is a file for each store, in the state folder. It is never the truth: an entry
holds as long as the listing shows the same objects in the set's place, and only what
lists sets asks for it. A damaged file counts as none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    TypeAdapter,
)
from pydantic_core import core_schema

from opskit import __version__, files
from opskit.catalog import manifest as manifests
from opskit.catalog.documents import (
    NOT_SIGNED,
    PIN_FOLDER,
    EvidenceName,
    Proof,
    Trust,
    best,
    combined,
    is_mark,
    parse_evidence,
    proof_of,
)
from opskit.catalog.manifest import MANIFEST_NAME, Manifest
from opskit.catalog.places import is_backup_id, set_prefix
from opskit.errors import IntegrityError, ObjectNotFound, OpskitError, StoreError
from opskit.log import logger
from opskit.store import ObjectInfo, Store
from opskit.store.base import read_whole
from opskit.store.wrappers import StoreWrapper

_SET_DEPTH = 3  # source, date, backup id
# To be raised when other manifests are refused, or when a listing says more.
_CACHE_FORMAT = 6
# What reading a damaged cache raises.
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A set as it lies in one store, with what lies beside it there.

    `faults` are the keys of documents that do not count, and why; evidence that is
    merely not signed is not among them.
    """

    # A cache keeps the store's name, and the name of each piece of evidence.
    store: Annotated[
        Store,
        GetPydanticSchema(lambda _type, _handler: core_schema.any_schema()),
        PlainSerializer(lambda store: store.name),
    ]
    evidence: tuple[
        Annotated[
            EvidenceName,
            BeforeValidator(parse_evidence),
            PlainSerializer(lambda evidence: evidence.name()),
        ],
        ...,
    ]
    is_pinned: bool = False
    faults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ListedSet:
    """A set of a listing, maybe from a cache: what it takes to show and to choose it.

    It has no manifest, so that nothing can act on it: `Catalog.find` and
    `Catalog.newest` read the one that was chosen from its stores. `manifest_sha256` is
    of the manifest's own bytes: evidence names it.
    """

    backup_id: str
    source: str
    started_at: AwareDatetime
    snapshot_at: AwareDatetime
    finished_at: AwareDatetime
    size_bytes: int
    sudden_changes: tuple[str, ...] = ()
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    copies: tuple[Copy, ...]

    @property
    def prefix(self) -> str:
        """The set's place in a store, with a slash at its end."""
        return set_prefix(self.source, self.backup_id)

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


_LISTED = [each.name for each in fields(ListedSet)]


@dataclass(frozen=True, kw_only=True)
class BackupSet(ListedSet):
    """A set whose manifest, signature and evidence were read from the stores now.

    Whatever acts on a set takes this one.
    """

    manifest: Manifest

    def without_manifest(self) -> ListedSet:
        """Return what a listing keeps of the set: manifests are large."""
        return ListedSet(**{name: getattr(self, name) for name in _LISTED})


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


def places_of(objects: Iterable[ObjectInfo]) -> list[Place]:
    """Group objects by set; what does not lie where sets lie is left out."""
    groups: dict[str, list[ObjectInfo]] = {}
    for each in objects:
        parts = each.key.split("/")
        if len(parts) > _SET_DEPTH and is_backup_id(parts[_SET_DEPTH - 1]):
            groups.setdefault("/".join(parts[:_SET_DEPTH]) + "/", []).append(each)
    return [
        Place(prefix=prefix, objects=each) for prefix, each in sorted(groups.items())
    ]


def sets_in(store: Store, prefix: str) -> list[Place]:
    """List the places of a store that hold a manifest.

    Raises:
        StoreError: the store cannot be listed.
    """
    return [each for each in places_of(store.list(prefix)) if each.has_manifest]


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
        backup_id=manifest.backup_id,
        source=manifest.source,
        started_at=manifest.started_at,
        snapshot_at=manifest.snapshot_at,
        finished_at=manifest.finished_at,
        size_bytes=manifest.size_bytes,
        sudden_changes=manifest.sudden_changes,
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


class _Witness(StoreWrapper):
    """Notices which keys do not exist: what was listed may have been deleted since."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.missed: set[str] = set()

    @contextlib.contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        try:
            with self.inner.open(key, start) as file:
                yield file
        except ObjectNotFound:
            self.missed.add(key)
            raise


@functools.cache
def _cached() -> TypeAdapter[ListedSet | str]:
    """Return the type of a cache's entries: a set, or why it cannot be used."""
    return TypeAdapter(ListedSet | str)


class CatalogCache:
    """What was seen in one store; read when it is first asked, written by `save`.

    Args:
        folder: where the files lie; made if it is missing.
        store: what identifies this store: its name, its URL.
    """

    def __init__(self, folder: Path, *, store: Iterable[str]) -> None:
        # Another version may understand a manifest in another way.
        self._head = {
            "format": _CACHE_FORMAT,
            "version": __version__,
            "store": [*store],
        }
        digest = hashlib.sha256(json.dumps(self._head["store"]).encode()).hexdigest()
        self._path = folder / f"{digest[:32]}.json"
        self._is_changed = False

    def recall(
        self, store: Store, place: Place, trust: Trust
    ) -> ListedSet | Unreadable | None:
        """Return what was read in a place, unless something in it has changed."""
        try:
            entry = self._entries[place.prefix]
            if entry["seal"] != _seal(place, trust):
                return None
            known = _cached().validate_python(entry["known"])
            if isinstance(known, str):
                return Unreadable(
                    store=store.name, key=place.manifest_key, reason=known
                )
            (copy,) = known.copies
            known.started_at.astimezone(UTC)  # raises if no calendar has it in UTC
            is_here = known.prefix == place.prefix
            return (
                replace(known, copies=(replace(copy, store=store),))
                if is_here
                else None
            )
        except _DAMAGE:
            return None

    def remember(
        self, place: Place, trust: Trust, known: ListedSet | Unreadable
    ) -> None:
        """Keep what was read in a place, if its objects show when they change."""
        if seal := _seal(place, trust):
            entry = known.reason if isinstance(known, Unreadable) else known
            document = _cached().dump_python(entry, mode="json")
            self._entries[place.prefix] = {"seal": seal, "known": document}
            self._is_changed = True

    def drop_others(self, prefix: str, places: Iterable[Place]) -> None:
        """Forget what begins with a prefix and is not among the places."""
        there = {each.prefix for each in places}
        for each in [*self._entries]:
            if each.startswith(prefix) and each not in there:
                del self._entries[each]
                self._is_changed = True

    def save(self) -> None:
        """Write what has changed, if this folder is ours to write to.

        Of two runs that end at once the later one's file stays: the other's news are
        read from the store again.
        """
        if not self._is_changed:
            return
        self._is_changed = False
        text = json.dumps(self._head | {"sets": self._entries}, separators=(",", ":"))
        try:
            if self._may_write():
                files.write_atomically(self._path, [text.encode()])
        except OSError as error:
            logger().debug("the catalog is not cached", reason=error.strerror)

    def _may_write(self) -> bool:
        """Make the folder, and say whether it is ours; a file that is not ours goes."""
        folder = self._path.parent
        with contextlib.suppress(FileNotFoundError):
            if folder.parent.stat().st_uid != os.geteuid():
                return False  # root must leave nothing in the way of its owner
        files.make_directories(folder)
        if not _is_ours(folder):
            return False
        with contextlib.suppress(FileNotFoundError):
            if not _is_ours(self._path):
                self._path.unlink()
        return True

    @functools.cached_property
    def _entries(self) -> dict[str, Any]:
        with contextlib.suppress(*_DAMAGE):
            if _is_ours(self._path.parent) and _is_ours(self._path):
                document = json.loads(self._path.read_bytes())
                sets = document.pop("sets")
                if document == self._head and isinstance(sets, dict):
                    return sets
        return {}


def _is_ours(path: Path) -> bool:
    """Return whether nobody else could have written there."""
    status = path.lstat()
    ours = status.st_uid == os.geteuid() and not stat.S_ISLNK(status.st_mode)
    return ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _seal(place: Place, trust: Trust) -> str:
    """Return a digest of what lies in a place and who is trusted, "" if unknown."""
    if not all(each.etag for each in place.objects):
        return ""
    facts = [
        (each.key, each.size_bytes, each.modified_at.isoformat(), each.etag)
        for each in place.objects
    ]
    text = json.dumps([sorted(trust.keys), facts])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
