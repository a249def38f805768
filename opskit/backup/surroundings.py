"""The roles and tablespaces of a dump: read while they hold still, and none missing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from opskit.errors import BackupFailed
from opskit.postgres import globals, roles
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection
from opskit.postgres.globals import Globals
from opskit.postgres.servers.programs import Installation

_ATTEMPTS = 5


def take(
    url: str, client: Installation, connection: Connection, *, lock_wait: timedelta
) -> tuple[Globals, list[dict[str, Any]]]:
    """Return the globals as SQL, and the same roles as records.

    The programs for the SQL know no snapshot, and the connection must not be in one: it
    is done again while roles change.

    Raises:
        BackupFailed: they change all the time.
    """
    for _ in range(_ATTEMPTS):
        before = roles.take(connection)
        found = globals.dump(url, client, connection, lock_wait=lock_wait)
        unchanged = roles.take(connection) == before
        # One may have come and gone in between.
        if unchanged and found.roles() == {each["name"] for each in before}:
            return found, before
    raise BackupFailed(
        "roles were changed each time that they were read",
        hint="Run the backup again when nothing makes or drops roles.",
    )


def require_roles(
    taken: Iterable[dict[str, Any]], entries: Iterable[TocEntry], needed: Iterable[str]
) -> None:
    """Check that a role which the dump names was not dropped or renamed since.

    Raises:
        BackupFailed: one is gone, so that nobody could restore the dump.
    """
    named = {entry.owner for entry in entries}.union(needed) - {""}
    gone = named - {each["name"] for each in taken}
    # PostgreSQL's own are on every server, and in no dump of the roles.
    gone = {name for name in gone if not name.startswith("pg_")}
    if gone:
        raise BackupFailed(
            f"the dump names roles that are gone by now: {', '.join(sorted(gone))}",
            hint="They were dropped or renamed meanwhile; run the backup again.",
        )
