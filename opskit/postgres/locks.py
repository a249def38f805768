"""Notices that pg_dump waits for a lock: for which, who holds it, and how long."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg.rows import TupleRow

from opskit.errors import BackupFailed, DatabaseError, OpskitError
from opskit.postgres.connect import (
    Connection,
    query,
    query_value,
    server_major,
    translated,
)
from opskit.postgres.snapshot import DatabaseLock

# Below are the OIDs of the server's own objects.
_FIRST_OWN = 16384
# How the server names an object when it does not find its name any more.
_NUMBERED = re.compile(
    r"\b(?:OID|relation|index|type|function|constraint|trigger|rule|schema) (\d+)\b"
)


class SchemaChanged(BackupFailed):
    """Something changed between the snapshot and the locks: a new snapshot may do."""


def explanation(
    error: OpskitError,
    snapshot: Connection,
    now: Connection,
    *,
    planned: Iterable[tuple[str, str]],
) -> BackupFailed | None:
    """Return what is known better than a dump's error: changes, and names for OIDs.

    `snapshot` is a connection in the dump's snapshot, `now` one in none. The `planned`
    tables were gone when the snapshot was taken.
    """
    before, after = _objects(snapshot), _objects(now)

    def named(number: re.Match[str]) -> str:
        _, name = before.get(int(number[1]), ("", ""))
        return f"{number[0]} ({name})" if name else number[0]

    words = _NUMBERED.sub(named, error.said)
    changed = {name for _, (_, name) in before.items() - after.items()}
    changed.update(map(".".join, planned))
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        # Of a table and its triggers, the table.
        first = min(changed, key=lambda each: (" on " in each, each))
        return SchemaChanged(
            f"{first}{others} changed while the backup began",
            said=f"{error.summary}: {words}" if words else error.summary,
            hint="Run the backup again when the migration has ended.",
        )
    if words == error.said:
        return None
    return BackupFailed(error.summary, said=words, hint=error.hint)


def _objects(connection: Connection) -> dict[int, tuple[str, str]]:
    """Return the version and the name of each object, by its OID."""
    rows = query(
        connection,
        """
        WITH own AS (
          SELECT oid, nspname AS name FROM pg_namespace
          WHERE nspname !~ '^pg_(toast|temp_)'),
        relations AS (
          SELECT c.oid, format('%I.%I', name, relname) AS name,
                 concat_ws(' ', c.xmin::text,
                   (SELECT string_agg(a.xmin::text, ' ' ORDER BY attnum)
                    FROM pg_attribute a WHERE attrelid = c.oid)) AS version
          FROM pg_class c JOIN own ON own.oid = relnamespace)
        SELECT oid, xmin::text, quote_ident(nspname) FROM pg_namespace
        WHERE oid IN (SELECT oid FROM own)
        UNION ALL SELECT p.oid, p.xmin::text, format('%I.%I', name, proname)
        FROM pg_proc p JOIN own ON own.oid = pronamespace
        UNION ALL SELECT t.oid, t.xmin::text,
          -- The type of a table's rows, and of an array of them, by the table's name.
          format('%I.%I', own.name, coalesce(c.relname, t.typname))
        FROM pg_type t JOIN own ON own.oid = t.typnamespace
          LEFT JOIN pg_type e ON e.oid = t.typelem
          LEFT JOIN pg_class c ON c.oid IN (t.typrelid, e.typrelid) AND c.oid <> 0
        UNION ALL SELECT c.oid, c.xmin::text, format('%I.%I', name, conname)
        FROM pg_constraint c JOIN own ON own.oid = connamespace
        UNION ALL SELECT t.oid, t.xmin::text, format('%I on %s', tgname, name)
        FROM pg_trigger t JOIN relations r ON r.oid = tgrelid
        UNION ALL SELECT p.oid, p.xmin::text, format('%I on %s', polname, name)
        FROM pg_policy p JOIN relations r ON r.oid = polrelid
        UNION ALL SELECT w.oid, w.xmin::text, format('%I on %s', rulename, name)
        FROM pg_rewrite w JOIN relations r ON r.oid = ev_class
        UNION ALL SELECT oid, version, name FROM relations""",
    )
    return {oid: (version, name) for oid, version, name in rows if oid >= _FIRST_OWN}


_LOOK_SECONDS = 0.5
# SQLSTATE of a wait that lock_timeout ended.
TIMED_OUT = "55P03"

_END_LOOKS, _END_LOOK_SECONDS = 100, 0.02
_OURS: LiteralString = """
    WITH ours AS (
        SELECT pid, pg_blocking_pids(pid) AS blockers FROM pg_stat_activity
        WHERE datname = current_database() AND usename = session_user
          AND application_name = 'pg_dump' AND backend_start >= %s)"""
# Those that wait, for what, and for whom; whether that one waits for us in turn.
_WAITING: LiteralString = """
    SELECT ours.pid,
           pg_blocking_pids(b.pid) && ARRAY(SELECT pid FROM ours),
           coalesce(format('%%I.%%I', n.nspname, c.relname), l.locktype),
           blocking.pid, b.usename, b.application_name, b.state
    FROM ours CROSS JOIN LATERAL unnest(blockers) blocking (pid)
      LEFT JOIN pg_stat_activity b ON b.pid = blocking.pid
      LEFT JOIN pg_locks l ON l.pid = ours.pid AND NOT l.granted
      LEFT JOIN pg_class c ON c.oid = l.relation
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace"""


class LockWait(BackupFailed):
    """A lock that somebody else holds was waited for long enough."""


class LockWatch:
    """Looks through another session at what the pg_dumps begun from now on wait for.

    pg_dump bounds its wait for tables, but not for what it reads of the catalog.
    """

    def __init__(self, lock: DatabaseLock, limit: timedelta) -> None:
        self._lock, self._limit = lock, limit
        self._begun = query_value(lock.connection, "SELECT clock_timestamp()")
        self._guard = threading.Lock()
        self._looked = 0.0
        self._since: dict[int, float] = {}
        self._who = ""

    @property
    def connection(self) -> Connection:
        """The connection that it asks by, which is in no snapshot."""
        return self._lock.connection

    def look(self) -> None:
        """Look, unless that was done just now; callable from any thread.

        Raises:
            LockWait: one has waited for longer than the limit.
            SchemaChanged: one waits for somebody who waits for another one of them.
        """
        with self._guard:
            now = time.monotonic()
            if now - self._looked < _LOOK_SECONDS:
                return
            self._looked = now
            self._lock.require_held()
            waiting = self._waiting()
            self._since = {pid: self._since.get(pid, now) for pid, *_ in waiting}
            self._who = "; ".join(
                dict.fromkeys(_holder(*each) for _, _, *each in waiting)
            )
            if any(in_between for _, in_between, *_ in waiting):
                raise SchemaChanged(
                    f"another session locked a table between two dumps: {self._who}",
                    hint="Run the backup again when the migration has ended.",
                )
            if any(
                now - since > self._limit.total_seconds()
                for since in self._since.values()
            ):
                raise self.waited("pg_dump")

    def wait_for_end(self) -> None:
        """Wait a little until the server has noticed that they ended."""
        with contextlib.suppress(DatabaseError), translated("waiting for pg_dump"):
            for _ in range(_END_LOOKS):
                if not query(self.connection, _OURS + "TABLE ours", self._begun):
                    return
                time.sleep(_END_LOOK_SECONDS)

    @property
    def is_waiting(self) -> bool:
        """Whether one waited when this was last looked at."""
        return bool(self._since)

    def waited(self, who: str) -> LockWait:
        """Return the error for a wait that has ended."""
        holders = self._who or "; ".join(self._holders())
        return LockWait(
            f"{who} waited longer than {self._limit.total_seconds():g} seconds for a "
            "lock" + (f": {holders}" if holders else ""),
            hint="Perhaps a migration holds the table; run the backup again when it "
            "has ended, or raise lock_wait of this database.",
        )

    def _waiting(self) -> list[TupleRow]:
        """Return who waits, whether in a circle, for what, and who holds the lock."""
        try:
            with translated("looking for what pg_dump waits for"):
                return query(self.connection, _OURS + _WAITING, self._begun)
        except DatabaseError as error:
            if error.sqlstate == TIMED_OUT:
                raise self.waited("looking for locks") from error
            raise

    def _holders(self) -> list[str]:
        """Return who holds a lock that even reading has to wait for."""
        try:
            with translated("who holds locks"):
                rows = query(
                    self.connection,
                    """
                    SELECT format('%I.%I', n.nspname, c.relname),
                           b.pid, b.usename, b.application_name, b.state
                    FROM pg_locks l JOIN pg_stat_activity b ON b.pid = l.pid
                      JOIN pg_class c ON c.oid = l.relation
                      JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE l.mode = 'AccessExclusiveLock' AND l.granted
                      AND l.database IN (0, (SELECT oid FROM pg_database
                                             WHERE datname = current_database()))""",
                )
        except DatabaseError:
            return []  # the lock is on what tells of locks
        return [_holder(*row) for row in rows]


def _holder(
    what: str, pid: int, role: str | None, application: str | None, state: str | None
) -> str:
    if not pid:
        return f"{what} is locked by a prepared transaction"
    known = (application, role and f"role {role}", state)
    who = f" ({', '.join(filter(None, known))})" if any(known) else ""
    return f"{what} is locked by server process {pid}{who}"


# Statements that the user wrote in the configuration run under this name.
OWN_STATEMENTS = "statements"
_FIRST_WITH_COPY_PROGRESS = 14
_COPIED = "(SELECT c::text FROM pg_stat_progress_copy c WHERE c.pid = a.pid)"
# One that waits for a lock, its client or a disk is not the one that holds all up.
_WORKING: LiteralString = """
    SELECT a.pid, a.query_start, a.query, {copied},
        (SELECT i::text FROM pg_stat_progress_create_index i WHERE i.pid = a.pid)
    FROM pg_stat_activity a
    WHERE a.datname = ANY (%s) AND a.state = 'active' AND a.pid <> pg_backend_pid()
        AND a.application_name <> %s
        AND coalesce(a.wait_event_type, '') NOT IN ('Lock', 'Client', 'IO')"""


@dataclass(frozen=True)
class Session:
    """A session, its statement, and how far that has come, where the server says so."""

    pid: int
    began_at: datetime
    statement: str
    copied: str | None
    indexed: str | None


def working(connection: Connection, databases: Sequence[str]) -> list[Session]:
    """Return the sessions in some databases that work, but for the user's own."""
    copied: LiteralString = "pg_database_size(a.datname)::text"
    if server_major(connection) >= _FIRST_WITH_COPY_PROGRESS:
        copied = _COPIED
    rows = query(
        connection,
        _WORKING.replace("{copied}", copied),
        list(databases),
        f"opskit {OWN_STATEMENTS}",
    )
    return [Session(*row) for row in rows]


def end(connection: Connection, databases: Sequence[str]) -> None:
    """End all sessions in some databases."""
    query(
        connection,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = ANY (%s) AND pid <> pg_backend_pid()",
        list(databases),
    )
