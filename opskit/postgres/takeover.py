"""Gives a copy the name of a database in use, and says before what would prevent it."""

from __future__ import annotations

import time

import psycopg

from opskit.errors import DatabaseError
from opskit.postgres import database, scratch
from opskit.postgres.connect import (
    Connection,
    query_value,
    translated,
)
from opskit.postgres.sql_text import quoted

_SECONDS_MAX = 30.0
_PAUSE_SECONDS = 0.25
# Of another role's session a role that may not see more than its user sees no type.
_SESSIONS = """
    pg_stat_activity a WHERE a.datname = ANY (%s)
    AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
    AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
"""
_MAY_END = """
    (SELECT r.rolsuper OR NOT u.rolsuper AND (pg_has_role(u.oid, 'USAGE')
       OR pg_has_role('pg_signal_backend', 'USAGE'))
     FROM pg_roles r, pg_roles u WHERE r.rolname = current_user AND u.oid = a.usesysid)
"""


def obstacles(connection: Connection, name: str) -> list[str]:
    """Return what in a database keeps it from being renamed or ties it to its name."""
    rows = connection.execute(
        f"""
        SELECT 'the prepared transaction ' || gid
        FROM pg_prepared_xacts WHERE database = %s
        UNION ALL SELECT 'the replication slot ' || slot_name
        FROM pg_replication_slots WHERE database = %s
        UNION ALL SELECT 'the enabled subscription ' || subname
        FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
        WHERE s.subenabled AND d.datname = %s
        UNION ALL SELECT DISTINCT
          'a session of the role ' || a.usename || ', which this role may not end'
        FROM {_SESSIONS} AND NOT {_MAY_END}
        """,  # noqa: S608  # put together from constants
        (name, name, name, [name]),
    )
    return [text for (text,) in rows]


def take_name(
    connection: Connection, *, copy: str, target: str, kept: str | None, run_id: str
) -> None:
    """Give a copy the name `target`; a database that has it is called `kept` then.

    Everybody is kept out first. Whatever happens, the old database lets sessions in
    again; after a kill, `scratch.sweep` sees to that, by the copy's mark.

    Raises:
        DatabaseError: somebody who may not be ended stays, or the role may not rename.
    """
    names = [copy] if kept is None else [copy, target]
    if kept is not None:
        oid = query_value(
            connection, "SELECT oid FROM pg_database WHERE datname = %s", target
        )
        scratch.mark(connection, copy, run_id, closed=oid)
    try:
        for name in names:
            database.allow_connections(connection, name, allowed=False)
        _rename_when_free(connection, copy, target, kept)
    except BaseException:
        for name in reversed(names):
            database.allow_connections(connection, name, allowed=True)
        raise


def _rename_when_free(
    connection: Connection, copy: str, target: str, kept: str | None
) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    names = [copy, target]
    while True:
        connection.execute(
            f"SELECT pg_terminate_backend(a.pid) FROM {_SESSIONS} AND {_MAY_END}",  # noqa: S608
            (names,),
        )
        try:
            with translated("renaming"), connection.transaction():
                _rename(connection, copy, target, kept)
        except DatabaseError as error:
            if not isinstance(error.__cause__, psycopg.errors.ObjectInUse):
                raise
            if time.monotonic() > deadline:
                raise _still_in_use(connection, copy, target, kept) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _rename(connection: Connection, copy: str, target: str, kept: str | None) -> None:
    scratch.unmark(connection, copy)
    if kept is not None:
        database.rename(connection, target, kept)
        database.allow_connections(connection, kept, allowed=True)
    database.rename(connection, copy, target)
    database.allow_connections(connection, target, allowed=True)


def _still_in_use(
    connection: Connection, copy: str, target: str, kept: str | None
) -> DatabaseError:
    """Keep the copy, which is complete, and return the error that says so."""
    scratch.unmark(connection, copy)
    steps = "" if kept is None else f"ALTER DATABASE {quoted(target)} RENAME TO "
    steps += "" if kept is None else f"{quoted(kept)}; "
    steps += f"ALTER DATABASE {quoted(copy)} RENAME TO {quoted(target)};"
    inside = obstacles(connection, target) or obstacles(connection, copy)
    return DatabaseError(
        f"the databases cannot be renamed while they are in use: {', '.join(inside)}",
        hint=f"The restored copy was compared and is kept as {copy}. When nobody is in "
        f"either database: {steps}",
        details={"kept": copy},
    )
