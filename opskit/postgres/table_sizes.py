"""How large tables are, by what the catalog knows: without a lock on any of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, query

_PAGE_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class TableSizes:
    """Bytes and rows of tables by schema and name, bytes of large objects, and a count.

    The count is of relations. What was never analyzed has no rows.

    Only tables that can be dumped by themselves are among them: rows of partitions by
    hash may have to be loaded through their root, which pg_dump decides by the whole
    tree.
    """

    tables: dict[tuple[str, str], int]
    large_objects_bytes: int
    relations: int
    rows: dict[tuple[str, str], int] = field(default_factory=dict)


def take(connection: Connection) -> TableSizes:
    """Return the sizes as they were when a table was last vacuumed or analyzed.

    Asking the files for them would lock each table, and wait for every migration.
    """
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname,
               (c.relpages + coalesce(t.relpages, 0))::int8
                 * current_setting('block_size')::int8,
               greatest(c.reltuples, 0)::int8
        FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relkind = 'r' AND c.relpersistence <> 't'
          AND NOT (c.relispartition AND EXISTS (
            SELECT FROM pg_partition_ancestors(c.oid) a
              JOIN pg_partitioned_table p ON p.partrelid = a.relid
            WHERE p.partstrat = 'h'))
        """,
    )
    (large_objects, relations), *_ = query(
        connection,
        """
        SELECT coalesce(sum(c.relpages) FILTER (
                 WHERE c.oid = 'pg_catalog.pg_largeobject'::regclass), 0)::int8
                 * current_setting('block_size')::int8,
               count(*)
        FROM pg_class c
        """,
    )
    return TableSizes(
        tables={(schema, name): size_bytes for schema, name, size_bytes, _rows in rows},
        rows={(schema, name): number for schema, name, _size, number in rows},
        large_objects_bytes=large_objects,
        relations=relations,
    )


class Weights:
    """How much of a dump each piece of it is, to say how far the dump has come."""

    def __init__(
        self,
        tables: Collection[tuple[str, str]],
        sizes: TableSizes,
        database_bytes: int,
    ) -> None:
        known = {name: sizes.tables.get(name, 0) for name in tables}
        least = _PAGE_BYTES
        if sum(known.values()) < database_bytes / 10:
            # Not analyzed yet: they are taken to be alike.
            least = database_bytes // max(len(known), 1)
        self._tables = {name: max(size, least) for name, size in known.items()}
        self._rows = sizes.rows
        self._large_objects = sizes.large_objects_bytes
        self.total = sum(self._tables.values()) + self._large_objects

    def of(self, entry: TocEntry) -> int:
        """Return the weight of an entry of the archive."""
        if entry.kind == "BLOBS":
            return self._large_objects
        return self._tables.get((entry.schema, entry.name), 0)

    def part(self, entry: TocEntry, *, rows: int, size_bytes: int) -> int:
        """Return the weight of so many rows of an entry, which take so many bytes."""
        whole = self.of(entry)
        if known := self._rows.get((entry.schema, entry.name), 0):
            return min(whole, whole * rows // known)
        return min(whole, size_bytes)
