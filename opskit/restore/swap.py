"""Gives a restored database its name, and keeps the one that had it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from opskit.postgres import database, takeover
from opskit.postgres.connect import Connection, connect
from opskit.postgres.conninfo import with_database


def swap(
    connection: Connection,
    *,
    server_url: str,
    beside: str,
    target: str,
    run_id: str,
    clock: Callable[[], datetime],
) -> str | None:
    """Rename `beside` to `target`; return the name that the old database is kept under.

    Both renames are one transaction; on an error everything is as it was. An old
    database that still holds nothing is dropped.

    Raises:
        DatabaseError: the role may not, or somebody stays in the old database.
    """
    kept = None
    if database.exists(connection, target):
        kept = database.derived_name(target, f"_before_{clock():%Y%m%dt%H%M%Sz}")
    takeover.take_name(connection, copy=beside, target=target, kept=kept, run_id=run_id)
    if kept is None:
        return None
    # Judged now, when nobody knows its name: something may have been written meanwhile.
    with connect(with_database(server_url, kept), purpose="restore") as old:
        empty = database.is_empty(old)
    if not empty:
        return kept
    database.drop(connection, kept)
    return None
