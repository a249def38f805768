"""Reads a set's objects out of a store: checked, decrypted, unpacked."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar, cast

import zstandard

from opskit.catalog import private
from opskit.catalog.manifest import (
    BYTES_MAX,
    MANIFEST_NAME,
    Manifest,
    StoredObject,
    of_database,
)
from opskit.catalog.sets import BackupSet
from opskit.crypto import age
from opskit.crypto.keys import Identities, NoMatchingIdentity
from opskit.errors import (
    ClientToolError,
    ConfigurationError,
    IntegrityError,
    ObjectNotFound,
    ObjectUnreadable,
    StoreError,
)
from opskit.log import logger
from opskit.postgres import schema
from opskit.postgres.schema import SchemaObject
from opskit.progress import advance
from opskit.store import Store
from opskit.store.base import RawReader, holds, read_whole

T = TypeVar("T")

BLOCK_BYTES = 1024 * 1024
HINT = "Use another set or another store; `invoke verify` shows which sets are whole."
# The only object that must be legible before anything is decrypted.
_GUIDE_ROLE = "guide"
_FRAME_HEADER_BYTES_MAX = 18
_SCHEMA_OBJECTS_MAX = 2_000_000


@dataclass(frozen=True, kw_only=True)
class BadObject:
    """An object that is not what its manifest says."""

    key: str
    reason: str
    missing: bool = False


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """What was read of a set, and what was wrong with it.

    `not_read` is why the store did not give the rest, which may be whole or damaged.
    """

    objects: int
    size_bytes: int
    bad: tuple[BadObject, ...]
    not_read: StoreError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every object was read and is what the manifest says."""
        return not self.bad and self.not_read is None


def verify_set(manifest: Manifest, store: Store) -> VerifyResult:
    """Read all objects of a set in one store.

    An object that is missing or cannot be read is a finding about the set. Findings
    stand, also if the store cannot be reached any more.

    Raises:
        StoreError: the store cannot be reached, and nothing is known to be damaged.
    """
    size_bytes = 0
    bad: list[BadObject] = []
    not_read = None
    for expected in manifest.objects:
        try:
            with checked(store, expected) as blocks:
                for block in blocks:
                    size_bytes += len(block)
        except ObjectNotFound:
            bad.append(BadObject(key=expected.key, reason="missing", missing=True))
        except ObjectUnreadable as error:
            bad.append(
                BadObject(key=expected.key, reason=f"unreadable: {error.message}")
            )
        except IntegrityError as error:
            bad.append(BadObject(key=expected.key, reason=error.message))
        except StoreError as error:
            not_read = error
            if not bad:
                any(store.list(manifest.prefix))  # raises if it is the whole store
            break
    return VerifyResult(
        objects=len(manifest.objects),
        size_bytes=size_bytes,
        bad=tuple(bad),
        not_read=not_read,
    )


def is_gone(store: Store, key: str) -> bool:
    """Return whether another run has deleted an object meanwhile."""
    try:
        return not holds(store, key)
    except StoreError:
        return False  # it is not known, and the result stands


def stored_manifest(store: Store, prefix: str) -> bytes | None:
    """Return the manifest in a set's place, None if there is none.

    Raises:
        IntegrityError: it is larger than a manifest may be.
        StoreError: see `Store.open`.
    """
    try:
        return read_whole(store, prefix + MANIFEST_NAME, bytes_max=BYTES_MAX)
    except ObjectNotFound:
        return None


def require_stored(objects: Iterable[StoredObject], store: Store) -> None:
    """Look at every object of a set once more, before its manifest makes it one.

    Raises:
        StoreError: one of them is missing or of another size, or cannot be looked at.
    """
    for each in objects:
        size_bytes = store.stat(each.key).size_bytes
        if size_bytes != each.size_bytes:
            raise StoreError(
                f"store {store.name} holds {size_bytes} bytes of {each.key} where "
                f"{each.size_bytes} were sent",
                hint="See who else writes to this store, and check its health.",
            )


@contextmanager
def checked(store: Store, expected: StoredObject) -> Iterator[Iterator[bytes]]:
    """Yield an object's blocks; leaving the block checks that they were the right ones.

    The reader must not act on the bytes before it has left the block.

    Raises:
        ObjectNotFound: there is no such object.
        IntegrityError: size or digest is not the manifest's.
    """
    digest = hashlib.sha256()
    size_bytes = 0

    def blocks(file: BinaryIO) -> Iterator[bytes]:
        nonlocal size_bytes
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
            if size_bytes > expected.size_bytes:
                raise IntegrityError(
                    f"more bytes are stored than the {expected.size_bytes} that the "
                    "manifest says"
                )
            advance(len(block))
            yield block

    with store.open(expected.key) as file:
        stream = blocks(file)
        yield stream
        for _ in stream:
            pass  # what a reader did not want is still part of the proof
    if size_bytes != expected.size_bytes:
        raise IntegrityError(
            f"{size_bytes} bytes are stored where the manifest says "
            f"{expected.size_bytes}"
        )
    if digest.hexdigest() != expected.sha256:
        raise IntegrityError(
            f"its SHA-256 is {digest.hexdigest()} where the manifest says "
            f"{expected.sha256}"
        )


@dataclass(frozen=True, kw_only=True)
class SetReader:
    """A set in one store, and the identities that may open it.

    Whatever it reads it checks; `IntegrityError` names an object that is missing or
    not what the manifest says, `NoMatchingIdentity` a set that is for somebody else.
    """

    manifest: Manifest
    store: Store
    identities: Identities | None = field(default=None, repr=False)

    def require_identities(self) -> None:
        """Refuse early what cannot be decrypted here.

        Raises:
            ConfigurationError: the set is encrypted and there is no identity.
        """
        encryption = self.manifest.encryption
        if encryption is not None and self.identities is None:
            raise ConfigurationError(
                f"{self.manifest.backup_id} is encrypted for "
                f"{', '.join(encryption.recipients)}, and no identity is configured",
                hint="Set identity_file in [encryption] to the private key of one of "
                "them; `verify` needs none.",
            )

    def opened(self) -> Manifest:
        """Return the manifest with what only the owner of an identity may know."""
        if self.manifest.encryption is None:
            return self.manifest
        return private.join(
            self.manifest, self._read(self.manifest.object(private.ROLE))
        )

    @contextmanager
    def open_tar(self) -> Iterator[BinaryIO]:
        """Yield the uncompressed archive of a folder; leaving the block checks it."""
        stored, bytes_max = self.manifest.object("files"), self.manifest.dump_bytes
        with self.plain(stored) as blocks, _unpacked(blocks, bytes_max) as stream:
            yield stream

    def read_others(self) -> int:
        """Read every object but the contents, and return how many there are."""
        contents = self.manifest.content_roles
        others = [e for e in self.manifest.objects if e.role not in contents]
        for stored in others:
            with self.plain(stored) as blocks:
                for _ in blocks:
                    pass
        return len(others)

    def read_text(self, role: str) -> str:
        """Return a small text object of the set."""
        content = self._read(self.manifest.object(role))
        return content.decode("utf-8", "surrogateescape")

    def read_schema(self) -> list[SchemaObject]:
        """Return the objects that the source had at the snapshot.

        Raises:
            ClientToolError: another version of opskit wrote them, in another form.
        """
        manifest = of_database(self.manifest)
        stored = manifest.object("schema")
        if manifest.schema_format != schema.FORMAT:
            raise ClientToolError(
                f"{stored.key} is of format {manifest.schema_format}, this opskit "
                f"compares format {schema.FORMAT}",
                hint=f"Drill it with opskit {manifest.tool_version}, which wrote it.",
            )
        content = self._read(stored)
        with _named(stored):
            return _schema_objects(content)

    def _read(self, stored: StoredObject) -> bytes:
        if stored.size_bytes > BYTES_MAX:
            raise IntegrityError(f"{stored.key} is larger than it may be", hint=HINT)
        with self.plain(stored) as blocks:
            return b"".join(blocks)

    @contextmanager
    def plain(self, stored: StoredObject) -> Iterator[Iterable[bytes]]:
        """Yield an object's decrypted blocks; leaving the block checks the stored ones.

        The reader must not act on the bytes before it has left the block.
        """
        self.require_identities()
        encrypted = self.manifest.encryption is not None
        try:
            with _named(stored), checked(self.store, stored) as blocks:
                if encrypted and stored.role != _GUIDE_ROLE and self.identities:
                    # Its thread must not outlive an error of the reader.
                    with closing(age.decrypted(blocks, self.identities)) as plain:
                        yield plain
                        for _ in plain:
                            pass  # what a reader did not want is part of the proof
                else:
                    yield blocks
        except NoMatchingIdentity:
            # A damaged head looks the same: then report the damage.
            self.check(stored)
            raise

    def check(self, stored: StoredObject) -> None:
        """Check an object's stored bytes, which needs no identity."""
        with _named(stored), checked(self.store, stored):
            pass


def with_checksum(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a zstd frame that carries a checksum, as ours all do.

    Raises:
        IntegrityError: it has none, so nothing would show damage of what is unpacked.
        zstandard.ZstdError: it is no zstd frame.
    """
    left = iter(blocks)
    head = b""
    while len(head) < _FRAME_HEADER_BYTES_MAX and (block := next(left, b"")):
        head += block
    if not zstandard.get_frame_parameters(head).has_checksum:
        raise IntegrityError("its zstd frame has no checksum", hint=HINT)
    yield head
    yield from left


def _schema_objects(content: bytes) -> list[SchemaObject]:
    """Unpack the list of a schema's objects, no more of it than fits into memory."""
    with _unpacked([content], BYTES_MAX) as stream:
        text = io.BufferedReader(cast(io.RawIOBase, stream)).read()
    if text.count(b"\n") > _SCHEMA_OBJECTS_MAX:
        raise IntegrityError("it lists too many objects", hint=HINT)
    try:
        return [
            SchemaObject(*json.loads(line))
            for line in text.decode("utf-8", "surrogateescape").split("\n")
            if line
        ]
    except (ValueError, TypeError, RecursionError) as error:
        raise IntegrityError(f"it is no list of objects: {error}", hint=HINT) from error


@contextmanager
def _unpacked(blocks: Iterable[bytes], bytes_max: int) -> Iterator[BinaryIO]:
    """Yield what a zstd frame holds, as a raw file of at most so many bytes."""
    left = bytes_max
    packed = age.BlockReader(with_checksum(blocks))
    with zstandard.ZstdDecompressor().stream_reader(cast(BinaryIO, packed)) as stream:

        def read(count: int) -> bytes:
            nonlocal left
            block = stream.read(count)
            left -= len(block)
            if left < 0:
                raise IntegrityError(
                    "it unpacks to more bytes than the manifest says", hint=HINT
                )
            return block

        yield cast(BinaryIO, RawReader(read))


@contextmanager
def _named(stored: StoredObject) -> Iterator[None]:
    """Name the object in each error about it."""
    try:
        yield
    except (IntegrityError, ObjectNotFound, ObjectUnreadable) as error:
        reason = "it is missing" if isinstance(error, ObjectNotFound) else error.message
        raise IntegrityError(f"{stored.key}: {reason}", hint=HINT) from error
    except zstandard.ZstdError as error:
        raise IntegrityError(
            f"{stored.key} cannot be unpacked: {error}", hint=HINT
        ) from error


def from_first_whole_copy(
    chosen: BackupSet, identities: Identities | None, read: Callable[[SetReader], T]
) -> T:
    """Return what `read` makes of the first store's copy that is whole.

    Raises:
        IntegrityError: none is, or the store could not be read (StoreError).
        ConfigurationError: the set is encrypted and no identity here opens it.
    """
    *_others, last = chosen.stores
    for store in chosen.stores:
        reader = SetReader(manifest=chosen.manifest, store=store, identities=identities)
        reader.require_identities()
        try:
            return read(reader)
        except (IntegrityError, StoreError) as error:
            if store is last:
                raise
            logger().error("trying the next store", failed=error.message)
    raise AssertionError
