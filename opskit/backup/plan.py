"""The dumps of a database: a catch-all, and the largest tables beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from opskit.backup.stream import DumpStream
from opskit.catalog.manifest import CATCH_ALL, ROWS
from opskit.postgres import patterns, snapshot
from opskit.postgres.connect import (
    Connection,
    client_connection,
    client_environment,
    milliseconds,
)
from opskit.postgres.servers.programs import Installation
from opskit.postgres.snapshot import TableSizes

_STREAMS_MAX = 4


def usual_streams(processors: int) -> int:
    """Return how many dumps at once suit a machine, where none are configured.

    One keeps two processors busy with its server process, pg_dump, digests and zstd;
    and the digests of all streams share one processor, which a few of them fill.
    """
    return max(1, min(processors // 2, _STREAMS_MAX))


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """Which database to back up, with which programs, and what to leave out.

    `streams` is how many dumps may run at once under the one snapshot.
    """

    name: str
    url: str = field(repr=False)
    installations: Sequence[Installation]
    exclude_tables: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()
    lock_wait: timedelta = timedelta(seconds=60)
    compression_level: int = 3
    streams: int = 1


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
        program: pg_dump and the arguments that all dumps have.
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


@dataclass(frozen=True)
class Plan:
    """What is settled before there is a snapshot: the programs, and their commands.

    A table may come or go in between; then a dump does not find it, or lacks it.
    """

    source: DatabaseSource
    client: Installation
    sizes: TableSizes
    commands: Sequence[tuple[str, list[str]]]
    expected: set[TableName]

    def streams(self, snapshot_id: str) -> tuple[DumpStream, ...]:
        """Return the dumps under a snapshot, not yet begun."""
        environment = client_environment(self.source.url)
        return tuple(
            DumpStream(
                role=role,
                arguments=[*command, f"--snapshot={snapshot_id}"],
                environment=environment,
            )
            for role, command in self.commands
        )


def make_plan(
    source: DatabaseSource, client: Installation, connection: Connection
) -> Plan:
    """Plan the dumps of a database as it is now."""
    sizes = snapshot.table_sizes(connection)
    expected = expected_tables(source, connection)
    # Named, so that no setting of the role or the environment chooses another.
    encoding = connection.info.parameter_status("server_encoding")
    planned = commands(
        source,
        [client.program("pg_dump"), f"--encoding={encoding}"],
        expected=expected,
        sizes=sizes,
    )
    return Plan(source, client, sizes, planned, expected)


def expected_tables(source: DatabaseSource, connection: Connection) -> set[TableName]:
    """Return the tables whose rows a dump must hold."""
    return snapshot.expected_tables(
        connection,
        exclude_tables=source.exclude_tables,
        exclude_table_data=source.exclude_table_data,
    )
