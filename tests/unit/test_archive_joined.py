"""Joined archives: what several dumps hold, under one head that pg_restore reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from opskit.postgres.archive.places import ArchivePlaces, JoinedHead, Part
from opskit.postgres.archive.reader import ArchiveReader
from tests.unit import archive_builder as build
from tests.unit.archive_builder import VERSIONS, Entry, Version

_POST_DATA = 4


def _table(dump_id: int, name: str) -> Entry:
    return Entry(dump_id=dump_id, kind="TABLE", name=name, schema="public")


# The second dump numbers its entries as the first one does, and names tables in another
# order; its numbers of tables are not even among its entries.
FIRST: Sequence[Entry] = (
    build.encoding(),
    _table(7, "orders"),
    _table(9, "wide"),
    _table(12, "small"),
    replace(build.table_data(20, "small"), dependencies=(12,)),
    build.large_objects(21),
    Entry(dump_id=30, kind="INDEX", name="by_id", schema="public", section=_POST_DATA),
)
OTHER: Sequence[Entry] = (
    build.encoding(),
    replace(build.table_data(20, "wide"), dependencies=(301,)),
    build.sequence_set(21, "orders_id_seq", "SELECT 1;"),
    replace(build.table_data(7, "orders"), dependencies=(302,)),
)
THIRD = (build.encoding(), replace(build.table_data(3, "more"), dependencies=(303,)))
FIRST_DATA = build.rows_block(20, [b"1", b"2"]) + build.large_objects_block(21, {5: []})
OTHER_DATA = build.rows_block(7, [b"a"]) + build.rows_block(20, [b"x\\ty", b""])


def _part(entries: Sequence[Entry], version: Version = (1, 16)) -> Part:
    head = build.head(list(entries), version=version)
    return Part(head=head, contents=toc.parse(head))


def _joined(parts: Sequence[Part], data: Sequence[bytes]) -> bytes:
    """Return the whole file, the data of each part behind that of the one before."""
    head = JoinedHead(parts)
    file = io.BytesIO(bytes(head.size_bytes) + b"".join(data))
    starts, found = [], []
    start = head.size_bytes
    for part, content in zip(parts, data, strict=True):
        starts.append(start)
        start += len(content)
        places = ArchivePlaces()
        places.feed(part.head + content)
        found.append(places.offsets)
    head.write(file, starts=starts, offsets=found)
    return file.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_whole_is_an_archive(version: Version) -> None:
    """Whoever reads it from its beginning finds all data, each under its own entry."""
    parts = [_part(FIRST, version), _part(OTHER, version)]

    reader = ArchiveReader()
    reader.feed(_joined(parts, [FIRST_DATA, OTHER_DATA]))
    reader.close()

    held = {entry.name: content.rows for entry, content in reader.tables()}
    assert held == {"small": 2, "orders": 1, "wide": 2}
    assert reader.large_objects().count == 1


def test_entries_come_before_what_must_follow_data() -> None:
    """With numbers of their own, and the numbers of the tables that there are."""
    joined = toc.parse(_joined([_part(FIRST), _part(OTHER)], [FIRST_DATA, OTHER_DATA]))

    assert [(each.dump_id, each.kind, each.name) for each in joined.entries] == [
        *[(each.dump_id, each.kind, each.name) for each in FIRST[:-1]],
        (31, "TABLE DATA", "wide"),
        (32, "TABLE DATA", "orders"),
        (30, "INDEX", "by_id"),
    ]
    needs = {each.name: each.dependencies for each in joined.entries if each.has_data}
    assert needs == {"small": (12,), "BLOBS": (), "wide": (9,), "orders": (7,)}


def test_every_place_leads_to_the_data() -> None:
    """There stands the number of the entry, as pg_restore checks."""
    whole = _joined([_part(FIRST), _part(OTHER)], [FIRST_DATA, OTHER_DATA])

    spans = toc.parse(whole).layout.spans
    assert len(spans) == 4
    for dump_id, span in spans.items():
        state, *offset = whole[span.place : span.stop]
        at = int.from_bytes(bytes(offset), "little")
        assert state == build.KNOWN
        assert whole[at + 1 : at + 6] == build.integer(dump_id)


def test_places_behind_the_new_entries_move_with_them() -> None:
    """Whatever order the catch-all has them in."""
    first = _part([*FIRST[:5], FIRST[6], FIRST[5]])

    whole = _joined([first, _part(OTHER)], [FIRST_DATA, OTHER_DATA])

    span = toc.parse(whole).layout.spans[21]
    at = int.from_bytes(whole[span.place + 1 : span.stop], "little")
    assert whole[span.place] == build.KNOWN
    assert whole[at + 1 : at + 6] == build.integer(21)


def test_two_parts_do_not_hold_the_same_rows() -> None:
    """Nor do more than two, whichever they are."""
    more = _part([build.encoding(), build.table_data(5, "orders")])

    with pytest.raises(ArchiveError, match=r"public\.orders does not belong"):
        JoinedHead([_part(FIRST), _part(OTHER), more])


def test_data_without_anything_after_it_is_joined_too() -> None:
    """Where no entry has to follow the data, new ones come last."""
    first = _part(FIRST[:-1])
    more = _part([*OTHER[:2]])

    whole = _joined([first, more], [FIRST_DATA, build.rows_block(20, [])])

    assert toc.parse(whole).entries[-1].name == "wide"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_part(THIRD), "TABLE DATA public.more does not belong"),
        (_part([build.encoding(), build.table_data(2, "small")]), "public.small does"),
        (_part([build.encoding(), build.large_objects(2)]), "BLOBS BLOBS does not"),
        (_part(OTHER, (1, 15)), "not written by one pg_dump"),
        (_part([build.encoding("LATIN1"), *OTHER[1:]]), "not written by one pg_dump"),
    ],
    ids=["no such table", "twice", "large objects", "version", "encoding"],
)
def test_what_does_not_belong_together_is_refused(other: Part, words: str) -> None:
    """The parts of one backup name each table's rows once, under a table that it has."""
    with pytest.raises(ArchiveError, match=words):
        JoinedHead([_part(FIRST), other])


def test_rows_that_never_came_are_refused() -> None:
    """pg_restore would load the table without a word about them."""
    with pytest.raises(ArchiveError, match="the data of entry 20 was not found"):
        _joined([_part(FIRST), _part(OTHER)], [FIRST_DATA, build.rows_block(7, [b"a"])])
