"""Writes into the head of an archive where its data lies.

An archive that pg_dump wrote to a pipe does not know. pg_restore then reads through
the rows of all tables to find those of one, and each of its jobs does so again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.reader import LARGE_OBJECTS_BLOCK, TABLE_BLOCK
from opskit.postgres.archive.toc import (
    INTEGER,
    Contents,
    HeadReader,
    integer,
    read_integer,
    text,
)

_BLOCK_START_BYTES = 1 + INTEGER.size
# What pg_dump reads of a large object at once is a thousandth of it.
_CHUNK_BYTES_MAX = 16 * 1024 * 1024
# The last chunk of a table and the length that ends the block. No row holds it: COPY
# text has no byte zero, and a line that is a backslash and a dot is no row.
_TABLE_END = INTEGER.pack(0, 5) + b"\\.\n\n\n" + INTEGER.pack(0, 0)
_KEPT_BYTES = len(_TABLE_END) - 1


class ArchivePlaces:
    """Fed with the bytes of an archive, notes where each block of data begins.

    At what it does not know it stops noting, without an error: that costs time alone,
    for pg_restore searches for what has no place, and checks what it finds at one.
    """

    def __init__(self) -> None:
        self._head = HeadReader()
        self._held = b""
        self._held_at = 0
        self._step: Callable[[int], int] = self._stand_still
        self._offsets: dict[int, int] = {}
        self._is_lost = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._is_lost:
            return
        if not self._head.is_done:
            data = self._read_head(lambda: self._head.feed(data))
        self._look_through(data)

    def close(self) -> None:
        """End the archive: all bytes have come, and a short head is read only now."""
        if self._is_lost or self.contents is not None:
            return
        rest = self._read_head(self._head.close)
        if self.contents is None:
            self._lose()
        self._look_through(rest)

    def _look_through(self, data: bytes) -> None:
        if self._step == self._table and not self._ends_table(data):
            # Nearly always: kept is only what an end may begin with, nothing is copied.
            self._held_at += len(self._held) + len(data) - _KEPT_BYTES
            self._held = data[-_KEPT_BYTES:]
            return
        self._held = self._held + data if self._held else data
        position = 0
        while (following := self._step(position)) > position:
            position = following
        self._held_at += position
        self._held = b"" if self._is_lost else self._held[position:]

    @property
    def contents(self) -> Contents | None:
        """The head of the archive, once it has come by as a whole."""
        return self._head.contents if self._head.is_done else None

    @property
    def offsets(self) -> Mapping[int, int]:
        """Where blocks of data begin, by dump id, counted from the archive's start."""
        return self._offsets

    @property
    def is_lost(self) -> bool:
        """Whether it met something that it does not know, and notes no more."""
        return self._is_lost

    def write(self, archive: Path) -> None:
        """Write the places into the file that holds the same archive."""
        if not self._offsets:
            return
        with archive.open("r+b") as file:
            for dump_id, offset in self._offsets.items():
                file.seek(self._head.contents.layout.spans[dump_id].place)
                file.write(toc.place(offset))

    def _ends_table(self, data: bytes) -> bool:
        """Return whether the end may be in what is held and what follows it."""
        seam = self._held + data[:_KEPT_BYTES]
        return len(data) < _KEPT_BYTES or _TABLE_END in seam or _TABLE_END in data

    def _read_head(self, read: Callable[[], bytes]) -> bytes:
        try:
            rest = read()
        except ArchiveError:  # whoever needs the head will say so
            return self._lose()
        if self._head.is_done:
            self._step = self._block_start
            self._held_at = self._head.contents.data_offset
        return rest

    def _lose(self) -> bytes:
        self._is_lost = True
        self._step = self._stand_still
        return b""

    # Each step reads from a position and returns the next one, or the same where it
    # needs more bytes than there are.

    def _block_start(self, position: int) -> int:
        if len(self._held) < position + _BLOCK_START_BYTES:
            return position
        kind = self._held[position]
        dump_id = read_integer(self._held, position + 1)
        kinds = {TABLE_BLOCK: self._table, LARGE_OBJECTS_BLOCK: self._large_object}
        if kind not in kinds or dump_id not in self._head.contents.layout.spans:
            self._lose()
            return position
        self._offsets[dump_id] = self._held_at + position
        self._step = kinds[kind]
        return position + _BLOCK_START_BYTES

    def _table(self, position: int) -> int:
        end = self._held.find(_TABLE_END, position)
        if end < 0:
            # It may begin in the last bytes.
            return max(position, len(self._held) - len(_TABLE_END) + 1)
        self._step = self._block_start
        return end + len(_TABLE_END)

    def _large_object(self, position: int) -> int:
        if len(self._held) < position + INTEGER.size:
            return position
        self._step = (
            self._chunk if read_integer(self._held, position) else self._block_start
        )
        return position + INTEGER.size

    def _chunk(self, position: int) -> int:
        if len(self._held) < position + INTEGER.size:
            return position
        length = read_integer(self._held, position)
        if not length:
            self._step = self._large_object
        elif not 0 < length <= _CHUNK_BYTES_MAX:
            self._lose()
            return position
        following = position + INTEGER.size + length
        return following if following <= len(self._held) else position

    def _stand_still(self, position: int) -> int:
        return position


_NUMBER_BYTES = len(integer(0))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The head of one of the dumps: its bytes, and what they say."""

    head: bytes
    contents: Contents


class JoinedHead:
    """The head of the whole before its data; ArchiveError if it is of several dumps."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._numbers: list[dict[int, int]] = [{} for _ in parts]
        self._places: list[dict[int, int]] = [{} for _ in parts]
        first = parts[0].contents
        at = first.layout.post_data_at
        added = bytearray()
        for each in _added(parts):
            content, place = _renumbered(parts[each.part], each)
            self._numbers[each.part][each.entry.dump_id] = each.number
            self._places[each.part][each.entry.dump_id] = at + len(added) + place
            added += content
        for dump_id, span in first.layout.spans.items():
            moved = len(added) if span.start >= at else 0
            self._places[0][dump_id] = span.place + moved
        head = bytearray(parts[0].head[:at] + added + parts[0].head[at:])
        count = len(first.entries) + sum(map(len, self._numbers))
        count_at = first.layout.count_at
        head[count_at : count_at + _NUMBER_BYTES] = integer(count)
        self._content = bytes(head)

    @property
    def size_bytes(self) -> int:
        """Where the data begins."""
        return len(self._content)

    def write(
        self,
        file: BinaryIO,
        *,
        starts: Sequence[int],
        offsets: Sequence[Mapping[int, int]],
    ) -> None:
        """Write the head before the data of all parts, and number their blocks.

        The file begins with room for the head; the data of each part begins at its
        `starts`. `offsets` are where each part's blocks are by dump id, from that
        part's own beginning. Raises ArchiveError if a block is missing.
        """
        head = bytearray(self._content)
        for number, part in enumerate(self._parts):
            shift = starts[number] - part.contents.data_offset
            for dump_id, place in self._places[number].items():
                offset = offsets[number].get(dump_id)
                if offset is not None:
                    packed = toc.place(offset + shift)
                    head[place : place + len(packed)] = packed
                elif number:
                    raise ArchiveError(f"the data of entry {dump_id} was not found")
            for dump_id, new in self._numbers[number].items():
                file.seek(offsets[number][dump_id] + shift + 1)
                file.write(integer(new))
        file.seek(0)
        file.write(head)


@dataclass(frozen=True, kw_only=True)
class _Added:
    """An entry with rows of a part: its new number, and that of its table."""

    part: int
    entry: TocEntry
    number: int
    table: int


def _added(parts: Sequence[Part]) -> Iterator[_Added]:
    first = parts[0].contents
    number = max((entry.dump_id for entry in first.entries), default=0)
    tables = {(e.schema, e.name): e.dump_id for e in first.entries if e.kind == "TABLE"}
    held = {(e.schema, e.name) for e in first.entries if e.kind == "TABLE DATA"}
    for part, each in enumerate(parts[1:], start=1):
        contents = each.contents
        if (contents.version, contents.codec) != (first.version, first.codec):
            raise ArchiveError("the parts were not written by one pg_dump")
        for entry in contents.entries:
            if not entry.has_data:
                continue
            name = (entry.schema, entry.name)
            if entry.kind != "TABLE DATA" or name not in tables or name in held:
                raise ArchiveError(f"{entry.label} does not belong to the other parts")
            held.add(name)
            number += 1
            yield _Added(part=part, entry=entry, number=number, table=tables[name])


def _renumbered(part: Part, added: _Added) -> tuple[bytes, int]:
    """Return an entry under its new number, and where in it the place stands."""
    span = part.contents.layout.spans[added.entry.dump_id]
    before = (
        integer(added.number)
        + part.head[span.start + _NUMBER_BYTES : span.dependencies]
        + text(str(added.table).encode())
        + text(None)
    )
    return before + part.head[span.place : span.stop], len(before)
