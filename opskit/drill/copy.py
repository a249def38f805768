"""Makes the copy that a drill compares: surroundings first, then the archive."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opskit.drill.servers import DrillServer
from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import database, globals
from opskit.postgres.connect import Connection, connect
from opskit.postgres.toc_entry import TocEntry
from opskit.restore import preflight
from opskit.restore.concessions import Concessions, accept
from opskit.restore.preflight import Shortage

_SCRATCH = "opskit_drill_"
_FIRST_DATABASES = ("postgres", "template1")
REFERENCE_SUFFIX = "_reference"


@contextmanager
def scratch_name(running: DrillServer, source: str) -> Iterator[tuple[Connection, str]]:
    """Yield a connection beside the copy, and a name for it that is free.

    On a throw-away server the copy has the source's own name. On another one it has a
    name of its own; it is dropped with the block, and what killed drills left there is
    dropped first. A drill that runs is known by its session's name.
    """
    if running.is_throwaway:
        beside = next(each for each in _FIRST_DATABASES if each != source)
        with connect(running.url(beside), purpose="drill") as connection:
            if database.exists(connection, source):
                database.drop_template(connection, source)
            yield connection, source
        return
    name = f"{_SCRATCH}{secrets.token_hex(6)}"
    with database.maintenance(running.url("postgres"), purpose=name) as connection:
        for leftover in database.abandoned(connection, _SCRATCH):
            logger().warning("dropping what a killed drill left", database=leftover)
            database.drop(connection, leftover)
        try:
            yield connection, name
        finally:
            for each in (name, name + REFERENCE_SUFFIX):
                database.drop(connection, each)


def require_surroundings(
    connection: Connection,
    running: DrillServer,
    inventory: dict[str, object],
    entries: Sequence[TocEntry],
    allowed: Sequence[str],
) -> Concessions:
    """Return what the drill does without, all of it allowed by name.

    Raises:
        DatabaseError: the server lacks something else.
    """
    found = preflight.shortages(
        connection,
        inventory,
        entries,
        creates_roles=running.is_throwaway,
        creates_tablespaces=running.is_throwaway,
    )
    refused = [each for each in found if each.name not in allowed]
    if refused:
        raise lacking(running.description, refused)
    for each in found:
        logger().warning("drilling without", missing=each.name, allowed_in="[drill]")
    return accept(entries, found)


def lacking(server: str, refused: Sequence[Shortage]) -> DatabaseError:
    """Return the error that names all that a server lacks, and what to do."""
    names = ", ".join(f'"{each.name}"' for each in refused)
    return DatabaseError(
        f"{server} lacks what the set needs: "
        + "; ".join(each.detail for each in refused),
        hint=f"{refused[0].hint} To drill without, and be told each time what was not "
        f"checked: allow = [{names}] in [drill].",
        details={
            "missing": [
                {"name": each.name, "detail": each.detail, "hint": each.hint}
                for each in refused
            ]
        },
    )


def make_surroundings(
    connection: Connection, roles_sql: str, tablespaces: Sequence[str]
) -> None:
    """Create roles and tablespaces on a throw-away server.

    Raises:
        DatabaseError: the set's own statements do not work.
    """
    script = globals.for_missing_roles(roles_sql, database.existing_roles(connection))
    database.run_script(connection, script)
    for name in tablespaces:
        database.create_tablespace(connection, name)
