"""Archive reader: every byte is read, and no archive cut short counts as whole."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ArchiveError
from opskit.postgres.archive.digest import ContentDigest, LargeObjectDigest, RowDigest
from opskit.postgres.archive.reader import ArchiveReader
from tests.unit import archive_builder as build
from tests.unit.archive_builder import VERSIONS, Version
from tests.unit.pieces import cut, of_size

ENTRIES = (
    build.encoding(),
    build.table_data(2, "orders", ("id", "note")),
    build.table_data(3, "no columns", ()),
    build.table_data(4, "no rows"),
    build.large_objects(5),
    build.sequence_set(6, "s", "SELECT pg_catalog.setval('public.s', 9, true);\n"),
)
# Longer than the head, so that the reader meets its end before the archive's.
ORDERS = [b"%d\tnote \\\\. %d" % (number, number) for number in range(120)]
OBJECTS = {16400: [b"abc", b"de"], 4_000_000_000: [], 16402: [b"\0" * 40]}
DATA = b"".join(
    [
        build.rows_block(2, ORDERS),
        build.rows_block(4, []),
        build.rows_block(3, [b"", b"", b""]),
        build.large_objects_block(5, OBJECTS),
    ]
)
HEAD = build.head(ENTRIES)


def _fed(pieces: Iterable[bytes]) -> ArchiveReader:
    reader = ArchiveReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def _rows(rows: Iterable[bytes]) -> ContentDigest:
    digest = RowDigest()
    digest.update(b"".join(row + b"\n" for row in rows))
    return digest.result()


def _assert_all_read(reader: ArchiveReader) -> None:
    """Check that a reader has seen everything that the whole archive holds."""
    reader.close()
    found = {entry.name: content for entry, content in reader.tables()}
    objects = LargeObjectDigest()
    for oid, chunks in OBJECTS.items():
        objects.begin(oid)
        objects.update(b"".join(chunks))
        objects.end()

    assert found == {
        "orders": _rows(ORDERS),
        "no columns": _rows([b"", b"", b""]),
        "no rows": ContentDigest(rows=0, digest="0" * 32),
    }
    assert reader.large_objects() == objects.result()
    assert len(reader.begun) == 4


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [*range(1, 40), 4096, 10**6])
def test_pieces_of_any_size_are_read(version: Version, size: int) -> None:
    """Rows, empty rows and large objects are read whatever the size of the pieces."""
    content = build.head(ENTRIES, version=version) + DATA

    _assert_all_read(_fed(of_size(content, size)))


@given(st.sampled_from(VERSIONS), st.data())
def test_pieces_cut_anywhere_are_read(version: Version, data: st.DataObject) -> None:
    """The result does not depend on where the pieces end, empty ones included."""
    content = build.head(ENTRIES, version=version) + DATA

    _assert_all_read(_fed(cut(data, content)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 1000])
def test_chunks_of_any_size_are_read(size: int) -> None:
    """A row may span chunks, and a chunk may hold many rows, the end among them."""
    text = b"".join(row + b"\n" for row in ORDERS)
    data = DATA.replace(
        build.rows_block(2, ORDERS), build.table_block(2, of_size(text, size))
    )

    _assert_all_read(_fed(of_size(HEAD + data, 17)))


@pytest.mark.parametrize("size", [100, 4096, 10**6])
def test_rows_whose_length_looks_like_a_line_end_are_read(size: int) -> None:
    """The bytes of a length are no part of the text, whatever they look like."""
    rows = [b"x" * (length - 1) for length in (1, 10, 266, 2560, 2570, 10 << 8 | 10, 9)]
    data = DATA.replace(build.rows_block(2, ORDERS), build.rows_block(2, rows))
    reader = _fed(of_size(HEAD + data, size))
    reader.close()

    assert reader.tables()[0][1] == _rows(rows)


def test_tables_come_in_the_order_of_the_contents() -> None:
    """Data may come in any order; it is told in the order of the contents."""
    reader = _fed([HEAD + DATA])

    assert [entry.dump_id for entry, _content in reader.tables()] == [2, 3, 4]


@pytest.mark.parametrize("size", [1, 100, 250, 4096])
def test_an_archive_of_little_data_is_read(size: int) -> None:
    """Also where the head is most of the archive, the pieces do not matter."""
    content = build.head([build.encoding(), build.table_data(2, "orders")])
    reader = _fed(of_size(content + build.rows_block(2, [b"1"]), size))
    reader.close()

    assert reader.tables()[0][1] == _rows([b"1"])


@pytest.mark.parametrize("version", VERSIONS)
def test_no_truncation_counts_as_whole(version: Version) -> None:
    """Wherever the archive ends too early, closing says so."""
    content = build.head(ENTRIES, version=version) + DATA

    for length in range(len(content)):
        reader = _fed([content[:length]])
        with pytest.raises(ArchiveError):
            reader.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_no_truncation_counts_as_whole_byte_by_byte(version: Version) -> None:
    """The same where the bytes come one by one: only the last one makes it whole."""
    *others, last = of_size(build.head(ENTRIES, version=version) + DATA, 1)
    reader = ArchiveReader()
    for byte in others:
        reader.feed(byte)
        with pytest.raises(ArchiveError):
            reader.close()
    reader.feed(last)

    _assert_all_read(reader)


@given(st.binary(min_size=1, max_size=30))
def test_nothing_may_follow_the_end(rest: bytes) -> None:
    """Bytes behind the last block are refused, whatever they are."""
    with pytest.raises(ArchiveError):
        _fed([HEAD + DATA + rest]).close()


def test_the_contents_are_not_known_before_the_head_has_ended() -> None:
    """Asking too early is an error, not an empty answer."""
    with pytest.raises(ArchiveError, match="before its proper end"):
        _ = _fed([HEAD[:50]]).contents


@pytest.mark.parametrize("left_out", [2, 3, 4, 5])
def test_a_missing_block_is_noticed(left_out: int) -> None:
    """Every entry that should have data must have come, an empty table too."""
    blocks = {
        2: build.rows_block(2, ORDERS),
        3: build.rows_block(3, []),
        4: build.rows_block(4, []),
        5: build.large_objects_block(5, OBJECTS),
    }
    del blocks[left_out]
    name = next(each.name for each in ENTRIES if each.dump_id == left_out)

    with pytest.raises(ArchiveError, match=f"{name} is not in the archive"):
        _fed([HEAD, *blocks.values()]).close()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (build.rows_block(77, []), "entry 77, which is not due"),
        (build.rows_block(-2, []), "entry -2, which is not due"),
        (build.rows_block(2, ORDERS), "entry 2, which is not due"),
    ],
    ids=["unknown", "negative", "twice"],
)
def test_a_block_that_is_not_due_is_refused(block: bytes, words: str) -> None:
    """Data of an entry that is unknown, or came before, is refused."""
    with pytest.raises(ArchiveError, match=words):
        _fed([HEAD + DATA, block])


def test_a_block_for_an_entry_without_data_is_refused() -> None:
    """Data for what has none by the contents is refused."""
    with pytest.raises(ArchiveError):
        _fed([HEAD, build.rows_block(6, []), DATA]).close()


@pytest.mark.parametrize("kind", [0, 2, 4, 255])
def test_a_block_of_unknown_kind_is_refused(kind: int) -> None:
    """There are blocks of rows and of large objects, and no others."""
    block = bytes([kind]) + build.rows_block(2, [])[1:]

    with pytest.raises(ArchiveError, match=f"unknown kind {kind}$"):
        _fed([HEAD, block])


@pytest.mark.parametrize("before", [b"", build.integer(2) + b"1\n"], ids=len)
def test_a_negative_chunk_is_refused(before: bytes) -> None:
    """A length below zero is no length, in the first place or behind a row."""
    block = b"\1" + build.integer(2) + before + build.integer(-4) + b"abc\n"
    block += build.integer(0)

    with pytest.raises(ArchiveError, match="negative length"):
        _fed([HEAD, block])


@pytest.mark.parametrize(
    "chunk", [b"1\n", b"1", b"1\n\\.\n\n", b"\\N\n\n\n", b""], ids=repr
)
def test_rows_without_their_end_are_refused(chunk: bytes) -> None:
    """A block whose rows lack pg_dump's own end is cut short, and named."""
    chunks = build.integer(len(chunk)) + chunk if chunk else b""
    block = b"\1" + build.integer(2) + chunks + build.integer(0)

    with pytest.raises(ArchiveError, match=r"public\.orders is cut short"):
        _fed([HEAD, block])
