"""Header and table of contents of pg_dump's custom archive format.

The layout is PostgreSQL's own, as its sources read it (`src/bin/pg_dump/
pg_backup_archiver.c`, `ReadHead` and `ReadToc`, and `pg_backup_custom.c`): versions
1.14 (PostgreSQL 12 to 15), 1.15 (16) and 1.16 (17 and 18).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opskit.errors import ArchiveError
from opskit.postgres.archive.entry import ABOUT_OBJECTS, TocEntry
from opskit.postgres.content import python_codec

INTEGER = struct.Struct("<BI")  # a sign, and a magnitude


class NeedMore(Exception):
    """The head does not end within the bytes; `needed_bytes` is a guess, or 0."""

    needed_bytes = 0


class Cursor:
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
            value = read_integer(self.data, self.position)
        except struct.error:
            raise NeedMore from None
        self.position += INTEGER.size
        return value

    def text(self) -> bytes | None:
        length = self.integer()
        return None if length < 0 else self.take(length)


def read_integer(data: bytes, position: int) -> int:
    """Return the number that stands at a position; struct.error if it is cut."""
    sign, value = INTEGER.unpack_from(data, position)
    return -int(value) if sign else int(value)


def integer(value: int) -> bytes:
    """Return a number as it stands in an archive."""
    return INTEGER.pack(value < 0, abs(value))


def text(value: bytes | None) -> bytes:
    """Return a text as it stands in an archive."""
    return integer(-1) if value is None else integer(len(value)) + value


MAGIC = b"PGDMP"
_OLDEST, _COMPRESSION_BYTE, _RELATION_KIND, _NEWEST = (1, 14), (1, 15), (1, 16), (1, 16)
_CUSTOM_FORMAT = 1
_INTEGER_BYTES = 4
_OFFSET_BYTES = 8
_OFFSET_KNOWN, _NO_DATA = 2, 3
_POST_DATA = 4
_HEAD_BYTES = 1024 * 1024
# Texts of an entry in their order, by `TocEntry`'s names; "" is not kept.
_NAMES = ("", "", "name", "kind")
_TEXTS = ("definition", "", "copy_statement", "schema", "tablespace", "access_method")


@dataclass(frozen=True, kw_only=True, slots=True)
class EntrySpan:
    """Where one entry stands in the head; `place` is what the function packs."""

    start: int
    dependencies: int
    place: int

    @property
    def stop(self) -> int:
        """Where the next entry begins."""
        return self.place + 1 + _OFFSET_BYTES


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the head has entries with data, by dump id, and the number of entries.

    `post_data_at` is the first entry that must come after all data, or the head's end.
    """

    spans: Mapping[int, EntrySpan]
    count_at: int
    post_data_at: int


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The head of an archive; `data_offset` is where the first data block begins."""

    version: tuple[int, int]
    database: str
    server_version: str
    client_version: str
    codec: str
    entries: tuple[TocEntry, ...]
    data_offset: int
    layout: Layout


def read(path: Path) -> Contents:
    """Return the head of an archive in a file; ArchiveError if that is not whole."""
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
    """Read the head of an uncompressed custom-format archive from its first bytes.

    Raises:
        NeedMore: the head does not end within `data`.
        ArchiveError: this is none of a known version.
    """
    cursor = Cursor(bytes(data))
    try:
        return _parse(cursor)
    except (ValueError, LookupError) as error:
        raise ArchiveError(
            f"the archive's table of contents is damaged: {error}",
            hint="Run the backup again; if it fails again, check the machine's memory.",
        ) from error


def _parse(cursor: Cursor) -> Contents:
    version = _read_format(cursor)
    for _ in range(7):  # seconds to daylight saving of the creation time
        cursor.integer()
    database, server_version, client_version = (cursor.text() or b"" for _ in range(3))
    count_at = cursor.position
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
        layout=Layout(
            spans={e.fields["dump_id"]: e.span for e in raw if e.fields["has_data"]},
            count_at=count_at,
            post_data_at=next(
                (each.span.start for each in raw if each.section == _POST_DATA),
                cursor.position,
            ),
        ),
    )


def place(offset: int) -> bytes:
    """Return what the head says of data that begins at an offset in the file."""
    return bytes([_OFFSET_KNOWN]) + offset.to_bytes(_OFFSET_BYTES, "little")


def _read_format(cursor: Cursor) -> tuple[int, int]:
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
    """An entry whose texts wait for their encoding."""

    fields: dict[str, Any]
    section: int
    span: EntrySpan


def _read_entries(
    cursor: Cursor, version: tuple[int, int], count: int
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


def _read_entry(cursor: Cursor, version: tuple[int, int]) -> _RawEntry:
    start = cursor.position
    fields: dict[str, Any] = {"dump_id": cursor.integer()}
    cursor.integer()  # whether pg_dump had data for it; the state below says the same
    for name in _NAMES:
        fields[name] = cursor.text() or b""
    section = cursor.integer()
    for name in _TEXTS:
        fields[name] = cursor.text() or b""
    if version >= _RELATION_KIND:
        cursor.integer()
    fields["owner"] = cursor.text() or b""
    cursor.text()  # WITH OIDS, a relic
    dependencies_at = cursor.position
    dependencies = []
    while (dependency := cursor.text()) is not None:
        dependencies.append(int(dependency))
    place_at = cursor.position
    fields |= {
        "dependencies": tuple(dependencies),
        "has_data": cursor.byte() != _NO_DATA,
    }
    cursor.take(_OFFSET_BYTES)
    del fields[""]
    span = EntrySpan(start=start, dependencies=dependencies_at, place=place_at)
    return _RawEntry(fields, section, span)


def _codec(entries: list[_RawEntry]) -> str:
    for entry in entries:
        if entry.fields["kind"] == b"ENCODING":
            encoding = re.search(rb"'([^']+)'", entry.fields["definition"])
            if encoding:
                return python_codec(encoding[1].decode("ascii"))
    raise ArchiveError("the archive does not name its encoding")


def _decode(entry: _RawEntry, codec: str) -> TocEntry:
    def decoded(value: Any) -> Any:
        is_text = isinstance(value, bytes)
        return value.decode(codec, "surrogateescape") if is_text else value

    fields = {name: decoded(each) for name, each in entry.fields.items()}
    after = entry.section == _POST_DATA or fields["kind"] in ABOUT_OBJECTS
    return TocEntry(**fields, after_data=after)


_NOT_VALID = re.compile(r" NOT VALID;?\s*\Z")


def not_validated(entries: Iterable[TocEntry]) -> set[int]:
    """Return the dump ids of constraints that rows may break.

    They have to wait for all rows, of other tables too, but depend on none of them, so
    that another job may make them before the rows are in.
    """
    return {
        entry.dump_id
        for entry in entries
        if "CONSTRAINT" in entry.kind
        and (entry.kind == "CHECK CONSTRAINT" or _NOT_VALID.search(entry.definition))
    }


def of_kind(entries: Iterable[TocEntry], *kinds: str) -> set[int]:
    """Return the dump ids of the entries of these kinds."""
    return {entry.dump_id for entry in entries if entry.kind in kinds}


def reads_elsewhere(entries: Sequence[TocEntry]) -> set[int]:
    """Return the dump ids of the refreshes of views that read foreign tables."""
    foreign = of_kind(entries, "FOREIGN TABLE")
    refreshes = of_kind(entries, "MATERIALIZED VIEW DATA")
    return refreshes & with_dependents(entries, foreign) if foreign else set()


def dependents(entries: Sequence[TocEntry], chosen: Iterable[int]) -> set[int]:
    """Return the dump ids of all that needs one of those chosen, themselves aside."""
    wanted = set(chosen)
    direct = {
        entry.dump_id for entry in entries if wanted.intersection(entry.dependencies)
    }
    return with_dependents(entries, direct)


def with_dependents(entries: Sequence[TocEntry], chosen: Iterable[int]) -> set[int]:
    """Return the dump ids chosen, and of all that needs them: comments, say."""
    needed = set(chosen)
    while added := {
        entry.dump_id
        for entry in entries
        if entry.dump_id not in needed and needed.intersection(entry.dependencies)
    }:
        needed |= added
    return needed


CUT_SHORT = "the archive ends before its proper end"


# From one try to the next: enough to be worth it, and no more than may be held for
# nothing where the guess was wrong.
_GROWTH = (1.25, 8)


class HeadReader:
    """Fed until the head has come as a whole."""

    def __init__(self) -> None:
        self._contents: Contents | None = None
        self._bytes = bytearray()
        self._target = 1

    @property
    def is_done(self) -> bool:
        """Whether the head has come by as a whole."""
        return self._contents is not None

    @property
    def contents(self) -> Contents:
        """The head; ArchiveError as long as it is not complete."""
        if self._contents is None:
            raise ArchiveError(CUT_SHORT)
        return self._contents

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those behind the head's end; or ArchiveError.

        Reading starts over each time a good part more has come, so that even a head of
        many megabytes costs only a small multiple of its size.
        """
        self._bytes += data
        return self._read() if len(self._bytes) >= self._target else b""

    def close(self) -> bytes:
        """Read what has come if that was not yet done; returns what `feed` does."""
        return b"" if self.is_done else self._read()

    def _read(self) -> bytes:
        try:
            self._contents = parse(self._bytes)
        except NeedMore as need:
            least, most = (int(len(self._bytes) * each) + 1 for each in _GROWTH)
            self._target = min(max(least, need.needed_bytes), most)
            return b""
        rest = bytes(self._bytes[self._contents.data_offset :])
        self._bytes = bytearray()
        return rest
