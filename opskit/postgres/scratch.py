"""Databases that restores and drills make beside others: found again, and dropped."""

from __future__ import annotations

import contextlib
from typing import LiteralString

from psycopg import sql

from opskit.errors import DatabaseError
from opskit.postgres.connect import Connection, connect, query
from opskit.postgres.conninfo import with_database
from opskit.postgres.database import drop, exists


def idle(connection: Connection) -> list[str]:
    """Return the names of the databases in which there is no session."""
    rows = connection.execute(
        "SELECT datname FROM pg_database d WHERE NOT EXISTS "
        "(SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)"
    )
    return [name for (name,) in rows]


def abandoned(connection: Connection, pattern: str) -> list[str]:
    """Return the databases of a name that no session is in or is named for.

    `pattern` is a regular expression for the whole name: others' databases may begin
    in the same way.
    """
    rows = connection.execute(
        """
        SELECT datname FROM pg_database d
        WHERE datname::text ~ %s AND NOT EXISTS (
          SELECT FROM pg_stat_activity a
          WHERE a.datid = d.oid OR d.datname::text ^@ nullif(
            replace(a.application_name, 'opskit ', ''), ''))
        """,
        (f"^(?:{pattern})$",),
    )
    return [name for (name,) in rows]


def drop_copy(connection: Connection, url: str, name: str) -> None:
    """Drop a restored copy, with the subscriptions in it, which would hold it back.

    `url` leads to any database of the server. A copy's subscriptions were never
    connected; nothing is asked of their publishers.
    """
    if not exists(connection, name):
        return
    with contextlib.suppress(DatabaseError):
        # A database that cannot be entered is dropped all the same, or says why not.
        _drop_subscriptions(with_database(url, name))
    drop(connection, name)


def _drop_subscriptions(url: str) -> None:
    with connect(url, purpose="cleaning up") as inside:
        for (subscription,) in query(
            inside,
            "SELECT subname FROM pg_subscription s JOIN pg_database d "
            "ON d.oid = s.subdbid WHERE d.datname = current_database()",
        ):
            for action in ("ALTER {} DISABLE", "ALTER {} SET (slot_name = NONE)"):
                inside.execute(_about_subscription(action, subscription))
            inside.execute(_about_subscription("DROP {}", subscription))


def _about_subscription(action: LiteralString, name: str) -> sql.Composed:
    return sql.SQL(action).format(
        sql.SQL("SUBSCRIPTION {}").format(sql.Identifier(name))
    )
