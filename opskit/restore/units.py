"""What is compared at once: a table, or the partitions below one root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opskit.catalog.manifest import TableRecord


def units_of(tables: Iterable[TableRecord]) -> list[Sequence[TableRecord]]:
    """Return what is compared at once: a table, or the partitions below one root.

    Rows that were loaded through the root may have come to another partition, as the
    hash of an enum differs from one server to the next; taken together they are equal.
    """
    units: dict[tuple[str, str], list[TableRecord]] = {}
    for table in tables:
        units.setdefault(table.via_root or (table.schema_name, table.name), []).append(
            table
        )
    return list(units.values())


def unit_name(tables: Sequence[TableRecord]) -> str:
    """Return the name of the check that a unit gets."""
    first = tables[0]
    if first.via_root is not None:
        return f"partitions below {'.'.join(first.via_root)}"
    return f"table {first.schema_name}.{first.name}"
