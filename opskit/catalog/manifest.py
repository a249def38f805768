"""Manifest: the record of one backup set, which exists exactly when it does."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from opskit.catalog.completeness import untold
from opskit.catalog.file_record import FileRecord
from opskit.catalog.naming import CATCH_ALL, MANIFEST_NAME, set_prefix
from opskit.errors import IntegrityError

# The newest that is read. A set says the oldest that reads it: 2 where several dumps
# make it up, of which an opskit that knows 1 would restore the first alone.
FORMAT_VERSION = 2
ONE_DUMP_VERSION = 1
_RARE = {"via_root", "extension", "condition"}


class _Record(BaseModel):
    # A later version of the same format may add keys; they are not ours to refuse.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Record):
    """One object of the set: its key in the store, and what was stored there."""

    key: str
    role: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StreamRecord(_Record):
    """One of the dumps of a set: the role of its object, and its size before zstd."""

    role: str
    dump_bytes: int = Field(ge=0)


class TableRecord(_Record):
    """What one table holds in the dump's own snapshot.

    `columns` are those that its rows were copied with, in that order; `digest` is
    described in `opskit.postgres.digest`. `via_root` is schema and name of the
    partitioned table that the rows are loaded through, which may send them to another
    partition. `extension` is the one whose table it is, `condition` the SQL by which
    that picks the rows which are not its own and therefore dumped.
    """

    schema_name: str = Field(alias="schema")
    name: str
    rows: int = Field(ge=0)
    digest: str = Field(pattern=r"^[0-9a-f]{32}$")
    columns: tuple[str, ...] = ()
    via_root: tuple[str, str] | None = None
    extension: str | None = None
    condition: str | None = None


class SequenceRecord(_Record):
    """Where the dump sets a sequence, and the extension whose it is, if any."""

    schema_name: str = Field(alias="schema")
    name: str
    last_value: int
    is_called: bool
    extension: str | None = None


class LargeObjectsRecord(_Record):
    """All large objects in the dump."""

    count: int
    size_bytes: int
    digest: str


class Encryption(_Record):
    """How the objects of a set are encrypted, and for whom: public keys."""

    format: Literal["age"]
    recipients: tuple[str, ...]


class SignatureNote(_Record):
    """Who signed the manifest; the signature lies beside it, in `object`."""

    format: Literal["ssh"]
    namespace: str
    public_key: str
    object: str


class Manifest(_Record):
    """See `docs/format.md` for each field."""

    format_version: int
    backup_id: str
    source: str
    kind: Literal["postgres", "files"]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    snapshot: str
    snapshot_at: AwareDatetime
    server_version: str
    client_version: str
    tool_version: str
    encryption: Encryption | None = None
    dump_bytes: int = Field(ge=0)
    streams: tuple[StreamRecord, ...] = ()
    schema_format: int = 1
    objects: tuple[StoredObject, ...]
    tables: tuple[TableRecord, ...]
    sequences: tuple[SequenceRecord, ...]
    large_objects: LargeObjectsRecord
    files: tuple[FileRecord, ...] = ()
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    exclude_files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sudden_changes: tuple[str, ...] = ()
    inventory: dict[str, Any]
    signature: SignatureNote | None = None

    @property
    def prefix(self) -> str:
        """The set's place in a store, with a slash at its end."""
        return set_prefix(self.source, self.started_at, self.backup_id)

    @property
    def size_bytes(self) -> int:
        """The size of all objects."""
        return sum(each.size_bytes for each in self.objects)

    @property
    def dump_bytes_of(self) -> dict[str, int]:
        """The size before zstd of each dump by its role, the catch-all first."""
        if self.streams:
            return {each.role: each.dump_bytes for each in self.streams}
        return {CATCH_ALL: self.dump_bytes} if self.kind == "postgres" else {}

    @property
    def rows(self) -> int:
        """The number of rows in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def server_major(self) -> int:
        """The major version of the server that was dumped."""
        return int(re.split(r"\D", self.server_version, maxsplit=1)[0])

    @property
    def client_major(self) -> int:
        """The major version of the pg_dump that dumped it."""
        return int(re.split(r"\D", self.client_version, maxsplit=1)[0])

    def object(self, role: str) -> StoredObject:
        """Return the object that plays a role in the set.

        Raises:
            IntegrityError: the set has none.
        """
        for each in self.objects:
            if each.role == role:
                return each
        raise IntegrityError(
            f"the manifest of {self.backup_id} names no {role} object",
            hint="The manifest was altered; use another set.",
        )

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        document = self.model_dump(mode="json", by_alias=True)
        for record in (*document["tables"], *document["sequences"]):
            for key in _RARE & record.keys():
                if record[key] is None:
                    del record[key]
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode(
            "utf-8", "surrogateescape"
        )


def parse(content: bytes, *, key: str) -> Manifest:
    """Read a stored manifest.

    Raises:
        IntegrityError: it is not JSON, of a newer format, not complete, or not that of
            the set in whose place it lies.
    """
    try:
        document = json.loads(content.decode("utf-8", "surrogateescape"))
        version = document["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise IntegrityError(
            f"{key} is not a manifest",
            hint="It was altered after it was written; "
            "use another set or another store.",
        ) from None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise IntegrityError(
            f"{key} is of format {version}, newer than this opskit reads "
            f"({FORMAT_VERSION})",
            hint="Update opskit to read this set.",
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise IntegrityError(
            f"{key} is not a complete manifest: {where}: {error.errors()[0]['msg']}",
            hint="It was altered after it was written; "
            "use another set or another store.",
        ) from None
    missing = untold(manifest)
    if missing:
        raise IntegrityError(
            f"{key} is not a complete manifest: {missing[0]}",
            hint="Use another set or another store.",
        )
    if not _is_at_home(manifest, key):
        raise IntegrityError(
            f"{key} is the manifest of another set ({manifest.backup_id})",
            hint="It was moved or altered; use another set or another store.",
        )
    return manifest


def _is_at_home(manifest: Manifest, key: str) -> bool:
    """Return whether the manifest and all that it names lie in the set's own place."""
    try:
        prefix = manifest.prefix
    except OverflowError:  # a date that no calendar has in UTC
        return False
    inside = all(each.key.startswith(prefix) for each in manifest.objects)
    return inside and f"{prefix}{MANIFEST_NAME}" == key
