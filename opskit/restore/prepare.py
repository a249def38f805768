"""Readies a server for a restore: roles, tablespaces, and a name beside the target."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opskit.catalog.manifest import Manifest
from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import database, globals, scratch
from opskit.postgres.connect import Connection, connect
from opskit.postgres.conninfo import with_database
from opskit.postgres.toc_entry import TocEntry
from opskit.restore import preflight
from opskit.restore.concessions import Concessions, accept
from opskit.restore.reader import SetReader

_TOKEN_LENGTH = 8
_DONE_WITHOUT = ("extension-version", "setting")


def occupied(connection: Connection, server_url: str, target: str) -> bool:
    """Return whether the target exists and holds anything."""
    if not database.exists(connection, target):
        return False
    with connect(with_database(server_url, target), purpose="restore") as found:
        return not database.is_empty(found)


def require_surroundings(
    connection: Connection,
    manifest: Manifest,
    entries: Sequence[TocEntry],
    *,
    is_whole: bool,
) -> Concessions:
    """Refuse early what pg_restore would fail at; say what it can do without.

    `entries` are those to be restored; where they are not all, only what they need
    themselves is looked at. Another version of an extension, or a setting that this
    server does not know, must not keep anybody from the data.

    Raises:
        DatabaseError: the server lacks what nothing can stand in for.
    """
    found = preflight.shortages(
        connection,
        manifest.inventory if is_whole else _needed_by(entries, manifest.inventory),
        entries,
        creates_roles=True,
        creates_tablespaces=False,
    )
    refused = [each for each in found if each.what not in _DONE_WITHOUT]
    if refused:
        raise DatabaseError(
            "the server lacks what the set needs: "
            + "; ".join(each.detail for each in refused),
            hint=f"{refused[0].hint} Nothing was touched.",
            details={"missing": [each.name for each in refused]},
        )
    for each in found:
        logger().warning("restoring without", missing=each.name, reason=each.detail)
    return accept(entries, found, manifest)


def _needed_by(
    entries: Sequence[TocEntry], inventory: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the inventory without what only other entries need."""
    extensions = {entry.name for entry in entries if entry.kind == "EXTENSION"}
    tablespaces = {entry.tablespace for entry in entries}
    collations = inventory.get("collations", [])

    def named(collation: str) -> bool:
        return any(collation in entry.definition for entry in entries)

    return {
        **inventory,
        "extensions": [e for e in inventory["extensions"] if e["name"] in extensions],
        "tablespaces": [
            name for name in inventory["tablespaces"] if name in tablespaces
        ],
        "collations": [e for e in collations if named(e["name"])],
        "database_settings": [],
    }


def create_roles(connection: Connection, reader: SetReader) -> tuple[str, ...]:
    """Create the roles of the set that the server lacks, and return their names."""
    existing = database.existing_roles(connection)
    needed = {each["name"] for each in reader.manifest.inventory["roles"]}
    missing = tuple(sorted(needed - existing))
    if missing:
        script = globals.for_missing_roles(reader.read_text("roles"), existing)
        logger().info("creating roles", roles=list(missing))
        database.run_script(connection, script)
    return missing


@contextmanager
def beside(connection: Connection, server_url: str, target: str) -> Iterator[str]:
    """Yield a name for a database beside the target; on an error it is dropped.

    What restores to this target left when they were killed is dropped first. The
    caller holds this host's lock of the target; a restore that another host is running
    has a session in its copy.
    """
    token = secrets.token_hex(_TOKEN_LENGTH // 2)
    name = database.derived_name(target, f"_restoring_{token}")
    leftover = re.escape(name[:-_TOKEN_LENGTH]) + f"[0-9a-f]{{{_TOKEN_LENGTH}}}"
    for found in scratch.idle(connection):
        if re.fullmatch(leftover, found):
            logger().warning("dropping what a killed restore left", database=found)
            scratch.drop_copy(connection, server_url, found)
    try:
        yield name
    except BaseException:
        scratch.drop_copy(connection, server_url, name)
        raise
