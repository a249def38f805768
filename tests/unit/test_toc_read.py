"""Reading an archive's contents from a file: all of the head, and no more of the rest."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import pytest

from opskit.errors import ArchiveError
from opskit.postgres.archive import toc
from tests.unit import archive_builder as build

HEAD = build.head([build.encoding(), build.table_data(2, "orders")])
DATA = build.rows_block(2, [b"1", b"2"])


class _Recording(io.BytesIO):
    """A file that counts the bytes that were read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.taken += len(block)
        return block


class _FakePath:
    """What `read` asks of a path, with its one file."""

    name = "dump.pgdump"

    def __init__(self, content: bytes) -> None:
        self.file = _Recording(content)

    def open(self, mode: str) -> _Recording:
        assert mode == "rb"
        return self.file


def _read(path: _FakePath) -> toc.Contents:
    return toc.read(cast(Path, path))


def test_a_file_is_read_like_its_bytes(tmp_path: Path) -> None:
    """The contents are those that a reader of the stream finds."""
    path = tmp_path / "dump.pgdump"
    path.write_bytes(HEAD + DATA)

    assert toc.read(path) == toc.parse(HEAD + DATA)


@pytest.mark.parametrize("size", [1, 2, 7, len(HEAD) - 1, len(HEAD), len(HEAD) + 1])
def test_the_size_of_blocks_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Wherever a block ends, the head is put together again."""
    monkeypatch.setattr(toc, "_HEAD_BYTES", size)

    assert _read(_FakePath(HEAD + DATA)) == toc.parse(HEAD)


def test_no_more_is_read_than_the_head() -> None:
    """The rows of an archive of any size stay where they are."""
    path = _FakePath(HEAD + bytes(64 * 1024 * 1024))
    _read(path)

    assert path.file.taken <= 1024 * 1024


def test_a_head_larger_than_a_block_is_read() -> None:
    """A database of many objects has contents of many megabytes."""
    entries = [
        build.encoding(),
        *(
            build.Entry(
                dump_id=n, kind="FUNCTION", name="f()", definition="x" * 100_000
            )
            for n in range(2, 52)
        ),
    ]
    path = _FakePath(build.head(entries) + DATA)

    assert len(_read(path).entries) == 51


@pytest.mark.parametrize("content", [b"", HEAD[:5], HEAD[:40], HEAD[:-1]])
@pytest.mark.parametrize("size", [1, 1024])
def test_a_file_that_ends_within_its_head_is_refused(
    monkeypatch: pytest.MonkeyPatch, content: bytes, size: int
) -> None:
    """By its name, and not by waiting for more."""
    monkeypatch.setattr(toc, "_HEAD_BYTES", size)

    with pytest.raises(ArchiveError, match=r"dump\.pgdump ends within its table"):
        _read(_FakePath(content))


def test_what_is_no_archive_is_refused() -> None:
    """At once, not after looking for the end of its head."""
    path = _FakePath(b"-- a script\n" * 1_000_000)

    with pytest.raises(ArchiveError, match="mark"):
        _read(path)

    assert path.file.taken <= 1024 * 1024
