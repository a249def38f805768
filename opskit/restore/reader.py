"""Reads a set's objects out of a store: checked, decrypted, unpacked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from opskit.catalog import sealing
from opskit.catalog.manifest import Manifest, StoredObject
from opskit.catalog.verify import checked
from opskit.crypto import age
from opskit.crypto.identities import Identities, NoMatchingIdentity
from opskit.errors import (
    ClientToolError,
    ConfigurationError,
    IntegrityError,
    ObjectNotFound,
)
from opskit.postgres import schema
from opskit.postgres.schema import SchemaObject
from opskit.store import Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

HINT = "Use another set or another store; `invoke verify` tells which sets are whole."
# The only object that must be legible before anything is decrypted.
_GUIDE_ROLE = "guide"


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
        private = self._read(self.manifest.object(sealing.ROLE))
        return sealing.opened(self.manifest, private)

    @contextmanager
    def open_tar(self) -> Iterator[BinaryIO]:
        """Yield the uncompressed archive of a folder; leaving the block checks it."""
        with self.plain(self.manifest.object("files")) as blocks:
            raw = io.BufferedReader(_Blocks(blocks))
            with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                yield cast(BinaryIO, stream)

    def read_others(self) -> int:
        """Read every object but the contents, and return how many there are."""
        contents = {"files", *self.manifest.dump_bytes_of}
        others = [e for e in self.manifest.objects if e.role not in contents]
        for stored in others:
            self._read(stored)
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
        manifest = self.manifest
        stored = manifest.object("schema")
        if manifest.schema_format != schema.FORMAT:
            raise ClientToolError(
                f"{stored.key} is of format {manifest.schema_format}, this opskit "
                f"compares format {schema.FORMAT}",
                hint=f"Drill it with opskit {manifest.tool_version}, which wrote it.",
            )
        content = self._read(stored)
        with _named(stored):
            lines = zstandard.ZstdDecompressor().decompressobj().decompress(content)
            text = lines.decode("utf-8", "surrogateescape")
            return [
                SchemaObject(*json.loads(line)) for line in text.split("\n") if line
            ]

    def _read(self, stored: StoredObject) -> bytes:
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
                    # Its thread must not outlive an error of whoever reads.
                    with closing(age.decrypted(blocks, self.identities)) as plain:
                        yield plain
                        for _ in plain:
                            pass  # what a reader did not want is part of the proof
                else:
                    yield blocks
        except NoMatchingIdentity:
            # A damaged head looks the same; then the damage is what has to be told.
            self.check(stored)
            raise

    def check(self, stored: StoredObject) -> None:
        """Read an object's stored bytes, which nobody needs an identity for."""
        with _named(stored), checked(self.store, stored):
            pass


class _Blocks(io.RawIOBase):
    """Blocks as a file."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer)
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size_bytes = min(len(target), len(self._rest))
        target[:size_bytes] = self._rest[:size_bytes]
        self._rest = self._rest[size_bytes:]
        return size_bytes


@contextmanager
def _named(stored: StoredObject) -> Iterator[None]:
    """Say of every finding which object it is about."""
    try:
        yield
    except (IntegrityError, ObjectNotFound) as error:
        reason = "it is missing" if isinstance(error, ObjectNotFound) else error.message
        raise IntegrityError(f"{stored.key}: {reason}", hint=HINT) from error
    except zstandard.ZstdError as error:
        raise IntegrityError(
            f"{stored.key} cannot be unpacked: {error}", hint=HINT
        ) from error
