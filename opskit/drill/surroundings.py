"""Makes the copy that a drill compares: surroundings first, then the archive."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opskit.catalog.manifest import Manifest
from opskit.catalog.reader import SetReader
from opskit.drill.servers import DrillServer
from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import database, globals, roles, scratch
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import OWNED_BY_SUPERUSERS, TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import Connection, connect
from opskit.postgres.schema import SchemaObject
from opskit.preflight import shortages
from opskit.preflight.concessions import Concessions, accept
from opskit.preflight.shortages import Shortage
from opskit.restore.unpack import unpack_dump

_CONTAINER_HINT = 'server = "container" in [drill] runs any image. '
_REFERENCE_SUFFIX = "_reference"
_SCRATCH = "opskit_drill_"
_LEFTOVER = f"{_SCRATCH}[0-9a-f]{{12}}({_REFERENCE_SUFFIX})?"
_FIRST_DATABASES = ("postgres", "template1")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a copy is made: the server, a session beside the copy, the copy's name.

    `run_id` is the run that the copy is marked for on a server that stays.
    """

    server: DrillServer
    connection: Connection
    name: str
    run_id: str = ""

    @property
    def reference(self) -> str:
        """The name of the database that is made to compare definitions with."""
        return database.derived_name(self.name, _REFERENCE_SUFFIX)

    @property
    def url_beside(self) -> str:
        """How to connect to another database than the copy."""
        return self.server.url(self.connection.info.dbname)


@contextmanager
def place_beside(running: DrillServer, source: str, run_id: str) -> Iterator[Place]:
    """Yield a place for a copy of the database `source`.

    On a throw-away server the copy has the source's own name. On another one it has a
    name of its own and the mark of this run; it is dropped with the block, and what
    killed runs left there is dropped first.
    """
    if running.is_throwaway:
        beside = next(each for each in _FIRST_DATABASES if each != source)
        with connect(running.url(beside), purpose="drill") as connection:
            if database.exists(connection, source):
                database.drop_template(connection, source)
            yield Place(server=running, connection=connection, name=source)
        return
    name = f"{_SCRATCH}{secrets.token_hex(6)}"
    url = running.url("postgres")
    with database.maintenance(url, purpose="drill") as connection:
        scratch.sweep(connection, url, looks_like=_LEFTOVER)
        try:
            yield Place(server=running, connection=connection, name=name, run_id=run_id)
        finally:
            for each in (name, name + _REFERENCE_SUFFIX):
                scratch.drop_copy(connection, url, each)


def require_surroundings(
    place: Place,
    manifest: Manifest,
    entries: Sequence[TocEntry],
    allowed: Sequence[str],
) -> Concessions:
    """Return what the drill does without, all of it allowed by name.

    Raises:
        DatabaseError: the server lacks something else.
    """
    found = shortages.shortages(
        place.connection,
        manifest.inventory,
        entries,
        creates_roles=place.server.is_throwaway,
        is_throwaway=place.server.is_throwaway,
    )
    refused = [
        each
        for each in found
        if each.name not in allowed or each.what in shortages.NEVER_DONE_WITHOUT
    ]
    if refused:
        raise lacking(place.server.description, refused)
    for each in found:
        logger().warning("drilling without", missing=each.name, allowed_in="[drill]")
    return accept(entries, found, manifest)


def lacking(server: str, refused: Sequence[Shortage]) -> DatabaseError:
    """Return the error that names all that a server lacks, and what to do."""
    names = ", ".join(json.dumps(each.name, ensure_ascii=False) for each in refused)
    container = any(each.what.startswith("extension") for each in refused)
    return DatabaseError(
        f"{server} lacks what the set needs",
        said="; ".join(each.detail for each in refused),
        hint=f"{refused[0].hint} {_CONTAINER_HINT if container else ''}"
        "To drill without, and be told each time what was not checked: "
        f"allow = [{names}] in [drill].",
        details={
            "missing": [
                {"name": each.name, "detail": each.detail, "hint": each.hint}
                for each in refused
            ]
        },
    )


def make_surroundings(place: Place, roles_sql: str, tablespaces: Sequence[str]) -> None:
    """Create roles and tablespaces on a throw-away server.

    Raises:
        DatabaseError: the set's own statements do not work.
    """
    existing = database.existing_roles(place.connection)
    wanted = globals.created_roles(roles_sql) - existing
    statements = globals.for_roles(roles_sql, wanted, existing)
    shortages.require_locales_of_roles(place.connection, statements)
    database.run_script(place.connection, ";".join(statements))
    for name in tablespaces:
        database.create_tablespace(place.connection, name)


@contextmanager
def owners_raised(place: Place, entries: Sequence[TocEntry]) -> Iterator[None]:
    """Let roles of a throw-away server own what takes a superuser while it is made."""
    owners = {each.owner for each in entries if each.kind in OWNED_BY_SUPERUSERS}
    if not place.server.is_throwaway:
        owners = set()
    with roles.superusers_meanwhile(place.connection, owners):
        yield


def unmade_anyway(place: Place, manifest: Manifest) -> list[tuple[str, str]]:
    """Return what is not checked whatever is allowed, and why."""
    found = [
        (loss, "the role that took the backup may not read them, so it has none")
        for loss in manifest.inventory.not_dumped
    ]
    found += [(each.name, each.reason) for each in manifest.inventory.beyond_dumps]
    found += [
        (
            f"owner of the extension {each.name} and of what is in it",
            f"it is {each.owner}'s, and becomes that of the role that restores it",
        )
        for each in manifest.inventory.extensions
        if each.owner not in (None, manifest.inventory.first_role)
    ]
    if not place.server.is_throwaway:
        found.append(
            ("passwords of roles", "their hashes differ from server to server")
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The set as it was read; `objects` is how many were.

    `manifest` is the set's own, with the digests that an encrypted one seals.
    """

    manifest: Manifest
    archive: Path
    contents: Contents
    roles_sql: str
    schema: Sequence[SchemaObject]
    objects: int


def read_set(reader: SetReader, folder: Path) -> Fetched:
    """Unpack the dump into the folder and read everything else.

    Raises:
        IntegrityError: an object is missing, or not what the manifest says.
        ConfigurationError: the set is encrypted and no identity here opens it.
    """
    archive = folder / "dump.pgdump"
    unpack_dump(reader, archive)
    return Fetched(
        manifest=reader.opened(),
        archive=archive,
        contents=toc.read(archive),
        roles_sql=reader.read_text("roles"),
        schema=reader.read_schema(),
        objects=len(reader.manifest.dump_bytes_of) + reader.read_others(),
    )
