"""Takes rows out of the chunks of an archive: the hot loop of a backup."""

from __future__ import annotations

import contextlib
import struct

# What kind of data a block holds: its first byte.
TABLE_BLOCK = 1
LARGE_OBJECTS_BLOCK = 3
# A length before a chunk: its sign and its value.
INTEGER = struct.Struct("<bI")
# The last byte of a row with the next length's sign, both as one number, and its value.
_BETWEEN_ROWS = struct.Struct("<HI")
_LINE_END_AND_PLUS = ord("\n")


def whole_rows(data: bytes, position: int) -> tuple[list[bytes], int]:
    """Return the chunks at a position that are a line each, and where they end.

    pg_dump makes a chunk of every row. The rows come without the ends of their lines.
    Left to whoever needs more than that are what is cut in two and the table's end.
    """
    rows: list[bytes] = []
    unpack = _BETWEEN_ROWS.unpack_from
    add = rows.append
    start = position + INTEGER.size
    with contextlib.suppress(struct.error):  # no more bytes
        sign, length = INTEGER.unpack_from(data, position)
        end = start + length - 1
        while not sign:
            between, length = unpack(data, end)
            if between != _LINE_END_AND_PLUS:
                break
            add(data[start:end])
            start = end + _BETWEEN_ROWS.size
            end = start + length - 1
    if rows and b"\n" in rows[-1]:  # the table's end is such a chunk
        start -= len(rows.pop()) + _BETWEEN_ROWS.size
    return rows, start - INTEGER.size
