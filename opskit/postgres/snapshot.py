"""An exported snapshot, held as long as the dump needs it, and the lock around it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from opskit.errors import LockHeld
from opskit.postgres.connect import (
    Connection,
    connect,
    query,
    query_value,
    translated,
)

# The first half of the key of every advisory lock that opskit takes ("opsk").
_LOCK_CLASS = 0x6F70736B


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a database, shared by every session that names its id."""

    id: str
    taken_at: datetime
    connection: Connection


@contextlib.contextmanager
def exported(url: str, *, purpose: str, lock_wait: timedelta) -> Iterator[Snapshot]:
    """Yield a snapshot that other sessions can adopt while the block lasts.

    `taken_at` is by the server's own clock.
    """
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

    def require_held(self) -> None:
        """Check that the lock is still held.

        Raises:
            DatabaseError: its connection is lost, and the lock with it.
        """
        with translated(f"the lock {self.name} was lost, another run may have started"):
            self.connection.execute("SELECT 1")


@contextlib.contextmanager
def database_lock(
    url: str, *, name: str, run_id: str, lock_wait: timedelta
) -> Iterator[DatabaseLock]:
    """Hold an advisory lock in the database itself: one run, from whichever host.

    It lives on a connection of its own and dies with it. `lock_wait` is how long that
    connection waits for the locks of others.

    Raises:
        LockHeld: another session holds it; the message says who, and since when.
    """
    purpose = f"{name} run {run_id}"
    with connect(url, purpose=purpose, lock_wait=lock_wait) as connection:
        taken = query_value(
            connection,
            "SELECT pg_try_advisory_lock(%s, hashtext(%s))",
            _LOCK_CLASS,
            name,
        )
        if not taken:
            raise _held(connection, name)
        yield DatabaseLock(name, connection)


def _held(connection: Connection, name: str) -> LockHeld:
    rows = query(
        connection,
        """
        SELECT a.application_name, a.pid, coalesce(a.client_addr::text, 'local socket'),
               a.backend_start
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted
          AND l.database =
            (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.classid = %s::int8::oid
          AND l.objid = (hashtext(%s)::int8 & 4294967295)::oid
        """,
        _LOCK_CLASS,
        name,
    )
    if rows:
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
