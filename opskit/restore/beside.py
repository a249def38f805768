"""Readies a server for a restore: roles, tablespaces, and a name beside the target."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from shlex import quote

from opskit.catalog.manifest import Manifest
from opskit.catalog.reader import SetReader
from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import capabilities, database, globals, scratch, takeover
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, connect, with_database
from opskit.postgres.inventory import Inventory, Role
from opskit.preflight import ability
from opskit.preflight import shortages as preflight_shortages
from opskit.preflight.concessions import Concessions, Failure, accept
from opskit.restore.job import FillJob
from opskit.restore.make import with_shortages

DONE_WITHOUT = ("extension-version", "setting")


def occupied(connection: Connection, server_url: str, target: str) -> bool:
    """Return whether the target exists and holds anything."""
    if not database.exists(connection, target):
        return False
    with connect(with_database(server_url, target), purpose="restore") as found:
        return not database.is_empty(found)


def not_accepted(
    shortages: Iterable[preflight_shortages.Shortage], accepted: Collection[str]
) -> list[preflight_shortages.Shortage]:
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


def require_surroundings(
    connection: Connection,
    manifest: Manifest,
    entries: Sequence[TocEntry],
    *,
    is_whole: bool,
    accepted: Collection[str] = (),
) -> Concessions:
    """Refuse early what pg_restore would fail at; say what it can do without.

    `entries` are those to be restored; where they are not all, only what they need
    themselves is looked at. Another version of an extension, or a setting that this
    server does not know, must not keep anybody from the data. `accepted` names what
    else the restore may do without.

    Raises:
        DatabaseError: the server lacks what nothing can stand in for.
    """
    found = preflight_shortages.shortages(
        connection,
        manifest.inventory if is_whole else _needed_by(entries, manifest.inventory),
        entries,
        creates_roles=True,
        is_throwaway=False,
    )
    refused = [
        each
        for each in found
        if each.what not in DONE_WITHOUT
        and (
            each.name not in accepted
            or each.what in preflight_shortages.NEVER_DONE_WITHOUT
        )
    ]
    if refused:
        raise DatabaseError(
            "the server lacks what the set needs",
            said="; ".join(each.detail for each in refused),
            hint=f"{refused[0].hint} Nothing was touched. To restore without, add "
            + " ".join(f"--accept-failures {quote(each.name)}" for each in refused),
            details={"missing": [each.name for each in refused]},
        )
    for each in found:
        logger().warning("restoring without", missing=each.name, reason=each.detail)
    return accept(entries, found, manifest)


def require_definitions(
    job: FillJob, failures: Sequence[Failure], accepted: Collection[str]
) -> Concessions:
    """Return what the restore does without, with what stands before the rows.

    Raises:
        DatabaseError: the server refused a definition that nobody accepts to lose.
    """
    refused = [each for each in failures if each.name not in accepted]
    if refused:
        raise DatabaseError(
            "the server refuses what stands before the rows",
            said="; ".join(each.error for each in refused),
            hint="No rows were loaded, and the copy was dropped. Put statements that "
            "have to come before into sql_before. To restore without them, and all "
            "that needs them, add "
            + " ".join(f"--accept-failures {quote(each.name)}" for each in refused),
            details={"failures": [each.as_json() for each in refused]},
        )
    return with_shortages(job, [each.as_shortage() for each in failures])


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


def create_roles(
    connection: Connection,
    reader: SetReader,
    entries: Sequence[TocEntry],
    *,
    is_whole: bool,
) -> tuple[str, ...]:
    """Create the roles that the entries need and the server lacks; return their names.

    Those are owners, whoever has grants or settings, and who is a member of these. A
    role that may not do everything becomes a member of what it creates: only so may it
    hand objects over.
    """
    existing = database.existing_roles(connection)
    inventory = reader.manifest.inventory
    needed = _roles_of(entries, inventory, is_whole=is_whole)
    missing = with_members(needed, inventory.roles) - existing
    if not missing:
        return ()
    as_superuser = capabilities.is_superuser(connection)
    logger().info("creating roles", roles=sorted(missing))
    statements = globals.for_roles(
        reader.read_text("roles"), missing, existing, as_superuser=as_superuser
    )
    if not as_superuser:
        statements += [
            f"GRANT {database.quoted(role)} TO CURRENT_USER" for role in sorted(missing)
        ]
    preflight_shortages.require_locales_of_roles(connection, statements)
    database.run_script(connection, ";".join(statements))
    return tuple(sorted(missing))


def _roles_of(
    entries: Sequence[TocEntry], inventory: Inventory, *, is_whole: bool
) -> set[str]:
    """Return the roles that own what is restored, or that it names."""
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
