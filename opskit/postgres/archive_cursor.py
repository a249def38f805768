"""Reads the numbers and texts of an archive's head, and writes them."""

from __future__ import annotations

import struct

_INTEGER = struct.Struct("<BI")  # a sign, and a magnitude


class NeedMore(Exception):
    """The bytes at hand end before the table of contents does.

    `needed_bytes` is a guess, by the entries that have come, of how many it has; 0 is
    none.
    """

    needed_bytes = 0


class Cursor:
    """Reads one thing after the other; tens of thousands of entries have many."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        stop = self.position + length
        if stop > len(self.data):
            raise NeedMore
        piece = self.data[self.position : stop]
        self.position = stop
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        try:
            sign, value = _INTEGER.unpack_from(self.data, self.position)
        except struct.error:
            raise NeedMore from None
        self.position += _INTEGER.size
        return -int(value) if sign else int(value)

    def text(self) -> bytes | None:
        length = self.integer()
        return None if length < 0 else self.take(length)


def integer(value: int) -> bytes:
    """Return a number as it stands in a head."""
    return _INTEGER.pack(value < 0, abs(value))


def text(value: bytes | None) -> bytes:
    """Return a text as it stands in a head."""
    return integer(-1) if value is None else integer(len(value)) + value
