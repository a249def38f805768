"""Header and table of contents of pg_dump's custom archive format.

The layout is PostgreSQL's own, as its sources read it (`src/bin/pg_dump/
pg_backup_archiver.c`, `ReadHead` and `ReadToc`, and `pg_backup_custom.c`): versions
1.14 (PostgreSQL 12 to 15), 1.15 (16) and 1.16 (17 and 18).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import ArchiveError
from opskit.postgres.encodings import python_codec
from opskit.postgres.toc_entry import TocEntry

MAGIC = b"PGDMP"
_OLDEST, _COMPRESSION_BYTE, _RELATION_KIND, _NEWEST = (1, 14), (1, 15), (1, 16), (1, 16)
_CUSTOM_FORMAT = 1
_INTEGER = struct.Struct("<BI")  # a sign, and a magnitude
_INTEGER_BYTES = 4
_OFFSET_BYTES = 8
_OFFSET_KNOWN, _NO_DATA = 2, 3
_HEAD_BYTES = 1024 * 1024


class NeedMore(Exception):
    """The bytes at hand end before the table of contents does.

    `needed_bytes` is a guess, by the entries that have come, of how many it has; 0 is
    none.
    """

    needed_bytes = 0


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The head of an archive; `data_offset` is where the first data block begins.

    `places` says by dump id where in the head stands what `place` packs.
    """

    version: tuple[int, int]
    database: str
    server_version: str
    client_version: str
    codec: str
    entries: tuple[TocEntry, ...]
    data_offset: int
    places: Mapping[int, int]


class _Cursor:
    """Reads one thing after the other; tens of thousands of entries have many."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        stop = self.position + length
        if stop > len(self.data):
            raise NeedMore
        piece = self.data[self.position : stop]
        self.position = stop
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        try:
            sign, value = _INTEGER.unpack_from(self.data, self.position)
        except struct.error:
            raise NeedMore from None
        self.position += _INTEGER.size
        return -int(value) if sign else int(value)

    def text(self) -> bytes | None:
        length = self.integer()
        return None if length < 0 else self.take(length)


def read(path: Path) -> Contents:
    """Return the contents of an archive in a file, reading no more than its head.

    Raises:
        ArchiveError: it is no whole archive of a known version.
    """
    head = bytearray()
    with path.open("rb") as file:
        while block := file.read(max(_HEAD_BYTES, len(head))):
            head += block
            try:
                return parse(head)
            except NeedMore:
                continue
    raise ArchiveError(f"{path.name} ends within its table of contents")


def parse(data: bytes | bytearray) -> Contents:
    """Read the head of an archive from its first bytes.

    Raises:
        NeedMore: the head does not end within `data`.
        ArchiveError: this is no uncompressed custom-format archive of a known version.
    """
    cursor = _Cursor(bytes(data))
    try:
        return _parse(cursor)
    except (ValueError, LookupError) as error:
        raise ArchiveError(
            f"the archive's table of contents is damaged: {error}",
            hint="Run the backup again; if it fails again, check the machine's memory.",
        ) from error


def _parse(cursor: _Cursor) -> Contents:
    version = _read_format(cursor)
    for _ in range(7):  # seconds to daylight saving of the creation time
        cursor.integer()
    database, server_version, client_version = (cursor.text() or b"" for _ in range(3))
    count = cursor.integer()
    raw = _read_entries(cursor, version, count)
    codec = _codec(raw)
    return Contents(
        version=version,
        database=database.decode(codec, "surrogateescape"),
        server_version=server_version.decode("ascii", "replace"),
        client_version=client_version.decode("ascii", "replace"),
        codec=codec,
        entries=tuple(_decode(entry, codec) for entry in raw),
        data_offset=cursor.position,
        places={entry.numbers[0]: entry.place for entry in raw if entry.numbers[1]},
    )


def place(offset: int) -> bytes:
    """Return what the head says of data that begins at an offset in the file."""
    return bytes([_OFFSET_KNOWN]) + offset.to_bytes(_OFFSET_BYTES, "little")


def _read_format(cursor: _Cursor) -> tuple[int, int]:
    if cursor.take(len(MAGIC)) != MAGIC:
        raise ArchiveError(
            "the stream does not begin with the mark of a custom-format archive",
            hint="Something other than pg_dump wrote to the pipe; see its messages.",
        )
    major, minor, _revision = cursor.byte(), cursor.byte(), cursor.byte()
    version = (major, minor)
    if not _OLDEST <= version <= _NEWEST:
        raise ArchiveError(
            f"archive format {major}.{minor} is not known to this opskit "
            f"(it reads {_OLDEST[0]}.{_OLDEST[1]} to {_NEWEST[0]}.{_NEWEST[1]})",
            hint="Update opskit, or use the pg_dump of PostgreSQL 15 to 18.",
        )
    sizes = (cursor.byte(), cursor.byte())
    archive_format = cursor.byte()
    compression = cursor.byte() if version >= _COMPRESSION_BYTE else cursor.integer()
    if sizes != (_INTEGER_BYTES, _OFFSET_BYTES) or archive_format != _CUSTOM_FORMAT:
        raise ArchiveError(
            "the archive is not in the custom format of a 64-bit pg_dump"
        )
    if compression:
        raise ArchiveError("the archive is compressed by pg_dump itself")
    return version


@dataclass(frozen=True)
class _RawEntry:
    numbers: tuple[int, bool]
    texts: dict[str, bytes]
    dependencies: tuple[int, ...]
    place: int


def _read_entries(
    cursor: _Cursor, version: tuple[int, int], count: int
) -> list[_RawEntry]:
    entries = []
    start = cursor.position
    try:
        for _ in range(count):
            entries.append(_read_entry(cursor, version))
    except NeedMore as need:
        if entries:
            read_bytes = cursor.position - start
            need.needed_bytes = start + read_bytes * count // len(entries)
        raise
    return entries


def _read_entry(cursor: _Cursor, version: tuple[int, int]) -> _RawEntry:
    dump_id = cursor.integer()
    cursor.integer()  # whether pg_dump had data for it; the state below says the same
    texts: dict[str, bytes] = {}
    for field in ("tableoid", "oid", "tag", "desc"):
        texts[field] = cursor.text() or b""
    cursor.integer()  # section
    for field in ("defn", "drop", "copy", "namespace", "tablespace", "tableam"):
        texts[field] = cursor.text() or b""
    if version >= _RELATION_KIND:
        cursor.integer()
    texts["owner"] = cursor.text() or b""
    cursor.text()  # WITH OIDS, a relic
    dependencies = []
    while (dependency := cursor.text()) is not None:
        dependencies.append(int(dependency))
    place = cursor.position
    state = cursor.byte()
    cursor.take(_OFFSET_BYTES)
    return _RawEntry((dump_id, state != _NO_DATA), texts, tuple(dependencies), place)


def _codec(entries: list[_RawEntry]) -> str:
    for entry in entries:
        if entry.texts["desc"] == b"ENCODING":
            found = re.search(rb"'([^']+)'", entry.texts["defn"])
            if found:
                return python_codec(found[1].decode("ascii"))
    raise ArchiveError("the archive does not name its encoding")


def _decode(entry: _RawEntry, codec: str) -> TocEntry:
    def text(field: str) -> str:
        return entry.texts[field].decode(codec, "surrogateescape")

    return TocEntry(
        dump_id=entry.numbers[0],
        kind=text("desc"),
        schema=text("namespace"),
        name=text("tag"),
        owner=text("owner"),
        definition=text("defn"),
        copy_statement=text("copy"),
        dependencies=entry.dependencies,
        has_data=entry.numbers[1],
        tablespace=text("tablespace"),
        access_method=text("tableam"),
    )
