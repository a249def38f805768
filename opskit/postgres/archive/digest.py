"""Rows and content digest of a table, whatever order its rows come in.

The digest of a row is the XXH3 128-bit hash of its line in COPY text format; the
digest of a table is the sum of them modulo 2**128. Addition does not care for order,
and unlike XOR it counts equal rows. XXH3 finds every accident; it is no defence against
a forger, whom the SHA-256 of each stored object is for.
XXH3: https://github.com/Cyan4973/xxHash
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xxhash import xxh3_128, xxh3_128_digest, xxh3_128_intdigest

_MODULUS = 1 << 128
# pg_dump ends the rows of a table with a line `\.` and two empty lines.
_TERMINATOR = b"\\.\n\n\n"
_TAIL_BYTES = 1 + len(_TERMINATOR)
_TERMINATOR_LINES = (b"\\.", b"", b"")
# Enough for the sum of as many digests as there are rows in one piece.
_CARRY = bytes(4)
_DIGEST_AND_CARRY_BITS = 128 + 8 * len(_CARRY)


@dataclass(frozen=True, kw_only=True)
class ContentDigest:
    """What a table holds: `rows` is a count, `digest` 32 hexadecimal digits."""

    rows: int
    digest: str


def total(parts: Iterable[ContentDigest]) -> ContentDigest:
    """Return the digest of several tables' rows taken together."""
    known = list(parts)
    summed = sum(int(each.digest, 16) for each in known) % _MODULUS
    return ContentDigest(rows=sum(each.rows for each in known), digest=f"{summed:032x}")


class RowDigest:
    """Takes COPY text in pieces of any size and sums the digests of its rows.

    A newline inside a value is escaped in COPY text, so each newline ends a row.
    Memory stays constant.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0
        self._partial: xxh3_128 | None = None
        self._tail = b""

    @property
    def rows(self) -> int:
        """Rows that have ended so far."""
        return self._rows

    def update(self, data: bytes) -> None:
        """Take the next piece of the text."""
        if not data:
            return
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._partial is not None:
            self._partial.update(lines[0])
            lines[0] = b""
            self._sum += self._partial.intdigest() - xxh3_128_intdigest(b"")
            self._partial = None
        self._sum += _sum_of_digests(lines)
        self._rows += len(lines)
        if rest:
            self._partial = self._partial or xxh3_128()
            self._partial.update(rest)

    def update_lines(self, lines: list[bytes]) -> bool:
        """Take whole rows without line ends, which is quicker; False if not whole."""
        if self._partial is not None or b"\n" in b"".join(lines):
            return False
        if lines:
            self._tail = lines[-1][-len(_TERMINATOR) :] + b"\n"
            self._sum += _sum_of_digests(lines)
            self._rows += len(lines)
        return True

    def drop_terminator(self) -> bool:
        """Take pg_dump's end of a table out again; False if there is none."""
        # With the line end before it: a row may end in the same characters.
        if self._tail not in (_TERMINATOR, b"\n" + _TERMINATOR):
            return False
        self._rows -= len(_TERMINATOR_LINES)
        self._sum -= _sum_of_digests(_TERMINATOR_LINES)
        return True

    def result(self) -> ContentDigest:
        """Return the digest of all rows; ValueError if the last one has no end."""
        if self._partial is not None:
            raise ValueError("the data ends in the middle of a row")
        return ContentDigest(rows=self._rows, digest=f"{self._sum % _MODULUS:032x}")


def _sum_of_digests(lines: Sequence[bytes]) -> int:
    """Return the sum of the lines' digests.

    All stand in one long number, with room for what is carried; halves of it are added
    until one is left: far fewer steps of Python than one for each line.
    """
    total = int.from_bytes(_CARRY.join(map(xxh3_128_digest, lines)), "big")
    count = len(lines)
    while count > 1:
        count = (count + 1) // 2
        bits = count * _DIGEST_AND_CARRY_BITS
        total = (total >> bits) + (total & ((1 << bits) - 1))
    return total


@dataclass(frozen=True, kw_only=True)
class LargeObjectsDigest:
    """All large objects: their number, size in bytes, and one digest over them."""

    count: int
    size_bytes: int
    digest: str


class LargeObjectDigest:
    """Sums the digests of large objects; each covers its number and its content."""

    def __init__(self) -> None:
        self._count = 0
        self._size_bytes = 0
        self._sum = 0
        self._current = xxh3_128()

    def begin(self, oid: int) -> None:
        """Start the object with this number."""
        self._count += 1
        self._current = xxh3_128(b"%d:" % oid)

    def update(self, data: bytes) -> None:
        """Take the next piece of the object's content."""
        self._size_bytes += len(data)
        self._current.update(data)

    def end(self) -> None:
        """End the object begun last."""
        self._sum += self._current.intdigest()

    def result(self) -> LargeObjectsDigest:
        """Return the digest of all objects that ended."""
        return LargeObjectsDigest(
            count=self._count,
            size_bytes=self._size_bytes,
            digest=f"{self._sum % _MODULUS:032x}",
        )
