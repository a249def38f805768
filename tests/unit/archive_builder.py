"""Builds archives of the custom format byte by byte, as pg_dump lays them out.

Written from the same sources as `opskit.postgres.archive.toc`, but as the writing side, so that
the reader is held against something other than itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Version = tuple[int, int]

VERSIONS: tuple[Version, ...] = ((1, 14), (1, 15), (1, 16))
TERMINATOR = b"\\.\n\n\n"
NOT_YET_KNOWN, KNOWN, NO_DATA = 1, 2, 3
_TABLE, _LARGE_OBJECTS = 1, 3


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of the contents.

    `state` says whether data follows for it, and `place` where, if that is known.
    """

    dump_id: int
    kind: str
    name: str = ""
    schema: str = ""
    owner: str = "ops"
    definition: str = ""
    copy: str = ""
    dependencies: Sequence[int] = ()
    state: int = NO_DATA
    place: int = 0
    section: int = 3


def encoding(name: str = "UTF8", *, dump_id: int = 1) -> Entry:
    """Return the entry that names the encoding of all texts."""
    statement = f"SET client_encoding = '{name}';\n"
    return Entry(
        dump_id=dump_id, kind="ENCODING", name="ENCODING", definition=statement
    )


def table_data(
    dump_id: int, name: str, columns: Sequence[str] = ("id",), *, schema: str = "public"
) -> Entry:
    """Return the entry of a table's rows; `columns` are written as they are."""
    listed = f"({', '.join(columns)})" if columns else ""
    return Entry(
        dump_id=dump_id,
        kind="TABLE DATA",
        name=name,
        schema=schema,
        copy=f"COPY {quoted(schema)}.{quoted(name)} {listed} FROM stdin;\n",
        state=NOT_YET_KNOWN,
    )


def sequence_set(dump_id: int, name: str, statement: str) -> Entry:
    """Return the entry that sets a sequence."""
    return Entry(
        dump_id=dump_id,
        kind="SEQUENCE SET",
        name=name,
        schema="public",
        definition=statement,
    )


def large_objects(dump_id: int) -> Entry:
    """Return the entry of the contents of large objects."""
    return Entry(dump_id=dump_id, kind="BLOBS", name="BLOBS", state=NOT_YET_KNOWN)


def quoted(name: str) -> str:
    """Return an identifier in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def head(
    entries: Sequence[Entry],
    *,
    version: Version = (1, 16),
    codec: str = "utf-8",
    compression: int = 0,
) -> bytes:
    """Return header and table of contents."""
    parts = [b"PGDMP", bytes([*version, 0, 4, 8, 1])]
    parts.append(bytes([compression]) if version >= (1, 15) else integer(compression))
    parts += [integer(value) for value in (30, 59, 23, 31, 11, 126, 0)]
    parts += [text(b"shop"), text(b"16.4"), text(b"16.4"), integer(len(entries))]
    parts += [_entry(each, version, codec) for each in entries]
    return b"".join(parts)


def table_block(dump_id: int, chunks: Iterable[bytes]) -> bytes:
    """Return a table's data; pg_dump writes each row as a chunk, then the end."""
    return bytes([_TABLE]) + integer(dump_id) + _chunked([*chunks, TERMINATOR])


def rows_block(dump_id: int, rows: Iterable[bytes]) -> bytes:
    """Return a table's data, given as rows without their line ends."""
    return table_block(dump_id, [row + b"\n" for row in rows])


def large_objects_block(dump_id: int, objects: Mapping[int, Sequence[bytes]]) -> bytes:
    """Return the data of large objects, each content given in chunks."""
    contents = [integer(oid) + _chunked(chunks) for oid, chunks in objects.items()]
    start = bytes([_LARGE_OBJECTS]) + integer(dump_id)
    return start + b"".join(contents) + integer(0)


def integer(value: int) -> bytes:
    """Return a number: its sign, then its magnitude."""
    return struct.pack("<BI", value < 0, abs(value))


def text(value: bytes | None) -> bytes:
    """Return a text behind its length; none at all has the length -1."""
    return integer(-1) if value is None else integer(len(value)) + value


def _chunked(chunks: Iterable[bytes]) -> bytes:
    # A chunk of length zero would be the end, so the writer never makes one.
    written = [integer(len(each)) + each for each in chunks if each]
    return b"".join(written) + integer(0)


def _entry(each: Entry, version: Version, codec: str) -> bytes:
    has_data = each.state != NO_DATA

    def encoded(value: str) -> bytes:
        return text(value.encode(codec, "surrogateescape"))

    parts = [integer(each.dump_id), integer(has_data), text(b"1259"), text(b"16385")]
    parts += [encoded(each.name), encoded(each.kind), integer(each.section)]
    parts += [encoded(each.definition), text(b""), encoded(each.copy)]
    parts += [encoded(each.schema), text(None), text(b"heap")]
    if version >= (1, 16):
        parts.append(integer(ord("r")))
    parts += [encoded(each.owner), text(b"false")]
    parts += [text(b"%d" % number) for number in each.dependencies]
    parts += [text(None), bytes([each.state]), struct.pack("<Q", each.place)]
    return b"".join(parts)
