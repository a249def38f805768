"""Gives a restored database its name, and keeps the one that had it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from opskit.postgres import database
from opskit.postgres.connect import Connection, connect
from opskit.postgres.conninfo import with_database


def swap(
    connection: Connection,
    *,
    server_url: str,
    beside: str,
    target: str,
    clock: Callable[[], datetime],
) -> str | None:
    """Rename `beside` to `target`; return the name that the old database is kept under.

    Both renames are one transaction; on an error everything is as it was. An old
    database that still holds nothing is dropped.

    Raises:
        DatabaseError: the role may not, or somebody keeps reconnecting.
    """
    if not database.exists(connection, target):
        database.swap_names(connection, [(beside, target)])
        return None
    kept = database.derived_name(target, f"_before_{clock():%Y%m%dt%H%M%Sz}")
    database.swap_names(connection, [(target, kept), (beside, target)])
    # Judged now, when nobody knows its name: something may have been written meanwhile.
    with connect(with_database(server_url, kept), purpose="restore") as old:
        empty = database.is_empty(old)
    if not empty:
        return kept
    database.drop(connection, kept)
    return None
