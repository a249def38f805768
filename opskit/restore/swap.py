"""Gives a restored database its name, and keeps the one that had it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from opskit.postgres import database
from opskit.postgres.connect import Connection


def swap(
    connection: Connection,
    *,
    beside: str,
    target: str,
    keep_old: bool,
    clock: Callable[[], datetime],
) -> str | None:
    """Rename `beside` to `target`; return the name that the old database is kept under.

    Sessions of the old database are ended, both renames are one transaction, and on an
    error everything is as it was. An old database that is not to be kept is dropped.

    Raises:
        DatabaseError: the role may not, or somebody keeps reconnecting.
    """
    if not database.exists(connection, target):
        database.rename(connection, [(beside, target)])
        return None
    kept = database.derived_name(target, f"_before_{clock():%Y%m%dt%H%M%Sz}")
    try:
        database.disconnect_others(connection, target)
        database.rename(connection, [(target, kept), (beside, target)])
    except BaseException:
        database.allow_connections(connection, target)
        raise
    if keep_old:
        database.allow_connections(connection, kept)
        return kept
    database.drop(connection, kept)
    return None
