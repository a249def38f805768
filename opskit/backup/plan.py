"""The commands that dump a database: a catch-all, and the largest tables beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from opskit.catalog.manifest import (
    CATCH_ALL,
    ROWS,
    LargeObjectsRecord,
    SequenceRecord,
    TableRecord,
)
from opskit.errors import BackupFailed
from opskit.postgres import globals, patterns, roles
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.connect import Connection, client_connection, milliseconds
from opskit.postgres.globals import Globals
from opskit.postgres.inventory import Role
from opskit.postgres.servers.programs import Installation
from opskit.postgres.snapshot import TableSizes

_STREAMS_MAX = 4


def usual_streams(processors: int) -> int:
    """Return how many dumps at once a machine is good for where nobody has said.

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


# By schema and name: the extension, and the condition of the rows that are dumped.
OfExtensions = Mapping[tuple[str, str], tuple[str, str | None]]


def tables(
    readers: Iterable[ArchiveReader], of_extensions: OfExtensions
) -> tuple[TableRecord, ...]:
    """Return a record of each table whose data came by in any of the archives."""
    found = []
    for entry, content in (each for reader in readers for each in reader.tables()):
        extension, condition = of_extensions.get(
            (entry.schema, entry.name), (None, None)
        )
        found.append(
            TableRecord(
                schema=entry.schema,
                name=entry.name,
                rows=content.rows,
                digest=content.digest,
                columns=entry.columns,
                via_root=entry.loaded_into,
                extension=extension,
                condition=condition,
            )
        )
    return tuple(found)


def sequences(
    reader: ArchiveReader, of_extensions: OfExtensions
) -> tuple[SequenceRecord, ...]:
    """Return a record of each sequence that the dump sets."""
    found = []
    for entry in reader.contents.entries:
        if entry.kind == "SEQUENCE SET":
            last_value, is_called = entry.sequence_value
            extension, _condition = of_extensions.get(
                (entry.schema, entry.name), (None, None)
            )
            found.append(
                SequenceRecord(
                    schema=entry.schema,
                    name=entry.name,
                    last_value=last_value,
                    is_called=is_called,
                    extension=extension,
                )
            )
    return tuple(found)


def large_objects(reader: ArchiveReader) -> LargeObjectsRecord:
    """Return a record of all large objects that came by."""
    found = reader.large_objects()
    return LargeObjectsRecord(
        count=found.count, size_bytes=found.size_bytes, digest=found.digest
    )


_ATTEMPTS = 5


def take(
    url: str, client: Installation, connection: Connection, *, lock_wait: timedelta
) -> tuple[Globals, tuple[Role, ...]]:
    """Return the globals as SQL, and the same roles as records.

    The programs for the SQL know no snapshot, and the connection must not be in one: it
    is done again while roles change.

    Raises:
        BackupFailed: they change all the time.
    """
    for _ in range(_ATTEMPTS):
        before = roles.take(connection)
        found = globals.dump(url, client, connection, lock_wait=lock_wait)
        unchanged = roles.take(connection) == before
        # One may have come and gone in between.
        if unchanged and found.roles() == {each.name for each in before}:
            return found, before
    raise BackupFailed(
        "roles were changed each time that they were read",
        hint="Run the backup again when nothing makes or drops roles.",
    )


def require_roles(
    taken: Iterable[Role], entries: Iterable[TocEntry], needed: Iterable[str]
) -> None:
    """Check that a role which the dump names was not dropped or renamed since.

    Raises:
        BackupFailed: one is gone, so that nobody could restore the dump.
    """
    named = {entry.owner for entry in entries}.union(needed) - {""}
    gone = named - {each.name for each in taken}
    # PostgreSQL's own are on every server, and in no dump of the roles.
    gone = {name for name in gone if not name.startswith("pg_")}
    if gone:
        raise BackupFailed(
            f"the dump names roles that are gone by now: {', '.join(sorted(gone))}",
            hint="They were dropped or renamed meanwhile; run the backup again.",
        )
