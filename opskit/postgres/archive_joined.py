"""One archive of several: a catch-all, and dumps of nothing but rows beside it.

Each dump has numbered its entries for itself. The joined head is that of the catch-all
with the others' entries put in, before whatever must come after all data; they get new
numbers, and depend on the tables that the catch-all creates. The data follows, that of
each dump as a whole, with the new numbers in front of its blocks. pg_restore then loads
everything in any number of jobs, as if one pg_dump had written it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.archive_cursor import integer, text

_NUMBER_BYTES = len(integer(0))


@dataclass(frozen=True, kw_only=True)
class Part:
    """The head of one of the dumps: its bytes, and what they say."""

    head: bytes
    contents: Contents


class JoinedHead:
    """The head of the whole; `size_bytes` is known before any data is.

    Raises:
        ArchiveError: the parts are not of one dump.
    """

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
        found: Sequence[Mapping[int, int]],
    ) -> None:
        """Write the head before the data of all parts, and number their blocks.

        Args:
            file: begins with room for the head; the data stands in it already.
            starts: where the data of each part begins in it.
            found: where each part has a block of data, by dump id, counted from the
                beginning of that part itself.

        Raises:
            ArchiveError: a block was not found.
        """
        head = bytearray(self._content)
        for number, part in enumerate(self._parts):
            shift = starts[number] - part.contents.data_offset
            for dump_id, place in self._places[number].items():
                offset = found[number].get(dump_id)
                if offset is not None:
                    packed = toc.place(offset + shift)
                    head[place : place + len(packed)] = packed
                elif number:
                    raise ArchiveError(f"the data of entry {dump_id} was not found")
            for dump_id, new in self._numbers[number].items():
                file.seek(found[number][dump_id] + shift + 1)
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
