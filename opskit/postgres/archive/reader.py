"""Reads a custom-format archive as it streams by: contents, table data, end.

After the head come blocks: one byte for the kind, the dump id, then chunks that each
begin with their length; a length of zero ends a block. Large objects come as a list of
such runs, each behind its number, ended by number zero. Nothing marks the end of the
file but the end of the last block, so every entry that should have data is counted.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

from opskit.errors import ArchiveError
from opskit.postgres.archive.digest import (
    ContentDigest,
    LargeObjectDigest,
    LargeObjectsDigest,
    RowDigest,
)
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import (
    CUT_SHORT,
    INTEGER,
    Contents,
    HeadReader,
    read_integer,
)

# What kind of data a block holds: its first byte.
TABLE_BLOCK = 1
LARGE_OBJECTS_BLOCK = 3
# The last byte of a row with the next length's sign, both as one number, and its value.
_BETWEEN_ROWS = struct.Struct("<HI")
_LINE_END_AND_PLUS = ord("\n")


def whole_rows(data: bytes, position: int) -> tuple[list[bytes], int]:
    """Return the chunks at a position that are a line each, and where they end.

    pg_dump makes a chunk of every row. They come without line ends; what is cut in two,
    and the table's end, are left.
    """
    rows: list[bytes] = []
    unpack = _BETWEEN_ROWS.unpack_from
    add = rows.append
    start = position + INTEGER.size
    with contextlib.suppress(struct.error):  # no more bytes
        sign, length = INTEGER.unpack_from(data, position)
        end = start + length - 1
        while not sign:
            between, length = unpack(data, end)
            if between != _LINE_END_AND_PLUS:
                break
            add(data[start:end])
            start = end + _BETWEEN_ROWS.size
            end = start + length - 1
    if rows and b"\n" in rows[-1]:  # the table's end is such a chunk
        start -= len(rows.pop()) + _BETWEEN_ROWS.size
    return rows, start - INTEGER.size


class ArchiveReader:
    """Fed with the bytes of an archive in pieces of any size; see the module's text."""

    def __init__(self) -> None:
        self._head = HeadReader()
        self._carry = b""
        self._step: Callable[[bytes, int], int] = self._block_start
        self._entries: dict[int, TocEntry] = {}
        self._current: TocEntry | None = None
        self._rows = RowDigest()
        self._chunk_left = 0
        self._tables: dict[int, ContentDigest] = {}
        self._large_objects = LargeObjectDigest()
        self._seen: set[int] = set()
        self.begun: list[TocEntry] = []  # whose data has begun to come by

    @property
    def rows_of_current(self) -> int:
        """How many rows of the table that comes by now have passed."""
        return self._rows.rows

    @property
    def contents(self) -> Contents:
        """The head of the archive; ArchiveError as long as that is not complete."""
        return self._head.contents

    def feed(self, data: bytes) -> None:
        """Take the next bytes; ArchiveError if the format does not allow them here."""
        if self._head.is_done:
            self._consume(self._carry + data if self._carry else data)
        else:
            self._begin(self._head.feed(data))

    def _consume(self, data: bytes) -> None:
        position = 0
        while True:
            following = self._step(data, position)
            if following < 0:
                break
            position = following
        self._carry = data[position:]

    def close(self) -> None:
        """Raise ArchiveError if the archive is cut short, or data never came."""
        if not self._head.is_done:
            self._begin(self._head.close())
        contents = self.contents
        if self._step != self._block_start or self._carry:
            raise ArchiveError(CUT_SHORT)
        for entry in contents.entries:
            if entry.has_data and entry.dump_id not in self._seen:
                raise ArchiveError(
                    f"the data of {entry.kind} {entry.schema}.{entry.name} is not in "
                    "the archive"
                )

    def tables(self) -> list[tuple[TocEntry, ContentDigest]]:
        """Return the tables whose data came by, in the order of the contents."""
        return [
            (entry, self._tables[entry.dump_id])
            for entry in self.contents.entries
            if entry.dump_id in self._tables
        ]

    def large_objects(self) -> LargeObjectsDigest:
        """Return what is known of all large objects that came by."""
        return self._large_objects.result()

    def _begin(self, rest: bytes) -> None:
        """Read on behind the head, if it has come as a whole."""
        if self._head.is_done:
            entries = self._head.contents.entries
            self._entries = {entry.dump_id: entry for entry in entries}
            self._consume(rest)

    # Each step reads from a position and returns the next one, or -1 where it needs
    # more bytes than there are.

    def _block_start(self, data: bytes, position: int) -> int:
        if position + 1 + INTEGER.size > len(data):
            return -1
        kind = data[position]
        dump_id = read_integer(data, position + 1)
        entry = self._entries.get(dump_id)
        if entry is None or not entry.has_data or dump_id in self._seen:
            raise ArchiveError(
                f"a data block names the entry {dump_id}, which is not due"
            )
        self._current = entry
        self._seen.add(dump_id)
        if kind == TABLE_BLOCK:
            self._rows = RowDigest()
            self._step = self._table_chunks
        elif kind == LARGE_OBJECTS_BLOCK:
            self._step = self._large_object_start
        else:
            raise ArchiveError(f"a data block is of the unknown kind {kind}")
        self.begun.append(entry)
        return position + 1 + INTEGER.size

    def _table_chunks(self, data: bytes, position: int) -> int:
        if self._chunk_left and position < len(data):
            # The rest of a row that was cut, alone: the whole ones after it go faster.
            rest = data[position : position + self._chunk_left]
            self._rows.update(rest)
            self._chunk_left -= len(rest)
            return position + len(rest)
        start = position
        if not self._chunk_left:
            rows, following = whole_rows(data, position)
            if self._rows.update_lines(rows):
                position = following
        pieces: list[bytes] = []
        end = self._chunks(data, position, pieces)
        self._rows.update(b"".join(pieces))
        if end >= 0 and self._chunk_left < 0:
            self._end_table()
        return position if end < 0 and position > start else end

    def _end_table(self) -> None:
        assert self._current is not None
        entry = self._current
        if not self._rows.drop_terminator():
            raise ArchiveError(f"the data of {entry.schema}.{entry.name} is cut short")
        self._tables[entry.dump_id] = self._rows.result()
        self._chunk_left = 0
        self._step = self._block_start

    def _large_object_start(self, data: bytes, position: int) -> int:
        if position + INTEGER.size > len(data):
            return -1
        oid = read_integer(data, position)
        if oid == 0:
            self._step = self._block_start
        else:
            # Written as if it had a sign, which the higher half of numbers lose.
            self._large_objects.begin(oid & 0xFFFFFFFF)
            self._step = self._large_object_chunks
        return position + INTEGER.size

    def _large_object_chunks(self, data: bytes, position: int) -> int:
        pieces: list[bytes] = []
        end = self._chunks(data, position, pieces)
        self._large_objects.update(b"".join(pieces))
        if end >= 0 and self._chunk_left < 0:
            self._large_objects.end()
            self._chunk_left = 0
            self._step = self._large_object_start
        return end

    def _chunks(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Collect chunks; `_chunk_left` is -1 after the last. A cut length is left."""
        size = len(data)
        left = self._chunk_left
        start = position
        unpack = INTEGER.unpack_from
        add = pieces.append
        while True:
            stop = position + left
            if stop > size:
                add(data[position:])
                self._chunk_left = stop - size
                return size if size > start else -1
            add(data[position:stop])
            position = stop + INTEGER.size
            if position > size:
                self._chunk_left = 0
                return stop if stop > start else -1
            sign, left = unpack(data, stop)
            if sign or not left:
                break
        if left:
            raise ArchiveError("a data chunk has a negative length")
        self._chunk_left = -1
        return position
