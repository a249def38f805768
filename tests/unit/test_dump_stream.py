"""DumpStream: a program's archive, read as it passes; ended from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opskit.backup.dump_stream import DumpStream
from opskit.errors import BackupFailed
from tests.unit import archive_builder as build
from tests.unit.archive_builder import Entry

# Long entries first: after them, a head seems to be longer than it is.
ENTRIES = [
    build.encoding(),
    *[Entry(dump_id=n, kind="VIEW", definition="x" * 90_000) for n in range(10, 15)],
    *[Entry(dump_id=n, kind="VIEW", definition="y") for n in range(20, 60)],
    build.table_data(90, "orders"),
]
HEAD = build.head(ENTRIES)
ARCHIVE = HEAD + build.rows_block(90, [b"1", b"2"])


def _stream(script: str, folder: Path) -> tuple[DumpStream, list[int]]:
    (folder / "archive").write_bytes(ARCHIVE)
    told: list[int] = []
    stream = DumpStream(
        role="dump",
        arguments=["sh", "-c", f"cd {folder}; {script}"],
        environment={"PATH": os.environ["PATH"]},
        locked=lambda: told.append(1),
    )
    return stream, told


def test_the_bytes_pass_unchanged_and_are_read(tmp_path: Path) -> None:
    """What they hold is known at the end."""
    stream, told = _stream("cat archive", tmp_path)

    assert b"".join(stream.blocks()) == ARCHIVE
    assert stream.dump_bytes == len(ARCHIVE)
    assert [content.rows for _entry, content in stream.reader.tables()] == [2]
    assert told == [1]


@pytest.mark.parametrize("first_bytes", [280_000, 300_000, 400_000, len(HEAD)])
def test_the_locks_are_told_of_however_the_bytes_come(
    tmp_path: Path, first_bytes: int
) -> None:
    """Also where the head is known as a whole only when the program has ended."""
    stream, told = _stream(
        f"head -c {first_bytes} archive; sleep 0.2; tail -c +{first_bytes + 1} archive",
        tmp_path,
    )

    assert b"".join(stream.blocks()) == ARCHIVE
    assert told == [1]


def test_a_stream_that_is_ended_while_it_runs(tmp_path: Path) -> None:
    """Whoever reads it is told that it did not end by itself."""
    stream, _told = _stream("head -c 300000 archive; exec sleep 600", tmp_path)
    blocks = stream.blocks()
    next(blocks)

    stream.end()

    with pytest.raises(BackupFailed, match="signal 15"):
        list(blocks)


def test_a_stream_that_is_ended_before_it_begins(tmp_path: Path) -> None:
    """It does not run on for nobody."""
    stream, _told = _stream("exec sleep 600", tmp_path)

    stream.end()

    with pytest.raises(BackupFailed, match="signal 15"):
        list(stream.blocks())
