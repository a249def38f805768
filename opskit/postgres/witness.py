"""Witness: has a server write down which locks a database's statements take."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, LiteralString

from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.connect import (
    Connection,
    connect,
    execute,
    has_row,
    query,
    query_value,
    server_major,
    translated,
)
from opskit.threads import Thread

# With these a server writes each statement, its end and our notes into one file. What
# statements are given as parameters may be rows, and is left out.
SETTINGS = {
    "logging_collector": "on",
    "log_destination": "csvlog",
    "log_directory": "log",
    "log_filename": "witness.log",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_timezone": "UTC",
    "log_statement": "all",
    "log_duration": "on",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
    # As much is written ahead as by a server that has standbys.
    "wal_level": "replica",
}
_FILE = "log/witness.csv"
_NOTE = "opskit-witness "
# The columns of csvlog, the same since PostgreSQL 13:
# https://www.postgresql.org/docs/current/runtime-config-logging.html
_TIME, _DATABASE, _PID, _TRANSACTION, _SEVERITY, _SQLSTATE = 0, 2, 3, 9, 11, 12
_MESSAGE, _QUERY, _APPLICATION = 13, 19, 22

# An event trigger sees all locks that its session holds, those of earlier statements
# too. It runs in the transaction itself, so that no tool can do without it, and what
# it writes stays when that is rolled back. Names are written at once: what is dropped
# has none afterwards.
_INSTALL: LiteralString = """
    CREATE SCHEMA opskit_witness;
    CREATE FUNCTION opskit_witness.note() RETURNS event_trigger LANGUAGE plpgsql
      SET search_path = pg_catalog AS $note$
    DECLARE rewritten json;
    BEGIN
      IF tg_event = 'table_rewrite' THEN
        rewritten = json_build_array(
          pg_event_trigger_table_rewrite_oid()::int8,
          pg_event_trigger_table_rewrite_reason());
      END IF;
      RAISE LOG 'opskit-witness %', json_build_object(
        'tag', tg_tag, 'rewritten', rewritten, 'locks', (
          SELECT json_agg(json_build_array(
            l.relation::int8, l.mode, n.nspname, c.relname, c.relkind))
          FROM pg_locks l
            LEFT JOIN pg_class c ON c.oid = l.relation
            LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE l.pid = pg_backend_pid() AND l.granted AND l.relation >= 16384
            AND l.locktype = 'relation'));
    END $note$;
    CREATE EVENT TRIGGER opskit_witness_end ON ddl_command_end
      EXECUTE FUNCTION opskit_witness.note();
    CREATE EVENT TRIGGER opskit_witness_drop ON sql_drop
      EXECUTE FUNCTION opskit_witness.note();
    CREATE EVENT TRIGGER opskit_witness_rewrite ON table_rewrite
      EXECUTE FUNCTION opskit_witness.note();
    ALTER EVENT TRIGGER opskit_witness_end ENABLE ALWAYS;
    ALTER EVENT TRIGGER opskit_witness_drop ENABLE ALWAYS;
    ALTER EVENT TRIGGER opskit_witness_rewrite ENABLE ALWAYS;
"""
_REMOVE: LiteralString = """
    DROP EVENT TRIGGER opskit_witness_end, opskit_witness_drop, opskit_witness_rewrite;
    DROP SCHEMA opskit_witness CASCADE;
"""
_LOOK_SECONDS = 0.005
_SIZE_SECONDS = 0.25
_FLUSH_SECONDS_MAX = 10
_FIRST_WITH_SHARED_STATISTICS = 15
_COLLECTED_SECONDS = 1


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A mode in which a relation is locked; its name is as the server wrote it."""

    relation: int
    mode: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the server's log about a session of the database.

    `transaction` is empty outside of one. `note` is what an event trigger wrote.
    """

    time: datetime
    session: int
    transaction: str
    message: str
    sqlstate: str = ""
    query: str = ""
    application: str = ""
    note: Mapping[str, Any] | None = None

    @property
    def locks(self) -> list[Lock]:
        """The locks that the session held when the note was written."""
        held = (self.note or {}).get("locks") or ()
        return [
            Lock(relation=relation, mode=mode, name=f"{schema}.{name}" if name else "")
            for relation, mode, schema, name, _kind in held
        ]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A relation as it was before: whose table it belongs to, its file, what was read.

    An index and a TOAST table belong to their table; `above` are the partitioned tables
    that it is a part of.
    """

    name: str
    table: str
    kind: str
    filenode: int
    rows_read: int
    rows: int
    written: int = 0
    above: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Sampled:
    """What was seen by looking often: locks, and the largest size.

    A lock is kept by its session and transaction, with when it was seen first and last.
    It was held in between, however long nobody looked: a transaction gives back no
    lock, but to a savepoint.
    """

    locks: dict[tuple[int, str, Lock], tuple[datetime, datetime]] = field(
        default_factory=dict
    )
    waited: set[tuple[int, str]] = field(default_factory=set)
    size_bytes_max: int = 0
    failure: DatabaseError | None = None


def relations(connection: Connection) -> dict[int, Relation]:
    """Return all relations of the database that are its own, by their OIDs."""
    rows = query(
        connection,
        """
        SELECT c.oid, format('%I.%I', n.nspname, c.relname),
               format('%I.%I', tn.nspname, t.relname), c.relkind,
               coalesce(pg_relation_filenode(c.oid), 0)::int8,
               coalesce(s.seq_tup_read, 0), greatest(c.reltuples, 0)::int8,
               coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0),
               ARRAY(SELECT format('%I.%I', an.nspname, a.relname)
                     FROM pg_partition_ancestors(t.oid) up
                       JOIN pg_class a ON a.oid = up.relid
                       JOIN pg_namespace an ON an.oid = a.relnamespace
                     WHERE up.relid <> t.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_index i ON i.indexrelid = c.oid
          LEFT JOIN pg_class o ON o.reltoastrelid IN (c.oid, i.indrelid)
            AND o.reltoastrelid <> 0
          JOIN pg_class t ON t.oid = coalesce(o.oid, i.indrelid, c.oid)
          JOIN pg_namespace tn ON tn.oid = t.relnamespace
          LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
        WHERE c.oid >= 16384 AND n.nspname <> 'information_schema'""",
    )
    return {
        oid: Relation(
            name=name,
            table=table,
            kind=kind,
            filenode=filenode,
            rows_read=read,
            rows=rows_held,
            written=written,
            above=tuple(above),
        )
        for oid, name, table, kind, filenode, read, rows_held, written, above in rows
    }


def columns(connection: Connection) -> set[str]:
    """Return the columns of all tables and views, and their types, in words.

    The tables in which tools record what they applied are left out.
    """
    rows = query(
        connection,
        """
        SELECT format('%I.%I.%I %s', n.nspname, c.relname, a.attname,
                      format_type(a.atttypid, a.atttypmod))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'
          AND n.nspname NOT IN ('information_schema', 'opskit', 'opskit_witness')""",
    )
    return {row[0] for row in rows}


@contextmanager
def witnessed(url: str) -> Iterator[None]:
    """Have the event triggers in the database while the block runs.

    The role of the URL is a superuser.
    """
    with connect(url, purpose="witness") as connection:
        connection.execute(_INSTALL)
        try:
            yield
        finally:
            with translated("taking the event triggers away"):
                connection.execute(_REMOVE)


def position(connection: Connection) -> int:
    """Return where the log ends now."""
    return int(query_value(connection, "SELECT size FROM pg_stat_file(%s)", _FILE))


def wait_for_sessions(connection: Connection, database: str) -> None:
    """Wait until the sessions of migrations have ended, and what they did is counted.

    A session counts at its end, which comes a moment after its client has left; before
    PostgreSQL 15 a process of its own collects that.
    """
    deadline = time.monotonic() + _FLUSH_SECONDS_MAX
    while has_row(
        connection,
        "SELECT FROM pg_stat_activity WHERE datname = %s "
        "AND backend_type = 'client backend' AND application_name NOT LIKE 'opskit %%'",
        database,
    ):
        if time.monotonic() > deadline:
            break  # it was left behind by the tool: what it did so far is counted
        time.sleep(_LOOK_SECONDS)
    if server_major(connection) < _FIRST_WITH_SHARED_STATISTICS:
        time.sleep(_COLLECTED_SECONDS)


def read_log(connection: Connection, database: str, begin: int) -> list[Line]:
    """Return what the log has on sessions of the database since a position.

    Waits until the logging process has written what was said before.
    """
    mark = f"opskit read {time.monotonic_ns()}"
    execute(connection, "SELECT {mark}", mark=mark)
    deadline = time.monotonic() + _FLUSH_SECONDS_MAX
    while True:
        text = query_value(
            connection,
            "SELECT convert_from(pg_read_binary_file(%s, %s, size - %s), 'UTF8') "
            "FROM pg_stat_file(%s)",
            _FILE,
            begin,
            begin,
            _FILE,
        )
        if mark in text:
            return [*_lines(text, database, connection.info.backend_pid)]
        if time.monotonic() > deadline:
            raise ServerFault(
                "the server's log is not written",
                hint="See whether its disk is full, then run this again.",
            )
        time.sleep(_LOOK_SECONDS)


def _lines(text: str, database: str, own: int) -> Iterator[Line]:
    for row in csv.reader(io.StringIO(text)):
        if len(row) <= _APPLICATION or row[_DATABASE] != database:
            continue
        if row[_APPLICATION].startswith("opskit ") or int(row[_PID]) == own:
            continue
        message = row[_MESSAGE]
        note = None
        if message.startswith(_NOTE):
            note = json.loads(message.removeprefix(_NOTE))
        transaction = row[_TRANSACTION]
        yield Line(
            time=_time(row[_TIME]),
            session=int(row[_PID]),
            transaction="" if transaction.endswith("/0") else transaction,
            message=message,
            sqlstate=row[_SQLSTATE],
            query=row[_QUERY],
            application=row[_APPLICATION],
            note=note,
        )


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=UTC)


@contextmanager
def sampled(url: str, database: str) -> Iterator[Sampled]:
    """Look at locks and sizes as often as possible while the block runs.

    `url` leads to another database of the server. What the block gets is complete
    after it.
    """
    seen, stopped = Sampled(), threading.Event()
    with connect(url, purpose="sampler") as connection:
        # What looks so often would be most of the log.
        connection.execute("SET log_statement = none")
        connection.execute("SET log_duration = off")
        watch = Thread(_sample, connection, database, seen, stopped, name="sampler")
        try:
            yield seen
        finally:
            stopped.set()
            watch.join()
    if seen.failure is not None:
        raise seen.failure


def _sample(
    connection: Connection, database: str, seen: Sampled, stopped: threading.Event
) -> None:
    try:
        with translated("looking at locks"):
            _look(connection, database, seen, stopped)
    except DatabaseError as error:
        seen.failure = error


def _look(
    connection: Connection, database: str, seen: Sampled, stopped: threading.Event
) -> None:
    sized = 0.0
    while not stopped.wait(_LOOK_SECONDS):
        for pid, transaction, relation, mode, granted, kind, before, after in query(
            connection,
            # Between the two times the server looked at locks, or was held up.
            """
            SELECT l.pid, l.virtualtransaction, l.relation::int8, l.mode, l.granted,
                   l.locktype, statement_timestamp(), clock_timestamp()
            FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE a.datname = %s AND a.application_name NOT LIKE 'opskit %%'
              AND (NOT l.granted
                   OR l.locktype = 'relation' AND l.relation >= 16384)""",
            database,
        ):
            if not granted:
                seen.waited.add((pid, kind))
                continue
            key = pid, transaction, Lock(relation=relation, mode=mode)
            first, _last = seen.locks.get(key, (after, after))
            seen.locks[key] = first, max(first, before)
        if time.monotonic() - sized > _SIZE_SECONDS:
            sized = time.monotonic()
            seen.size_bytes_max = max(
                seen.size_bytes_max, disk_bytes(connection, database)
            )


def disk_bytes(connection: Connection, database: str) -> int:
    """Return what a database takes on disk now, with the server's temporary files."""
    return int(
        query_value(
            connection,
            "SELECT pg_database_size(%s) + coalesce(sum(size), 0) FROM pg_ls_tmpdir()",
            database,
        )
    )
