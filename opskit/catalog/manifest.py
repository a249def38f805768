"""Manifest: the record of one backup set, which exists exactly when it does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_serializer,
)

from opskit.catalog.file_record import Amount, FileRecord, Integer
from opskit.catalog.places import attempt_in, set_prefix
from opskit.errors import IntegrityError, StoreError
from opskit.postgres.inventory import Inventory
from opskit.store.base import check_key

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
# Roles of the dumps of a database: of everything else, and of rows alone (numbered).
CATCH_ALL = "dump"
ROWS = "rows-"
# A set names the oldest version that can read it. An opskit that knows only version 1
# would restore the first of several dumps alone. Before version 3, an encrypted set had
# its digests in the manifest, covered. Before version 4, all objects of a set lay
# directly in its place, and its id had the time of `started_at`.
ONE_DUMP_VERSION = 1
STREAMS_VERSION = 2
PRIVATE_DIGESTS_VERSION = 3
DUE_VERSION = 4
FORMAT_VERSION = DUE_VERSION  # the newest that is read
# The largest manifest, or any other object, that is read into memory as a whole.
BYTES_MAX = 256 * 1024 * 1024
# Parsed, each value takes many times the room of its text.
_RECORDS_MAX = 1_200_000
_VALUES_MAX = 16_000_000
_RARE = {"via_root", "extension", "condition", "digest"}


def _written_as_text(value: object) -> object:
    """Refuse numbers, which could stand for a time as well."""
    if isinstance(value, datetime) or (isinstance(value, str) and "-" in value[1:]):
        return value
    raise ValueError("must be a time in the form of RFC 3339")


Time = Annotated[AwareDatetime, BeforeValidator(_written_as_text)]


class _Record(BaseModel):
    # A later version of the same format may add keys.
    model_config = ConfigDict(frozen=True, extra="ignore")


class StoredObject(_Record):
    """One object of the set: its key in the store, and what was stored there."""

    key: str
    role: str
    size_bytes: Amount
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StreamRecord(_Record):
    """One of the dumps of a set: the role of its object, and its size before zstd."""

    role: str
    dump_bytes: Amount


class TableRecord(_Record):
    """What one table holds in the dump's own snapshot.

    `columns` are those that its rows were copied with, in that order; `digest` is
    described in `opskit.postgres.archive.digest`, and empty where `private.json` has
    it. `via_root` is schema and name of the partitioned table that the rows are loaded
    through, which may send them to another partition. `extension` is the one whose
    table it is, `condition` the SQL by which that picks the rows which are not its own
    and therefore dumped.
    """

    schema_name: str = Field(alias="schema")
    name: str
    rows: Amount
    digest: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")
    columns: tuple[str, ...] = ()
    via_root: tuple[str, str] | None = None
    extension: str | None = None
    condition: str | None = None


class SequenceRecord(_Record):
    """The value that the dump sets, and the extension that owns the sequence."""

    schema_name: str = Field(alias="schema")
    name: str
    last_value: Integer
    is_called: StrictBool
    extension: str | None = None


class LargeObjectsRecord(_Record):
    """All large objects in the dump."""

    count: Amount
    size_bytes: Amount
    digest: str = ""


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


class FolderInventory(_Record):
    """Where the folder was."""

    path: str = ""


class _Manifest(_Record):
    """What the manifests of both kinds have; see `docs/format.md` for each field."""

    format_version: Annotated[int, Field(strict=True, ge=1)]
    backup_id: str
    source: str
    started_at: Time
    finished_at: Time
    snapshot_at: Time
    tool_version: str
    encryption: Encryption | None = None
    dump_bytes: Amount
    objects: tuple[StoredObject, ...]
    warnings: tuple[str, ...] = ()
    sudden_changes: tuple[str, ...] = ()
    signature: SignatureNote | None = None

    @property
    def prefix(self) -> str:
        """The set's place in a store, with a slash at its end."""
        return set_prefix(self.source, self.backup_id)

    @property
    def attempt(self) -> str:
        """The folder in the set's place that its objects lie in, or ""."""
        return attempt_in(self.objects[0].key.removeprefix(self.prefix))

    @property
    def hides_digests(self) -> bool:
        """Whether the digests are in `private.json`."""
        return self.encryption is not None and (
            self.format_version >= PRIVATE_DIGESTS_VERSION
        )

    @property
    def size_bytes(self) -> int:
        """The size of all objects."""
        return sum(each.size_bytes for each in self.objects)

    @property
    def content_roles(self) -> tuple[str, ...]:
        """The roles of the dumps, the catch-all first, or of the archive."""
        raise NotImplementedError

    def faults(self) -> list[str]:
        """Return what is missing or contradicts itself; nothing if it is complete."""
        needed = [*self.content_roles, *(["private"] if self.encryption else [])]
        held = {each.role for each in self.objects}
        faults = [f"it names no {role} object" for role in needed if role not in held]
        if self.format_version == PRIVATE_DIGESTS_VERSION and not self.encryption:
            faults.append("it is not encrypted, as sets of its format are")
        return faults

    def object(self, role: str) -> StoredObject:
        """Return the object that plays a role in the set.

        Raises:
            IntegrityError: the set has none.
        """
        for each in self.objects:
            if each.role == role:
                return each
        raise _altered(f"the manifest of {self.backup_id} names no {role} object")

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        held = _OF_OTHERS | self.model_dump(mode="json", by_alias=True)
        document = {name: held[name] for name in _ORDER}
        records = (*document["tables"], *document["sequences"])
        for record in (*records, document["large_objects"]):
            for key in _RARE & record.keys():
                if not record[key]:
                    del record[key]
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode(
            "utf-8", "surrogateescape"
        )


class DatabaseManifest(_Manifest):
    """The record of a database."""

    kind: Literal["postgres"]
    snapshot: str
    server_version: str
    client_version: str
    streams: tuple[StreamRecord, ...] = ()
    schema_format: Amount = 1
    tables: tuple[TableRecord, ...]
    sequences: tuple[SequenceRecord, ...]
    large_objects: LargeObjectsRecord
    exclude_tables: tuple[str, ...] = ()
    exclude_table_data: tuple[str, ...] = ()
    inventory: Inventory

    @field_serializer("inventory")
    def _as_recorded(self, inventory: Inventory) -> dict[str, Any]:
        return inventory.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many tables, rows and files there are."""
        return {"tables": len(self.tables), "rows": self.rows, "files": 0}

    @property
    def content_roles(self) -> tuple[str, ...]:
        return tuple(self.dump_bytes_of)

    @property
    def dump_bytes_of(self) -> dict[str, int]:
        """The size before zstd of each dump by its role, the catch-all first."""
        if self.streams:
            return {each.role: each.dump_bytes for each in self.streams}
        return {CATCH_ALL: self.dump_bytes}

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

    def faults(self) -> list[str]:
        faults = super().faults()
        held = {each.role for each in self.objects}
        dumps = {role for role in held if role == CATCH_ALL or role.startswith(ROWS)}
        if self.content_roles[0] != CATCH_ALL or dumps != {*self.content_roles}:
            faults.append("its streams are not the dumps among its objects")
        if not self.hides_digests:
            bare = [f"table {each.name}" for each in self.tables if not each.digest]
            if not self.large_objects.digest:
                bare.append("large objects")
            faults += [f"it has no digest of {name}" for name in bare]
        for name in ("server_version", "client_version"):
            if not re.match(r"\d", getattr(self, name)):
                faults.append(f"{name} does not begin with a number")
        return faults + [
            f"inventory.{name} is missing"
            for name in ("database", "size_bytes", "locale", "roles", "extensions")
            if name not in self.inventory.model_fields_set
        ]


class FolderManifest(_Manifest):
    """The record of a folder."""

    kind: Literal["files"]
    files: tuple[FileRecord, ...] = ()
    exclude_files: tuple[str, ...] = ()
    inventory: FolderInventory

    @property
    def counts(self) -> dict[str, int]:
        return {"tables": 0, "rows": 0, "files": len(self.files)}

    @property
    def content_roles(self) -> tuple[str, ...]:
        return ("files",)


# The record of one backup set, of a database or of a folder.
Manifest = DatabaseManifest | FolderManifest
_KINDS: dict[str, type[Manifest]] = {
    "postgres": DatabaseManifest,
    "files": FolderManifest,
}
# Every field in the order of the stored document,
_ORDER = (
    "format_version", "backup_id", "source", "kind", "started_at", "finished_at",
    "snapshot", "snapshot_at", "server_version", "client_version", "tool_version",
    "encryption", "dump_bytes", "streams", "schema_format", "objects", "tables",
    "sequences", "large_objects", "files", "exclude_tables", "exclude_table_data",
    "exclude_files", "warnings", "sudden_changes", "inventory", "signature",
)  # fmt: skip
# and what a manifest of the other kind stores there.
_OF_OTHERS: dict[str, Any] = {
    **dict.fromkeys(("snapshot", "server_version", "client_version"), ""),
    **dict.fromkeys(("streams", "tables", "sequences", "files"), ()),
    **dict.fromkeys(("exclude_tables", "exclude_table_data", "exclude_files"), ()),
    "schema_format": 1,
    "large_objects": {"count": 0, "size_bytes": 0, "digest": "0" * 32},
}


def of_database(manifest: Manifest) -> DatabaseManifest:
    """Return the manifest of a set that is known to be one of a database."""
    assert isinstance(manifest, DatabaseManifest), manifest.backup_id
    return manifest


def of_folder(manifest: Manifest) -> FolderManifest:
    """Return the manifest of a set that is known to be one of a folder."""
    assert isinstance(manifest, FolderManifest), manifest.backup_id
    return manifest


def parse(content: bytes, *, key: str) -> Manifest:
    """Read a stored manifest.

    Raises:
        IntegrityError: it is not JSON, of a newer format, not complete, or not that of
            the set in whose place it lies.
    """
    if not is_bounded(content):
        raise too_large(key)
    try:
        document = json.loads(
            content.decode("utf-8", "surrogateescape"), parse_constant=_no_number
        )
        version = document["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _altered(f"{key} is not a manifest") from None
    if type(version) is int and version > FORMAT_VERSION:
        raise IntegrityError(
            f"{key} is of format {version}, newer than this opskit reads "
            f"({FORMAT_VERSION})",
            hint="Update opskit to read this set.",
        )
    try:
        manifest = from_document(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _altered(
            f"{key} is not a complete manifest: {where}: {error.errors()[0]['msg']}"
        ) from None
    if faults := manifest.faults():
        raise _altered(f"{key} is not a complete manifest: {faults[0]}")
    _require_keys_of_its_own(manifest, key)
    return manifest


def from_document(document: Mapping[str, Any]) -> Manifest:
    """Return the manifest of either kind with these fields.

    Raises:
        ValidationError: they are not those of a manifest.
    """
    kind = document.get("kind")
    model = _KINDS.get(kind if isinstance(kind, str) else "", DatabaseManifest)
    return model.model_validate(document)


def is_bounded(content: bytes) -> bool:
    """Return whether a manifest can be parsed in bounded memory."""
    records = content.count(b"{")
    values = records + content.count(b"[") + content.count(b",")
    is_few = records <= _RECORDS_MAX and values <= _VALUES_MAX
    return is_few and len(content) <= BYTES_MAX


def too_large(key: str) -> IntegrityError:
    """Return the error of a manifest that is not even parsed."""
    return _altered(
        f"{key} is larger than a manifest may be ({BYTES_MAX // 2**20} MiB and "
        f"{_RECORDS_MAX} tables, sequences and files)"
    )


def _altered(message: str) -> IntegrityError:
    return IntegrityError(
        message,
        hint="It was moved or altered after it was written; use another set or another "
        "store.",
    )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _require_keys_of_its_own(manifest: Manifest, key: str) -> None:
    """Require that the manifest and all that it names lie in the set's own place.

    Raises:
        IntegrityError: they do not, or a name could mean another place.
    """
    prefix = manifest.prefix
    try:
        day = f"/{manifest.started_at.astimezone(UTC):%Y-%m-%d}/"
    except OverflowError:  # a date that no calendar has in UTC
        prefix = day = ""
    if manifest.format_version < DUE_VERSION and day not in prefix:
        prefix = ""
    if f"{prefix}{MANIFEST_NAME}" != key:
        raise _altered(f"{key} is the manifest of another set ({manifest.backup_id})")
    named = [each.key for each in manifest.objects]
    if manifest.signature is not None:
        named.append(manifest.signature.object)
    for each in named:
        is_own = each.startswith(prefix) and each != key and each.isprintable()
        try:
            check_key(each)
        except StoreError:
            is_own = False
        if not is_own:
            raise _altered(f"{key} names an object outside of its set: {each!r}")
    for several in (named, [each.role for each in manifest.objects]):
        if len({*several}) < len(several):
            raise _altered(f"{key} names the same object twice")
