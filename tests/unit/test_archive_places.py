"""Places of data in an archive: those that pg_dump notes where it can go back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opskit.postgres.archive.places import ArchivePlaces
from tests.unit import archive_builder as build
from tests.unit.archive_builder import KNOWN, VERSIONS, Entry, Version
from tests.unit.pieces import cut, of_size

TABLE_END = build.rows_block(2, [])[6:]
ENTRIES = (
    build.encoding(),
    build.table_data(2, "orders"),
    build.table_data(3, "no rows"),
    build.large_objects(4),
    build.table_data(5, "behind them"),
)
# In another order than the contents, as parallel dumps have it. Only a large object can
# hold what looks like a table's end.
BLOCKS = {
    3: build.rows_block(3, []),
    4: build.large_objects_block(4, {7: [TABLE_END, b"\1" * 40], 8: [], 9: [b"\0"]}),
    2: build.rows_block(2, [b"%d\t\\\\." % number for number in range(200)]),
    5: build.rows_block(5, [b"", b"\\N"]),
}
DATA = b"".join(BLOCKS.values())


def _head(entries: Iterable[Entry], version: Version) -> bytes:
    return build.head(list(entries), version=version)


def _with_places(version: Version, known: Iterable[int] = tuple(BLOCKS)) -> bytes:
    """Return the archive as pg_dump leaves it in a file, its places known."""
    places, offset = {}, len(_head(ENTRIES, version))
    for dump_id, block in BLOCKS.items():
        places[dump_id] = offset
        offset += len(block)
    entries = [
        replace(each, state=KNOWN, place=places[each.dump_id])
        if each.dump_id in known
        else each
        for each in ENTRIES
    ]
    return _head(entries, version) + DATA


def _written(folder: Path, content: bytes, pieces: Iterable[bytes]) -> bytes:
    """Return what an archive is after its places were written into it."""
    archive = folder / "archive"
    archive.write_bytes(content)
    places = ArchivePlaces()
    for piece in pieces:
        places.feed(piece)
    places.write(archive)
    return archive.read_bytes()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [*range(1, 40), 1000, 10**6])
def test_an_archive_gets_its_places(
    tmp_path: Path, version: Version, size: int
) -> None:
    """It becomes what pg_dump had written to a file, whatever the pieces."""
    content = _head(ENTRIES, version) + DATA

    assert _written(tmp_path, content, of_size(content, size)) == _with_places(version)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pieces_may_end_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """Also in the middle of a table's end, or of a length."""
    content = _head(ENTRIES, VERSIONS[0]) + DATA
    found = _written(tmp_path, content, cut(data, content))

    assert found == _with_places(VERSIONS[0])


@pytest.mark.parametrize(
    ("damage", "known"),
    [
        (lambda content: b"PGDMQ" + content[5:], ()),
        (lambda content: content[:90], ()),
        (lambda content: content.replace(BLOCKS[4], b"\2" + BLOCKS[4][1:]), (3,)),
        (lambda content: content.replace(BLOCKS[4], build.rows_block(9, [])), (3,)),
        (lambda content: content[: -len(BLOCKS[5]) + 2], (3, 4, 2)),
    ],
    ids=["no archive", "half a head", "unknown kind", "unknown entry", "cut short"],
)
def test_what_is_not_known_is_left_to_pg_restore(
    tmp_path: Path, damage: object, known: tuple[int, ...]
) -> None:
    """Nothing is raised, nothing guessed; what came before has its place."""
    assert callable(damage)
    content = damage(_head(ENTRIES, VERSIONS[0]) + DATA)
    head_bytes = min(len(_head(ENTRIES, VERSIONS[0])), len(content))
    found = _written(tmp_path, content, of_size(content, 50))

    expected = content if not known else _with_places(VERSIONS[0], known)
    assert found[:head_bytes] == expected[:head_bytes]
    assert found[head_bytes:] == content[head_bytes:]


@pytest.mark.parametrize("length", [-5, 2**31])
def test_an_impossible_length_is_not_waited_for(length: int) -> None:
    """A damaged length does not make it keep all that follows."""
    wrong = b"\3" + build.integer(4) + build.integer(7) + build.integer(length)
    places = ArchivePlaces()
    places.feed(_head(ENTRIES, VERSIONS[0]) + wrong)
    piece = bytes(1_000_000)
    tracemalloc.start()
    try:
        for _ in range(20):
            places.feed(piece)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 3 * len(piece)
