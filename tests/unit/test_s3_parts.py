"""Parts of an upload: how large, how many, and cut out of any chunks."""

from __future__ import annotations

import pytest

from opskit.store.s3.upload import PART_BYTES_MAX, PartSizes, cut

MIB, TIB = 1024**2, 1024**4


def _schedule(sizes: PartSizes, size_bytes: int) -> list[int]:
    """Return the size of each part that an object of this size is put in."""
    found: list[int] = []
    sent = 0
    while sent < size_bytes:
        found.append(min(sizes.next_bytes(sent), size_bytes - sent))
        sent += found[-1]
    return found


@pytest.mark.parametrize("base_bytes", [5 * MIB, 8 * MIB, 64 * MIB])
def test_five_tebibytes_stay_within_ten_thousand_parts(base_bytes: int) -> None:
    """The largest object that S3 holds meets no limit on the number of parts."""
    found = _schedule(PartSizes(base_bytes=base_bytes, max_parts=10_000), 5 * TIB)

    assert len(found) <= 10_000
    assert sum(found) == 5 * TIB
    assert max(found) <= PART_BYTES_MAX


def test_parts_grow_late_and_slowly() -> None:
    """What is not huge is put in small parts, which is what memory is needed for."""
    sizes = PartSizes(base_bytes=8 * MIB, max_parts=10_000)

    assert set(_schedule(sizes, 10 * 10**9)[:-1]) == {8 * MIB}
    assert max(_schedule(sizes, 100 * 10**9)) == pytest.approx(80 * 10**6, rel=0.01)
    assert max(_schedule(sizes, 10**12)) == pytest.approx(800 * 10**6, rel=0.01)


@pytest.mark.parametrize(
    ("max_parts", "base_bytes", "size_bytes"),
    [(1000, 50 * MIB, 2 * TIB), (100, 500 * MIB, 300 * 1024**3)],
)
def test_fewer_parts_are_larger(
    max_parts: int, base_bytes: int, size_bytes: int
) -> None:
    """Where a server allows few parts they begin larger, and still suffice."""
    sizes = PartSizes(base_bytes=8 * MIB, max_parts=max_parts)
    found = _schedule(sizes, size_bytes)

    assert found[0] == base_bytes
    assert len(found) <= max_parts
    assert max(found) <= PART_BYTES_MAX


@pytest.mark.parametrize("chunk", [1, 7, 1000, 5000])
@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 2000, 4321])
def test_parts_are_cut_out_of_any_chunks(chunk: int, length: int) -> None:
    """Whatever the chunks, all parts but the last are full, and none is empty."""

    class Thousand(PartSizes):
        def next_bytes(self, sent_bytes: int) -> int:
            return 1000

    content = bytes(number % 251 for number in range(length))
    chunks = [content[at : at + chunk] for at in range(0, length, chunk)]
    found = list(cut(chunks, Thousand(base_bytes=1, max_parts=100)))

    assert b"".join(part for part, _ in found) == content
    assert [len(part) for part, _ in found[:-1]] == [1000] * (len(found) - 1)
    assert len(found) == max(1, -(-length // 1000))
    assert [is_last for _, is_last in found] == [False] * (len(found) - 1) + [True]
