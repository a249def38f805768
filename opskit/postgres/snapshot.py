"""An exported snapshot, held as long as the dump needs it, and the lock around it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from opskit.errors import LockHeld
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import (
    Connection,
    connect,
    cut_off,
    query,
    query_column,
    query_value,
    translated,
)
from opskit.postgres.schema import excluded_relations

# The first half of the key of every advisory lock that opskit takes ("opsk").
_LOCK_CLASS = 0x6F70736B
_ATTEMPT = re.compile(r"opskit job (\d+)\.(\d+) ")
_TAKEOVER_SECONDS = 10.0
_RELEASE_TIME = timedelta(seconds=5)
_SERVER_KEEPALIVES = {
    f"tcp_keepalives_{name}": setting
    for name, setting in (("idle", "60"), ("interval", "10"), ("count", "6"))
}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a database, shared by every session that names its id."""

    id: str
    taken_at: datetime
    connection: Connection


@contextlib.contextmanager
def exported(url: str, *, purpose: str, lock_wait: timedelta) -> Iterator[Snapshot]:
    """Yield a snapshot that other sessions can adopt; its time is the server's."""
    with connect(
        url, purpose=purpose, autocommit=False, lock_wait=lock_wait
    ) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = query(connection, "SELECT pg_export_snapshot(), clock_timestamp()")
        snapshot_id, taken_at = rows[0]
        yield Snapshot(id=snapshot_id, taken_at=taken_at, connection=connection)


@dataclass(frozen=True)
class DatabaseLock:
    """An advisory lock in a database, and the connection that it lives on."""

    name: str
    connection: Connection

    def require_held(self, *, within: timedelta | None = None) -> None:
        """Raise DatabaseError if the connection is lost, and the lock with it.

        A server that does not answer `within` a time is cut off: it counts as lost.
        """
        doing = f"the lock {self.name} was lost, another run may have started"
        limit = (
            contextlib.nullcontext()
            if within is None
            else cut_off(self.connection, within)
        )
        with translated(doing), limit:
            self.connection.execute("SELECT 1")


# The number of a job of a fleet, and that of an attempt at it.
Attempt = tuple[int, int]


@contextlib.contextmanager
def database_lock(
    url: str,
    *,
    name: str,
    run_id: str,
    lock_wait: timedelta,
    attempt: Attempt | None = None,
) -> Iterator[DatabaseLock]:
    """Hold an advisory lock in the database itself: one run, from whichever host.

    It dies with its own connection, which waits `lock_wait` for locks of others.
    LockHeld says who holds it, and since when. An attempt at a job of a fleet takes it
    from an earlier one, whose machine may only be stopped.
    """
    purpose = f"{name} run {run_id}"
    if attempt is not None:
        purpose = f"job {attempt[0]}.{attempt[1]} {purpose}"
    with connect(url, purpose=purpose, lock_wait=lock_wait) as connection:
        _end_when_we_vanish(connection)
        if not _is_taken(connection, name) and not (
            attempt is not None and _is_taken_over(connection, name, attempt)
        ):
            raise _held(connection, name)
        try:
            yield DatabaseLock(name, connection)
        finally:
            _free(connection, name)


def _is_taken(connection: Connection, name: str) -> bool:
    statement: LiteralString = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
    return bool(query_value(connection, statement, _LOCK_CLASS, name))


def _free(connection: Connection, name: str) -> None:
    """Give the lock back: a server may end a session long after its client has left.

    Where it is lost already, or the server does not answer, it ends with the session.
    """
    statement: LiteralString = "SELECT pg_advisory_unlock(%s, hashtext(%s))"
    with (
        contextlib.suppress(psycopg.Error, OSError),
        cut_off(connection, _RELEASE_TIME),
    ):
        query(connection, statement, _LOCK_CLASS, name)


def _is_taken_over(connection: Connection, name: str, attempt: Attempt) -> bool:
    """End the session of an earlier attempt at the same job, and take its lock."""
    for application, process, *_ in _holders(connection, name):
        found = _ATTEMPT.match(application)
        if not found or int(found[1]) != attempt[0] or int(found[2]) >= attempt[1]:
            return False
        with translated(f"the session of {application} cannot be ended"):
            query(connection, "SELECT pg_terminate_backend(%s)", process)
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    while not (is_taken := _is_taken(connection, name)):
        if time.monotonic() > deadline:
            break
        time.sleep(_TAKEOVER_SECONDS / 100)
    return is_taken


def _end_when_we_vanish(connection: Connection) -> None:
    """Have the server end the session two minutes after this machine has vanished.

    By its own settings it may take two hours, in which the lock would stay.
    """
    for name, setting in _SERVER_KEEPALIVES.items():
        query(connection, "SELECT set_config(%s, %s, false)", name, setting)


def _holders(connection: Connection, name: str) -> list[TupleRow]:
    return query(
        connection,
        """
        SELECT a.application_name, a.pid, coalesce(a.client_addr::text, 'local socket'),
               a.backend_start
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted
          AND l.database =
            (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.classid = %s::int8::oid
          AND l.objid = (hashtext(%s)::int8 & 4294967295)::oid""",
        _LOCK_CLASS,
        name,
    )


def _held(connection: Connection, name: str) -> LockHeld:
    if rows := _holders(connection, name):
        application, pid, address, started = rows[0]
        who = (
            f"{application} (server process {pid}, from {address}, "
            f"since {started:%FT%TZ})"
        )
    else:
        who = "a session that has just ended"
    return LockHeld(
        f"the lock {name} in the database is held by {who}",
        hint="Wait for that run to end; the lock is freed when its session ends.",
        details={"holder": who},
    )


_PAGE_BYTES = 8192


# The schema of a table, and its name.
TableName = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class TableSizes:
    """Bytes and rows of tables by schema and name, and what else is in the database.

    What was never analyzed has no rows. Only tables that can be dumped by themselves
    are among them: rows of partitions by hash may have to be loaded through their root,
    which pg_dump decides by the whole tree.
    """

    tables: dict[TableName, int]
    large_objects_bytes: int
    relations: int
    rows: dict[tuple[str, str], int] = field(default_factory=dict)


def table_sizes(connection: Connection) -> TableSizes:
    """Return the sizes as of the last vacuum or analyze.

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
            WHERE p.partstrat = 'h'))""",
    )
    (large_objects, relations), *_ = query(
        connection,
        """
        SELECT coalesce(sum(c.relpages) FILTER (
                 WHERE c.oid = 'pg_catalog.pg_largeobject'::regclass), 0)::int8
                 * current_setting('block_size')::int8,
               count(*)
        FROM pg_class c""",
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


def expected_tables(
    connection: Connection,
    *,
    exclude_tables: Sequence[str] = (),
    exclude_table_data: Sequence[str] = (),
) -> set[tuple[str, str]]:
    """Return the tables (schema, name) whose rows a dump of this snapshot must hold.

    Asked of the catalog, so that a table which pg_dump left out is noticed. Tables of
    extensions are their own; a standby has no rows of unlogged tables to give.
    """
    left_out = excluded_relations(connection, [*exclude_tables, *exclude_table_data])
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r'
          AND c.relpersistence <> 't'
          AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT c.oid = ANY (%s::oid[])
          AND NOT EXISTS (
            SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
              AND d.deptype = 'e')""",
        left_out,
    )
    return {(schema, name) for schema, name in rows}


def rewritten_tables(connection: Connection) -> list[str]:
    """Return the tables whose rows were replaced since the snapshot was taken.

    TRUNCATE and the rewriting kinds of ALTER TABLE do not wait for a snapshot: until
    pg_dump has its locks they can leave it an empty table, or another one. Dropped ones
    are named as the snapshot knows them.
    """
    return query_column(
        connection,
        """
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relfilenode <> 0 AND c.oid >= 16384
          AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
        ORDER BY 1""",
    )
