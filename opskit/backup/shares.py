"""Which tables are dumped by which of several streams under one snapshot.

The largest tables go where there is least so far; everything else (small tables,
definitions, sequences, large objects) stays with the first stream, the catch-all.
"""

from __future__ import annotations

from collections.abc import Mapping

TableName = tuple[str, str]

# Each pg_dump begins by reading the catalog: in the time that takes for one relation it
# dumps about this much. What a stream brings must be worth its beginning.
_BYTES_PER_RELATION = 64 * 1024
_STREAM_BYTES_MIN = 64 * 1024 * 1024
# Names go on a command line; and what is not among the largest tips no balance.
_TABLES_PER_STREAM_MAX = 16


def shares(
    sizes: Mapping[TableName, int], *, streams: int, others_bytes: int, relations: int
) -> tuple[tuple[TableName, ...], ...]:
    """Return the tables of each stream but the catch-all; empty if one is enough.

    Args:
        sizes: bytes of the tables that may have a stream to themselves.
        streams: how many there may be, the catch-all among them.
        others_bytes: what the catch-all dumps anyway.
        relations: how many relations the catalog has.
    """
    least = max(_STREAM_BYTES_MIN, relations * _BYTES_PER_RELATION)
    ordered = sorted(sizes, key=lambda each: (-sizes[each], each))
    largest = ordered[: streams * _TABLES_PER_STREAM_MAX]
    small_bytes = sum(sizes[each] for each in ordered[len(largest) :])
    loads = [others_bytes + small_bytes, *[0] * (streams - 1)]
    tables: list[list[TableName]] = [[] for _ in loads]
    for table in largest:
        number = loads.index(min(loads))
        loads[number] += sizes[table]
        tables[number].append(table)
    return tuple(
        tuple(held)
        for held, load in zip(tables[1:], loads[1:], strict=True)
        if load >= least
    )
