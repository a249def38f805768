"""How large tables are, by what the catalog knows: without a lock on any of them."""

from __future__ import annotations

from dataclasses import dataclass

from opskit.postgres.connect import Connection, query


@dataclass(frozen=True, kw_only=True)
class TableSizes:
    """Bytes of tables by schema and name, of large objects, and a count of relations.

    Only tables that can be dumped by themselves are among them: rows of partitions by
    hash may have to be loaded through their root, which pg_dump decides by the whole
    tree.
    """

    tables: dict[tuple[str, str], int]
    large_objects_bytes: int
    relations: int


def take(connection: Connection) -> TableSizes:
    """Return the sizes as they were when a table was last vacuumed or analyzed.

    Asking the files for them would lock each table, and wait for every migration.
    """
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname,
               (c.relpages + coalesce(t.relpages, 0))::int8
                 * current_setting('block_size')::int8
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
        tables={(schema, name): size_bytes for schema, name, size_bytes in rows},
        large_objects_bytes=large_objects,
        relations=relations,
    )
