"""DumpStream: a program's archive, read as it passes; ended from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from opskit.backup.stream import DumpStream
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


LOCKED = "echo pg_dump: saving encoding = UTF8 >&2"


def _stream(script: str, folder: Path) -> DumpStream:
    (folder / "archive").write_bytes(ARCHIVE)
    return DumpStream(
        role="dump",
        arguments=["sh", "-c", f"cd {folder}; {script}"],
        environment={"PATH": os.environ["PATH"]},
    )


def test_the_bytes_pass_unchanged_and_are_read(tmp_path: Path) -> None:
    """What they hold is known at the end."""
    stream = _stream(f"{LOCKED}; cat archive", tmp_path)

    with stream.running():
        assert not stream.wait_for_locks(60)
        assert b"".join(stream.blocks()) == ARCHIVE

    assert stream.dump_bytes == len(ARCHIVE)
    assert [content.rows for _entry, content in stream.reader.tables()] == [2]


def test_a_program_waits_with_its_locks_until_it_is_read(tmp_path: Path) -> None:
    """However little it has to write, it has not ended when the locks are told of."""
    stream = _stream(f"{LOCKED}; cat archive; touch ended", tmp_path)

    with stream.running():
        assert not stream.wait_for_locks(60)
        time.sleep(0.3)
        assert not (tmp_path / "ended").exists()
        assert b"".join(stream.blocks()) == ARCHIVE

    assert (tmp_path / "ended").exists()


def test_a_program_that_still_waits_for_locks_has_none(tmp_path: Path) -> None:
    """What it says before is not taken for its locks."""
    stream = _stream("echo pg_dump: reading extensions >&2; exec sleep 600", tmp_path)

    with stream.running():
        assert stream.wait_for_locks(0.5)


def test_a_program_that_fails_before_it_has_locks(tmp_path: Path) -> None:
    """Its complaint is told, its progress is not."""
    stream = _stream(
        "echo pg_dump: reading extensions >&2; echo pg_dump: error: no >&2; exit 1",
        tmp_path,
    )

    with stream.running(), pytest.raises(BackupFailed) as failed:
        stream.wait_for_locks(60)

    assert failed.value.message == "sh exited with 1: pg_dump: error: no"


def test_an_archive_without_locks_is_refused(tmp_path: Path) -> None:
    """What was dumped before all locks were held may not be what the snapshot saw."""
    stream = _stream("cat archive", tmp_path)

    with stream.running(), pytest.raises(BackupFailed, match="had the locks"):
        list(stream.blocks())


def test_a_stream_that_is_ended_while_it_runs(tmp_path: Path) -> None:
    """Whoever reads it is told that it did not end by itself."""
    stream = _stream("head -c 300000 archive; exec sleep 600", tmp_path)
    with stream.running():
        blocks = stream.blocks()
        next(blocks)

        stream.end()

        with pytest.raises(BackupFailed, match="signal 15"):
            list(blocks)


def test_a_silent_stream_is_asked_about(tmp_path: Path) -> None:
    """While it writes nothing, somebody may see what it waits for, and give up."""
    stream = _stream("exec sleep 600", tmp_path)

    def give_up() -> None:
        raise BackupFailed("waited", hint="")

    with stream.running(), pytest.raises(BackupFailed, match="waited"):
        list(stream.blocks(idle=give_up))
