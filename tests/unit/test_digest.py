"""Digest: equal exactly for equal contents, however they come."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xxhash import xxh3_128_intdigest

from opskit.postgres.archive.digest import ContentDigest, RowDigest, total
from tests.unit.pieces import cut

TERMINATOR = b"\\.\n\n\n"

# COPY text: a newline, a carriage return and a backslash inside a value are escaped.
_escaped = st.sampled_from([b"\\n", b"\\r", b"\\\\", b"\\t", b"\\N", b"."])
_plain = st.binary(max_size=8).map(lambda value: value.translate(None, b"\n\r\\"))
_rows = st.lists(
    st.lists(st.one_of(_escaped, _plain), max_size=4).map(b"".join), max_size=12
)


def _fed(pieces: Iterable[bytes]) -> RowDigest:
    digest = RowDigest()
    for piece in pieces:
        digest.update(piece)
    return digest


def _digest(rows: Iterable[bytes]) -> ContentDigest:
    return _fed([b"".join(row + b"\n" for row in rows)]).result()


@pytest.mark.parametrize(
    ("rows", "digest"),
    [
        ([], "0" * 32),
        ([b""], "99aa06d3014798d86001c324468d497f"),
        ([b"1\ta", b"2\t\\N"], "872a93caf626dbf71ce360cc0b142f22"),
    ],
)
def test_the_digest_never_changes_its_meaning(rows: list[bytes], digest: str) -> None:
    """Digests of older sets must be what they were when those were taken."""
    found = _digest(rows)

    assert found == ContentDigest(rows=len(rows), digest=digest)


@given(_rows)
def test_the_digest_is_the_sum_of_its_rows(rows: list[bytes]) -> None:
    """It is what the module says: each row hashed, the hashes summed."""
    expected = sum(map(xxh3_128_intdigest, rows)) % 2**128

    assert _digest(rows) == ContentDigest(rows=len(rows), digest=f"{expected:032x}")


@given(st.lists(_rows, max_size=4))
def test_lines_give_the_digest_of_their_text(groups: list[list[bytes]]) -> None:
    """The quick way tells the same, in whatever groups the rows come."""
    digest = RowDigest()

    assert all(digest.update_lines(rows) for rows in groups)
    assert digest.result() == _digest(row for rows in groups for row in rows)


def test_the_largest_digests_are_summed_without_losing_a_carry() -> None:
    """Many equal rows: their sum is far more than one digest can hold."""
    rows = [b"a row"] * 70_001
    expected = xxh3_128_intdigest(b"a row") * len(rows) % 2**128

    assert _digest(rows) == ContentDigest(rows=len(rows), digest=f"{expected:032x}")


def test_what_is_no_line_is_left_to_the_slow_way() -> None:
    """Two lines in one, or a row begun before: nothing is taken, and that is told."""
    two, begun = RowDigest(), RowDigest()
    begun.update(b"half a")

    assert not two.update_lines([b"1", b"2\n3"])
    assert two.result().rows == 0
    assert not begun.update_lines([b"1"])


@given(_rows, st.randoms(use_true_random=False))
def test_any_order_gives_one_digest(rows: list[bytes], random: Random) -> None:
    """The order of rows is no part of a table."""
    shuffled = list(rows)
    random.shuffle(shuffled)

    assert _digest(shuffled) == _digest(rows)


@given(_rows, _rows)
def test_other_rows_give_another_digest(one: list[bytes], other: list[bytes]) -> None:
    """Two tables have one digest exactly if they hold the same rows equally often."""
    assert (_digest(one) == _digest(other)) == (sorted(one) == sorted(other))


@given(_rows.filter(bool), st.data())
def test_a_missing_row_is_noticed(rows: list[bytes], data: st.DataObject) -> None:
    """Dropping any row changes digest and count, as does doubling it."""
    number = data.draw(st.integers(0, len(rows) - 1))
    dropped = _digest(rows[:number] + rows[number + 1 :])
    doubled = _digest([*rows, rows[number]])

    assert len({dropped.digest, _digest(rows).digest, doubled.digest}) == 3
    assert (dropped.rows, doubled.rows) == (len(rows) - 1, len(rows) + 1)


@given(_rows.filter(bool), st.data())
def test_a_changed_byte_is_noticed(rows: list[bytes], data: st.DataObject) -> None:
    """Any other value in any row changes the digest, the count stays."""
    number = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(_plain)
    assume(other != rows[number])
    changed = _digest([*rows[:number], other, *rows[number + 1 :]])

    assert changed.digest != _digest(rows).digest
    assert changed.rows == len(rows)


@given(_plain, _plain, _plain, _plain)
def test_values_swapped_between_rows_are_noticed(
    a: bytes, b: bytes, c: bytes, d: bytes
) -> None:
    """The same values in other rows are another table."""
    assume(a != c)
    assume(b != d)

    assert _digest([a + b"\t" + b, c + b"\t" + d]) != _digest(
        [a + b"\t" + d, c + b"\t" + b]
    )


@given(st.binary(min_size=2, max_size=30), st.data())
def test_a_moved_line_end_is_noticed(text: bytes, data: st.DataObject) -> None:
    """The same bytes split into rows at another place are another table."""
    text = text.replace(b"\n", b" ")
    first = data.draw(st.integers(0, len(text)))
    second = data.draw(st.integers(0, len(text)))
    one, other = (sorted([text[:at], text[at:]]) for at in (first, second))
    assume(one != other)

    assert _digest(one) != _digest(other)


@given(_rows, st.data(), st.booleans())
def test_pieces_do_not_matter(
    rows: list[bytes], data: st.DataObject, terminated: bool
) -> None:
    """However the bytes are cut into pieces, empty ones too, the digest is the same."""
    text = b"".join(row + b"\n" for row in rows) + TERMINATOR * terminated
    digest = _fed(cut(data, text))

    assert not terminated or digest.drop_terminator()
    assert digest.result() == _digest(rows)


@given(_rows)
def test_the_terminator_is_taken_out_again(rows: list[bytes]) -> None:
    """pg_dump's own end of the data is no row, whatever the rows before it."""
    digest = _fed([b"".join(row + b"\n" for row in rows), TERMINATOR])

    assert digest.drop_terminator()
    assert digest.result() == _digest(rows)


@pytest.mark.parametrize(
    "rows",
    [
        [b"", b"", b""],  # a table without columns: each row is an empty line
        [b"\\\\."],  # the value `\.`, escaped
        [b"\\\\.", b"", b""],
        [b"x\\\\.", b"\\N"],
    ],
)
def test_rows_like_the_terminator_are_rows(rows: list[bytes]) -> None:
    """Empty rows and a value that looks like the end are counted as what they are."""
    digest = _fed([b"".join(row + b"\n" for row in rows) + TERMINATOR])

    assert digest.drop_terminator()
    assert digest.result() == _digest(rows)
    assert digest.rows == len(rows)


@pytest.mark.parametrize("length", range(len(TERMINATOR)))
@pytest.mark.parametrize("rows", [b"", b"1\n", b"\n\n\n"])
def test_a_terminator_cut_short_is_none(rows: bytes, length: int) -> None:
    """Without its last bytes the end is not taken for one."""
    digest = _fed([rows + TERMINATOR[:length]])

    assert not digest.drop_terminator()


@pytest.mark.parametrize("first", [b"\\\\.", b"x\\\\."])
def test_a_value_that_ends_like_the_terminator_is_none(first: bytes) -> None:
    """A last value `\\.` and two empty rows are three rows, and no end."""
    digest = _fed([first + b"\n\n\n"])

    assert not digest.drop_terminator()


@given(_rows, _plain.filter(bool))
def test_a_truncated_row_is_refused(rows: list[bytes], rest: bytes) -> None:
    """Data that ends inside a row has no digest."""
    digest = _fed([b"".join(row + b"\n" for row in rows) + rest])

    with pytest.raises(ValueError, match="middle of a row"):
        digest.result()


def test_a_giant_row_needs_no_giant_memory() -> None:
    """A row far larger than the pieces is digested as it passes."""
    piece = b"x" * 2**20
    tracemalloc.start()
    try:
        digest = _fed(piece for _ in range(64))
        _current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    digest.update(b"\n")

    assert digest.result() == _digest([piece * 64])
    assert peak < 8 * 2**20


@given(st.lists(_rows, max_size=5))
def test_the_total_of_parts_is_the_digest_of_the_whole(
    parts: list[list[bytes]],
) -> None:
    """Partitions taken together are one table, however its rows are spread."""
    whole = [row for part in parts for row in part]

    assert total(iter([_digest(part) for part in parts])) == _digest(whole)


@given(_rows.filter(bool), _rows, st.data())
def test_the_total_counts_every_row(
    one: list[bytes], other: list[bytes], data: st.DataObject
) -> None:
    """A row that moves leaves it as it was; one that is lost or doubled does not."""
    number = data.draw(st.integers(0, len(one) - 1))
    rest, row = one[:number] + one[number + 1 :], one[number]
    before = total([_digest(one), _digest(other)])

    assert total([_digest(rest), _digest([*other, row])]) == before
    assert total([_digest(rest), _digest(other)]).digest != before.digest
    assert total([_digest([*one, row]), _digest(other)]).digest != before.digest


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], (0, "0" * 32)),
        ([(2, "f" * 32), (3, f"{2:032x}")], (5, f"{1:032x}")),
        ([(1, f"{255:032x}")], (1, f"{255:032x}")),
    ],
)
def test_a_total_has_the_form_of_a_digest(
    parts: list[tuple[int, str]], expected: tuple[int, str]
) -> None:
    """Of none it is that of no rows; beyond the last digit it begins anew."""
    found = total(ContentDigest(rows=rows, digest=digest) for rows, digest in parts)

    assert (found.rows, found.digest) == expected
