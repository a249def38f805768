"""Ability: what a role may not do on a server, known before a restore begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from opskit.postgres import capabilities, roles
from opskit.postgres.connect import (
    Connection,
    query,
    query_column,
    query_value,
    server_major,
)
from opskit.postgres.inventory import FIRST_WITH_MEMBERSHIP_OPTIONS, Inventory, Role
from opskit.postgres.sql_text import quoted
from opskit.preflight.shortages import Shortage

_ROLE_HINT = (
    "Restore with a role that may: restore_url in [databases.NAME], or --to with a URL."
)
_ATTRIBUTES_OF_SUPERUSERS = ("superuser", "replication", "bypassrls")


def shortages(
    connection: Connection, inventory: Inventory, *, is_whole: bool = True
) -> list[Shortage]:
    """Return what keeps the connection's role from restoring a set on its server.

    Where not all of a set is restored, only what any part of it needs is looked at.
    """
    found = [*_major(connection, inventory), *_room(connection, inventory)]
    if capabilities.is_superuser(connection):
        return found
    user = str(query_value(connection, "SELECT current_user"))
    attributes = next(e for e in roles.take(connection) if e.name == user)
    if not attributes.createdb:
        found.append(
            Shortage(
                what="right",
                subject="CREATEDB",
                detail=f"the role {user} may not create databases",
                hint=f"{_ROLE_HINT} Or let a superuser run ALTER ROLE "
                f"{quoted(user)} CREATEDB.",
            )
        )
    if is_whole:
        found += _owners(connection, inventory, user)
        found += _new_roles(connection, inventory, user, attributes)
        found += _extensions(connection, inventory, user)
    return found


def _major(connection: Connection, inventory: Inventory) -> Iterator[Shortage]:
    needed, found = inventory.server_major, server_major(connection)
    if found < needed:
        yield Shortage(
            what="major",
            subject=str(needed),
            detail=f"the server is PostgreSQL {found}, the set is from {needed}",
            hint=f"Restore to a server of major {needed} or newer; a dump does not go "
            "back to an older one.",
        )


def _room(connection: Connection, inventory: Inventory) -> Iterator[Shortage]:
    """Yield a shortage if the disk is too small, where the data folder lies here."""
    if not connection.info.host.startswith("/"):
        return
    folder = query_value(
        connection,
        "SELECT setting FROM pg_settings WHERE name = 'data_directory'",
    )
    try:
        free_bytes = shutil.disk_usage(Path(folder or "/nowhere")).free
    except OSError:
        return  # in a container, or not for this user to see
    needed_bytes = inventory.size_bytes
    if free_bytes < needed_bytes:
        yield Shortage(
            what="room",
            subject=str(folder),
            detail=f"{folder} has {free_bytes // 2**20} MiB free, the database had "
            f"{needed_bytes // 2**20} MiB",
            hint="Free some space on the server's disk.",
        )


def _owners(
    connection: Connection, inventory: Inventory, user: str
) -> Iterator[Shortage]:
    """Yield the roles that the copy's objects could not be given to."""
    right = (
        "SET" if server_major(connection) >= FIRST_WITH_MEMBERSHIP_OPTIONS else "MEMBER"
    )
    owners = [*inventory.owners, inventory.owner]
    for name, missing in query(
        connection,
        "SELECT rolname, NOT (pg_has_role(oid, %s) AND pg_has_role(oid, 'USAGE')) "
        "FROM pg_roles WHERE rolname = ANY (%s) AND rolname !~ '^pg_' ORDER BY 1",
        right,
        owners,
    ):
        if missing:
            yield Shortage(
                what="right",
                subject=f"membership in {name}",
                detail=f"objects of the set belong to the role {name}, and {user} may "
                "not act as it",
                hint=f"{_ROLE_HINT} Or let a superuser run GRANT {quoted(name)} TO "
                f"{quoted(user)}.",
            )


def _new_roles(
    connection: Connection,
    inventory: Inventory,
    user: str,
    attributes: Role,
) -> Iterator[Shortage]:
    there = roles.names(connection)
    wanted = set(inventory.needed_roles) - there
    of_superusers = {
        each.name
        for each in inventory.roles
        if any(getattr(each, attribute) for attribute in _ATTRIBUTES_OF_SUPERUSERS)
    }
    for name in sorted(wanted):
        if attributes.createrole and name not in of_superusers:
            continue
        yield Shortage(
            what="right",
            subject=f"creation of {name}",
            detail=f"the server has no role {name}, and {user} may not create it",
            hint=f"{_ROLE_HINT} Or create it before; the set's roles.sql shows how it "
            "was.",
        )


def _extensions(
    connection: Connection, inventory: Inventory, user: str
) -> Iterator[Shortage]:
    wanted: Sequence[str] = [each.name for each in inventory.extensions]
    for name in query_column(
        connection,
        "SELECT DISTINCT v.name::text FROM pg_available_extensions e "
        "JOIN pg_available_extension_versions v "
        "ON v.name = e.name AND v.version = e.default_version "
        "WHERE v.superuser AND NOT v.trusted AND v.name = ANY (%s) ORDER BY 1",
        wanted,
    ):
        yield Shortage(
            what="right",
            subject=f"extension {name}",
            detail=f"only a superuser may create the extension {name}, which {user} is "
            "not",
            hint=_ROLE_HINT,
        )
