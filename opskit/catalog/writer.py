"""One stream into every store at once, digested on the way."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from opskit.catalog.manifest import MANIFEST_NAME, StoredObject, parse
from opskit.catalog.places import attempt_in
from opskit.catalog.reader import require_stored, stored_manifest
from opskit.crypto import age
from opskit.crypto.signatures import Signer
from opskit.errors import (
    IntegrityError,
    LockHeld,
    ObjectExists,
    ObjectUnreadable,
    OpskitError,
    StoreError,
)
from opskit.log import logger
from opskit.store import Store
from opskit.store.base import holds
from opskit.threads import Feed

_QUEUED_BLOCKS_MAX = 2
_STALLED_SECONDS_MAX = 900.0


@dataclass(frozen=True, kw_only=True)
class StoredStream:
    """What was stored, and which stores failed."""

    size_bytes: int
    sha256: str
    failed: Mapping[str, StoreError]


class _Writer:
    """Feeds one store's `put` in a thread of its own."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self._key = key
        self._stored_bytes = -1
        self._error: StoreError | None = None
        self._feed = Feed(
            self._store, name=f"store-{store.name}", blocks_max=_QUEUED_BLOCKS_MAX
        )

    @property
    def error(self) -> BaseException | None:
        """Why the store does not hold the object."""
        return self._error or self._feed.error

    def write(self, block: bytes) -> None:
        """Hand on a block; waits for the store, but not without a limit."""
        if self.error is None:
            with self._given_up():
                self._feed.put(block, _STALLED_SECONDS_MAX)

    def finish(self, size_bytes: int) -> None:
        """Wait for the store and compare what it holds with what was sent."""
        if self._error is None:
            with self._given_up():
                self._feed.finish(_STALLED_SECONDS_MAX)
        if self.error is None and self._stored_bytes != size_bytes:
            self._error = StoreError(
                f"store {self.store.name} holds {self._stored_bytes} bytes of "
                f"{self._key} where {size_bytes} were sent",
                hint="Check the store's health.",
            )

    def abandon(self) -> None:
        """Make the store drop what it has of the object."""
        self._feed.abandon(0 if self._error else _STALLED_SECONDS_MAX)

    @contextlib.contextmanager
    def _given_up(self) -> Iterator[None]:
        """Give a store up that takes nothing: later it must not store anything."""
        try:
            yield
        except TimeoutError:
            self._error = StoreError(
                f"store {self.store.name} took nothing for "
                f"{_STALLED_SECONDS_MAX:g} seconds",
                hint="Check the store; the backup went on without it.",
            )
            self.abandon()

    def _store(self, blocks: Iterator[bytes]) -> None:
        self._stored_bytes = self.store.put(self._key, blocks).size_bytes


def put_everywhere(
    stores: Sequence[Store], key: str, chunks: Iterable[bytes]
) -> StoredStream:
    """Store a stream under the same key in every store.

    A store that fails does not hold up the others. If the stream itself raises,
    nothing is stored anywhere and its error comes through.

    Raises:
        StoreError: no store took it.
    """
    if not stores:
        raise StoreError(
            "no store is left to write to",
            hint="The lines above say why each of them failed.",
        )
    digest = hashlib.sha256()
    size_bytes = 0
    writers = [_Writer(store, key) for store in stores]
    try:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += len(chunk)
            for writer in writers:
                writer.write(chunk)
            if all(writer.error is not None for writer in writers):
                break
        for writer in writers:
            writer.finish(size_bytes)
    except BaseException:
        for writer in writers:
            writer.abandon()
        raise
    failed: dict[str, StoreError] = {}
    for writer in writers:
        if isinstance(writer.error, StoreError):
            failed[writer.store.name] = writer.error
        elif writer.error is not None:
            raise writer.error
    if len(failed) == len(writers):
        raise next(iter(failed.values()))
    return StoredStream(size_bytes=size_bytes, sha256=digest.hexdigest(), failed=failed)


@dataclass(frozen=True, kw_only=True)
class Protection:
    """Who can open the set (nobody named: it is not encrypted), and who signs it."""

    recipients: tuple[str, ...] = ()
    signer: Signer | None = field(default=None, repr=False)


@dataclass(kw_only=True)
class SetWriter:
    """One set on its way: its objects so far, and the stores that still take them.

    Several objects may be put at once, from several threads. Where other runs may make
    the same set, each puts all but the manifest into an `attempt` folder of its own.
    `is_set` says that others may have found the set of this one, and rely on it.
    """

    prefix: str
    stores: list[Store]
    protection: Protection
    attempt: str = ""
    is_set: bool = False
    objects: list[StoredObject] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)
    _manifest: bytes | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def place(self) -> str:
        """Where this run puts its objects, with a slash at its end."""
        return self.prefix + self.attempt

    def put(self, name: str, role: str, chunks: Iterable[bytes]) -> None:
        """Store an object of the set, encrypted where the set is.

        Raises:
            StoreError: no store is left that takes it.
        """
        if not self.protection.recipients:
            self.put_open(name, role, chunks)
            return
        # Its thread must not outlive stores that take no more.
        with closing(age.encrypted(chunks, self.protection.recipients)) as encrypted:
            self.put_open(name + age.SUFFIX, role, encrypted)

    def put_open(self, name: str, role: str, chunks: Iterable[bytes]) -> None:
        """Store an object that anybody may read."""
        stored = self._everywhere(name, chunks)
        with self._lock:
            self.objects.append(
                StoredObject(
                    key=self.place + name,
                    role=role,
                    size_bytes=stored.size_bytes,
                    sha256=stored.sha256,
                )
            )

    def leave_out(self, failed: Mapping[str, StoreError]) -> None:
        """Go on without stores that have failed."""
        with self._lock:
            for name, error in failed.items():
                if name not in self.failed:
                    logger().error("a store failed", store=name, error=error.message)
            self.failed |= failed
            self.stores = [e for e in self.stores if e.name not in self.failed]

    def look_again(self) -> None:
        """Leave out every store that does not hold all objects any more."""
        lost: dict[str, StoreError] = {}
        for store in self.stores:
            try:
                require_stored(self.objects, store)
            except StoreError as error:
                lost[store.name] = error
        self.leave_out(lost)
        if lost and not self.stores:
            raise next(iter(lost.values()))

    def put_beside(self, name: str, content: bytes) -> None:
        """Store what is no object of the set itself: a signature."""
        self._everywhere(name, [content])

    def record(self, content: bytes) -> None:
        """Store the manifest: the set exists from now on.

        Runs that make the same set ask the stores one after the other, all in the same
        order: whoever is the first in a store that they share goes on alone.

        Raises:
            LockHeld: another run has made the set.
            StoreError: no store is left that takes it.
        """
        if not self.stores:
            # They may all have been left out since the last object was put.
            raise next(iter(self.failed.values()))
        self._manifest, key = content, self.prefix + MANIFEST_NAME
        if not self.attempt:
            self.leave_out(put_everywhere(self.stores, key, [content]).failed)
            return
        self.is_set = True
        for store in sorted(self.stores, key=lambda each: each.name):
            try:
                put_everywhere([store], key, [content])
            except ObjectExists as error:
                # Ours is there if somebody has copied it from the store before.
                if not self._has_recorded(store):
                    self.is_set = False
                    raise _made_by_another(self.prefix) from error
            except StoreError as error:
                self.leave_out({store.name: error})
                if not self.stores:
                    self.is_set = False
                    raise

    def discard(self, everywhere: Sequence[Store]) -> bool:
        """Remove what this run has stored; return whether every store could do so."""
        clean = True
        for store in everywhere:
            try:
                # Its manifest first: a kill must leave no listed set without objects.
                if not self.attempt or self._has_recorded(store):
                    store.delete(self.prefix + MANIFEST_NAME)
                store.discard(self.place)
            except OpskitError as error:
                clean = False
                logger().error("cannot clean up", store=store.name, error=error.message)
        return clean

    def _has_recorded(self, store: Store) -> bool:
        return (
            self._manifest is not None
            and stored_manifest(store, self.prefix) == self._manifest
        )

    def _everywhere(self, name: str, chunks: Iterable[bytes]) -> StoredStream:
        stored = put_everywhere(self.stores, self.place + name, chunks)
        self.leave_out(stored.failed)
        return stored


def _made_by_another(prefix: str) -> LockHeld:
    return LockHeld(
        f"the set {prefix.split('/')[2]} has been made by another run",
        hint="Nothing is to be done: that set stays, and what this run stored is "
        "removed.",
    )


def is_of_a_set(store: Store, place: str) -> bool:
    """Return whether the objects in a place belong to a set that exists.

    The place is that of a set, or in it the folder of one attempt. What cannot be told
    counts as belonging to one.

    Raises:
        StoreError: the store cannot be asked.
    """
    attempt = attempt_in(place.split("/", 3)[3])
    prefix = place.removesuffix(attempt)
    if not attempt:
        return holds(store, prefix + MANIFEST_NAME)
    try:
        content = stored_manifest(store, prefix)
        if content is None:
            return False
        return parse(content, key=prefix + MANIFEST_NAME).attempt == attempt
    except (IntegrityError, ObjectUnreadable):
        return True
