"""Readies a server for a restore: roles, tablespaces, and a name beside the target."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from opskit.catalog.manifest import Manifest
from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import database, globals
from opskit.postgres.connect import Connection, connect
from opskit.postgres.conninfo import with_database
from opskit.restore import fetch
from opskit.store import Store

_TOKEN_LENGTH = 8


def occupied(connection: Connection, server_url: str, target: str) -> bool:
    """Return whether the target exists and holds anything."""
    if not database.exists(connection, target):
        return False
    with connect(with_database(server_url, target), purpose="restore") as found:
        return not database.is_empty(found)


def require_tablespaces(connection: Connection, manifest: Manifest) -> None:
    """Refuse early what pg_restore would fail at.

    Raises:
        DatabaseError: the server lacks a tablespace.
    """
    needed = set(manifest.inventory["tablespaces"])
    missing = sorted(needed - database.tablespaces(connection))
    if missing:
        raise DatabaseError(
            f"the server lacks the tablespaces {', '.join(missing)}",
            hint=f"Create them; {manifest.prefix}tablespaces.sql shows how they were.",
        )


def create_roles(
    connection: Connection, manifest: Manifest, store: Store
) -> tuple[str, ...]:
    """Create the roles of the set that the server lacks, and return their names."""
    existing = database.existing_roles(connection)
    needed = {each["name"] for each in manifest.inventory["roles"]}
    missing = tuple(sorted(needed - existing))
    if missing:
        script = globals.for_missing_roles(
            fetch.read_text(manifest, store, "roles"), existing
        )
        logger().info("creating roles", roles=list(missing))
        database.run_script(connection, script)
    return missing


@contextmanager
def beside(connection: Connection, target: str) -> Iterator[str]:
    """Yield a name for a database beside the target; on an error it is dropped.

    What restores to this target left when they were killed is dropped first. The
    caller holds this host's lock of the target; a restore that another host is running
    has a session in its copy.
    """
    token = secrets.token_hex(_TOKEN_LENGTH // 2)
    name = database.derived_name(target, f"_restoring_{token}")
    leftover = re.escape(name[:-_TOKEN_LENGTH]) + f"[0-9a-f]{{{_TOKEN_LENGTH}}}"
    for found in database.idle(connection):
        if re.fullmatch(leftover, found):
            logger().warning("dropping what a killed restore left", database=found)
            database.drop(connection, found)
    try:
        yield name
    except BaseException:
        database.drop(connection, name)
        raise
