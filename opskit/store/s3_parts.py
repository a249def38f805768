"""Cuts a stream into parts that grow with it: no dump meets the limit on parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

PART_BYTES_MAX = 5 * 1024**3
_MOST_PARTS = 10_000
# Parts begin to grow after an eighth of them. With less, 5 TiB from 5 MiB on would
# need more parts than there are; with more, parts grow sooner and take more memory.
_GROWTH_SHARE = 8
_SMALLEST_BASE_BYTES = 5 * 1024**2


@dataclass(frozen=True, kw_only=True)
class PartSizes:
    """How large each part is.

    The first eighth of the parts are of the base size. From there a part is the bytes
    sent so far over an eighth of `max_parts`, and never above 5 GiB. With 10,000 parts
    of 8 MiB to begin with that is 8 MiB up to 10 GB, 80 MB at 100 GB, 800 MB at 1 TB
    and 4 GiB at 5 TiB. With 1,000 parts the base is 50 MiB, and the server's limits
    end at about 2 TiB; with 100 it is 500 MiB. How many are held in memory,
    `s3_room.Room` says.
    """

    base_bytes: int
    max_parts: int

    def next_bytes(self, sent_bytes: int) -> int:
        """Return the size of the part that follows what was sent."""
        base = max(
            self.base_bytes, _SMALLEST_BASE_BYTES * _MOST_PARTS // self.max_parts
        )
        grown = sent_bytes // (self.max_parts // _GROWTH_SHARE)
        return min(max(base, grown), PART_BYTES_MAX)


def cut(chunks: Iterable[bytes], sizes: PartSizes) -> Iterator[tuple[bytearray, bool]]:
    """Yield parts and whether it is the last; at least one, which may be empty.

    A part is handed on as it was gathered, without a copy. The last is known for it
    because a chunk after it was looked for first.
    """
    source = iter(chunks)
    sent_bytes = 0
    part = bytearray()
    wanted = sizes.next_bytes(0)
    for chunk in source:
        view = memoryview(chunk)
        while view:
            if len(part) == wanted:
                full = [part]
                sent_bytes += wanted
                part, wanted = bytearray(), sizes.next_bytes(sent_bytes)
                # Not held here while it is sent, nor by whoever it passes.
                yield full.pop(), False
            taken = view[: wanted - len(part)]
            part += taken
            view = view[len(taken) :]
    yield part, True


def handed_on(
    begun: list[bytearray], rest: Iterator[tuple[bytearray, bool]]
) -> Iterator[bytearray]:
    """Yield the part that a list holds and those that follow, keeping none of them."""
    while begun:
        yield begun.pop()
        begun.extend(part for part, _is_last in islice(rest, 1))
