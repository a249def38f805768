"""The commands that dump a database: a catch-all, and the largest tables beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from opskit.backup.database_source import DatabaseSource
from opskit.backup.shares import TableName, shares
from opskit.catalog.naming import CATCH_ALL, ROWS
from opskit.postgres import patterns
from opskit.postgres.connect import milliseconds
from opskit.postgres.conninfo import client_connection
from opskit.postgres.table_sizes import TableSizes


def commands(
    source: DatabaseSource,
    program: Sequence[str],
    *,
    expected: Collection[TableName],
    sizes: TableSizes,
) -> list[tuple[str, list[str]]]:
    """Return the role and the command of each dump, the catch-all first.

    Args:
        source: what to dump, and in how many streams at most.
        program: pg_dump and what all of them are told besides.
        expected: the tables whose rows must be dumped; no others are dumped alone.
        sizes: how large they are.
    """
    alone = {
        table: size_bytes
        for table, size_bytes in sizes.tables.items()
        if table in expected and patterns.is_exact(*table)
    }
    others_bytes = sum(sizes.tables.values()) - sum(alone.values())
    own = shares(
        alone,
        streams=source.streams,
        others_bytes=others_bytes + sizes.large_objects_bytes,
        relations=sizes.relations,
    )
    common = [*program, *_manner(source)]
    away = [patterns.exact(*table) for tables in own for table in tables]
    without_data = (*source.exclude_table_data, *away)
    catch_all = [
        *(f"--exclude-table={pattern}" for pattern in source.exclude_tables),
        *(f"--exclude-table-data={pattern}" for pattern in without_data),
    ]
    return [
        (CATCH_ALL, [*common, *catch_all]),
        *(
            (f"{ROWS}{number}", [*common, *_only(tables)])
            for number, tables in enumerate(own, start=1)
        ),
    ]


def _manner(source: DatabaseSource) -> list[str]:
    return [
        f"--dbname={client_connection(source.url)}",
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--lock-wait-timeout={milliseconds(source.lock_wait)}",
    ]


def _only(tables: Sequence[TableName]) -> list[str]:
    # Not --data-only, which warns of foreign keys that form a circle.
    wanted = [f"--table={patterns.exact(*table)}" for table in tables]
    return ["--section=data", "--strict-names", *wanted]
