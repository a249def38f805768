"""The place beside the target: made there, then given its name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from opskit.errors import DatabaseError
from opskit.postgres import database, scratch, takeover
from opskit.postgres.connect import Connection, connect, with_database
from opskit.postgres.inventory import Inventory
from opskit.preflight import ability
from opskit.preflight.shortages import Shortage


def occupied(connection: Connection, server_url: str, target: str) -> bool:
    """Return whether the target exists and holds anything."""
    if not database.exists(connection, target):
        return False
    with connect(with_database(server_url, target), purpose="restore") as found:
        return not database.is_empty(found)


def not_accepted(
    shortages: Iterable[Shortage], accepted: Collection[str]
) -> list[Shortage]:
    """Return what a role may not do and nobody accepts.

    Who does without an extension does not need the right to create it.
    """
    return [e for e in shortages if e.name.removeprefix("right ") not in accepted]


def require_able(
    connection: Connection,
    inventory: Inventory,
    target: str,
    *,
    is_whole: bool,
    accepted: Collection[str] = (),
) -> None:
    """Refuse before anything is read what the role or the server could not do.

    Raises:
        DatabaseError: all of it, by name.
    """
    lacking = not_accepted(
        ability.shortages(connection, inventory, is_whole=is_whole), accepted
    )
    if lacking:
        raise DatabaseError(
            f"the set cannot be restored here: "
            f"{'; '.join(each.detail for each in lacking)}",
            hint=f"{lacking[0].hint} Nothing was read or touched.",
            details={"missing": [each.name for each in lacking]},
        )
    found = takeover.obstacles(connection, target)
    if found:
        raise DatabaseError(
            f"the database {target} cannot be replaced now: it has "
            + ", and ".join(found),
            hint="End it, if need be as a role that may, and run this again; or "
            "restore to another name.",
        )


@contextmanager
def beside(connection: Connection, server_url: str, target: str) -> Iterator[str]:
    """Yield a name for a copy beside the target; on an error the copy is dropped."""
    name = database.derived_name(target, f"_restoring_{secrets.token_hex(4)}")
    try:
        yield name
    except BaseException:
        scratch.drop_copy(connection, server_url, name)
        raise


def sweep(connection: Connection, server_url: str, target: str) -> None:
    """Drop what killed runs left on a server, and open what they had closed."""
    looks_like = re.escape(database.derived_name(target, "_restoring_" + 8 * "x")[:-8])
    scratch.sweep(connection, server_url, looks_like=f"{looks_like}[0-9a-f]{{8}}")


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
