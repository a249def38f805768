"""Readies a server for a set: what it lacks, roles and tablespaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opskit.log import logger
from opskit.postgres import database, roles, survey
from opskit.postgres.archive.entry import OWNED_BY_SUPERUSERS, TocEntry
from opskit.postgres.connect import Connection, quoted, server_major
from opskit.postgres.inventory import Inventory, Role
from opskit.postgres.parameters import with_database
from opskit.preflight import shortages as preflight_shortages
from opskit.preflight.shortages import Shortage

REFERENCE_SUFFIX = "_reference"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a copy is made: a session beside it on the server, and its name.

    `run_id` is the run that the copy is marked for on a server that stays. Missing
    roles are made where it `creates_roles`; on a throw-away server all of them are, and
    tablespaces too.
    """

    server_url: str = field(repr=False)
    connection: Connection = field(repr=False)
    name: str
    run_id: str = ""
    is_throwaway: bool = False
    creates_roles: bool = False

    @property
    def major(self) -> int:
        return server_major(self.connection)

    @property
    def reference(self) -> str:
        """The name of the database that is made to compare definitions with."""
        return database.derived_name(self.name, REFERENCE_SUFFIX)

    @property
    def url_beside(self) -> str:
        """How to connect to another database than the copy."""
        return with_database(self.server_url, self.connection.info.dbname)


def shortages(
    place: Place,
    inventory: Inventory,
    entries: Sequence[TocEntry],
    *,
    is_whole: bool = True,
) -> list[Shortage]:
    """Return what the server lacks for the entries, those of a whole set or a part."""
    return preflight_shortages.shortages(
        place.connection,
        inventory if is_whole else _needed_by(entries, inventory),
        entries,
        creates_roles=place.creates_roles or place.is_throwaway,
        is_throwaway=place.is_throwaway,
    )


def _needed_by(entries: Sequence[TocEntry], inventory: Inventory) -> Inventory:
    """Return the inventory without what only other entries need."""
    extensions = {entry.name for entry in entries if entry.kind == "EXTENSION"}
    tablespaces = {entry.tablespace for entry in entries}

    def named(collation: str) -> bool:
        return any(collation in entry.definition for entry in entries)

    return inventory.model_copy(
        update={
            "extensions": [e for e in inventory.extensions if e.name in extensions],
            "tablespaces": tablespaces.intersection(inventory.tablespaces),
            "collations": [e for e in inventory.collations if named(e.name)],
            "database_settings": (),
        }
    )


def make_surroundings(place: Place, roles_sql: str, tablespaces: Sequence[str]) -> None:
    """Create roles and tablespaces on a throw-away server.

    Raises:
        DatabaseError: the set's own statements do not work.
    """
    existing = roles.names(place.connection)
    wanted = roles.created_roles(roles_sql) - existing
    statements = roles.role_statements(roles_sql, wanted, existing)
    preflight_shortages.require_locales_of_roles(place.connection, statements)
    database.run_script(place.connection, ";".join(statements))
    for name in tablespaces:
        database.create_tablespace(place.connection, name)


def create_roles(
    connection: Connection,
    roles_sql: str,
    inventory: Inventory,
    entries: Sequence[TocEntry],
    *,
    is_whole: bool,
) -> tuple[str, ...]:
    """Create the roles that the entries need and the server lacks; return their names.

    Those are owners, whoever has grants or settings, and who is a member of these. A
    role that may not do everything becomes a member of what it creates: only so may it
    hand objects over.
    """
    existing = roles.names(connection)
    needed = _roles_of(entries, inventory, is_whole=is_whole)
    missing = with_members(needed, inventory.roles) - existing
    if not missing:
        return ()
    as_superuser = survey.is_superuser(connection)
    logger().info("creating roles", roles=sorted(missing))
    statements = roles.role_statements(
        roles_sql, missing, existing, as_superuser=as_superuser
    )
    if not as_superuser:
        statements += [
            f"GRANT {quoted(role)} TO CURRENT_USER" for role in sorted(missing)
        ]
    preflight_shortages.require_locales_of_roles(connection, statements)
    database.run_script(connection, ";".join(statements))
    return tuple(sorted(missing))


def _roles_of(
    entries: Sequence[TocEntry], inventory: Inventory, *, is_whole: bool
) -> set[str]:
    named = set(inventory.needed_roles)
    if is_whole:
        return named
    owners = {entry.owner for entry in entries}
    return {
        role
        for role in named
        if role in owners or any(role in entry.definition for entry in entries)
    }


def with_members(needed: set[str], roles: Sequence[Role]) -> set[str]:
    """Add who has the rights of a needed role by membership, superusers aside."""
    found = set(needed)
    while added := {
        each.name
        for each in roles
        if each.name not in found
        and not each.superuser
        and found.intersection(each.groups)
    }:
        found |= added
    return found


@contextmanager
def owners_raised(place: Place, entries: Sequence[TocEntry]) -> Iterator[None]:
    """Let roles of a throw-away server own what takes a superuser while it is made."""
    if not place.is_throwaway:
        yield
        return
    owners = {each.owner for each in entries if each.kind in OWNED_BY_SUPERUSERS}
    with roles.superusers_meanwhile(place.connection, owners):
        yield
