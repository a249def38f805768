"""JoinedFile: dumps unpacked into one file at once, in whatever order they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opskit.errors import IntegrityError
from opskit.postgres.archive.reader import ArchiveReader
from opskit.restore.unpack import JoinedFile
from opskit.threads import together
from tests.unit import archive_builder as build
from tests.unit.archive_builder import Entry
from tests.unit.pieces import of_size

ROWS = {
    "small": [b"1"],
    "wide": [b"w" * 1000] * 300,
    "long": [b"%d" % n for n in range(9)],
}


def _dump(table: str, *more: Entry) -> bytes:
    entries = [build.encoding(), *more, build.table_data(50, table)]
    return build.head(entries) + build.rows_block(50, ROWS[table])


TABLES = [
    Entry(dump_id=number, kind="TABLE", name=name, schema="public")
    for number, name in enumerate(ROWS, start=2)
]
DUMPS = [_dump("small", *TABLES), _dump("wide"), _dump("long")]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An empty file."""
    path = tmp_path / "archive"
    path.touch()
    return path


def _writer(
    joined: JoinedFile, number: int, pieces: Iterator[bytes]
) -> Callable[[], None]:
    def write() -> None:
        with joined.part(number) as part:
            for piece in pieces:
                part.write(piece)
            part.finish(f"dump {number}")

    return write


def _write(joined: JoinedFile, dumps: list[bytes], size: int) -> None:
    jobs = [
        _writer(joined, number, iter(of_size(dump, size)))
        for number, dump in enumerate(dumps)
    ]
    together(jobs, stop=joined.abandon)
    joined.finish()


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_the_file_holds_what_all_dumps_hold(archive: Path, size: int) -> None:
    """In pieces of any size."""
    _write(JoinedFile(archive, [len(each) for each in DUMPS]), DUMPS, size)

    reader = ArchiveReader()
    reader.feed(archive.read_bytes())
    reader.close()
    assert {entry.name: content.rows for entry, content in reader.tables()} == {
        name: len(rows) for name, rows in ROWS.items()
    }


def test_the_order_in_which_heads_come_does_not_matter(archive: Path) -> None:
    """The catch-all's may be the last."""
    joined = JoinedFile(archive, [len(each) for each in DUMPS])
    others = threading.Barrier(3)

    def late() -> Iterator[bytes]:
        others.wait(30)
        yield DUMPS[0]

    def early(number: int) -> Iterator[bytes]:
        others.wait(30)
        yield DUMPS[number]

    pieces = [late(), early(1), early(2)]
    jobs = [_writer(joined, number, each) for number, each in enumerate(pieces)]
    together(jobs, stop=joined.abandon)
    joined.finish()

    assert archive.read_bytes()[:5] == b"PGDMP"


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("before", ["its head", "its data", "its end"])
def test_a_dump_that_cannot_be_read_keeps_nobody_waiting(
    archive: Path, number: int, before: str
) -> None:
    """What is told is what went wrong with it."""
    joined = JoinedFile(archive, [len(each) for each in DUMPS])
    dump = DUMPS[number]
    head_bytes = len(dump) - len(build.rows_block(50, ROWS[list(ROWS)[number]]))
    given = {"its head": 9, "its data": head_bytes, "its end": len(dump) - 1}[before]

    def broken() -> Iterator[bytes]:
        yield dump[:given]
        raise IntegrityError("the store lost it")

    pieces = [iter([each]) for each in DUMPS]
    pieces[number] = broken()
    jobs = [_writer(joined, each, piece) for each, piece in enumerate(pieces)]

    with pytest.raises(IntegrityError, match="the store lost it"):
        together(jobs, stop=joined.abandon)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("difference", [-1, 1])
def test_a_dump_of_another_size_is_refused(
    archive: Path, number: int, difference: int
) -> None:
    """It would leave a gap, or be written over another one's rows."""
    sizes = [len(each) for each in DUMPS]
    sizes[number] += difference
    words = (
        "unpacks to more than the" if difference < 0 else f"dump {number} unpacks to"
    )

    with pytest.raises(IntegrityError, match=words):
        _write(JoinedFile(archive, sizes), DUMPS, 1000)


def test_what_is_no_dump_is_refused_at_once(archive: Path) -> None:
    """Not once all of it is in memory."""
    dumps = [DUMPS[0], b"#!/bin/sh\n" * 1000]

    with pytest.raises(IntegrityError, match="no archive that pg_dump wrote"):
        _write(JoinedFile(archive, [len(each) for each in dumps]), dumps, 100)


def test_dumps_that_do_not_belong_together_are_refused(archive: Path) -> None:
    """Of another backup, for instance: the table is in both."""
    dumps = [DUMPS[0], _dump("small")]

    with pytest.raises(IntegrityError, match=r"do not fit: TABLE DATA public\.small"):
        _write(JoinedFile(archive, [len(each) for each in dumps]), dumps, 100)
