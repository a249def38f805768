"""Compares all of a drilled copy: contents, structure, definitions, roles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opskit.checks import Check
from opskit.drill.copy import REFERENCE_SUFFIX
from opskit.drill.servers import DrillServer
from opskit.postgres import database, roles, server
from opskit.postgres.connect import Connection, connect
from opskit.postgres.conninfo import with_database
from opskit.postgres.programs import Installation
from opskit.postgres.toc import Contents
from opskit.restore import definitions, load, reference
from opskit.restore.compare import (
    RestoredCopy,
    compare_contents,
    compare_large_objects,
)
from opskit.restore.concessions import Concessions
from opskit.restore.definition import CopyToDescribe
from opskit.restore.structure import compare_structure


def compare_everything(
    connection: Connection,
    copy: RestoredCopy,
    archive: Contents,
    describe: CopyToDescribe,
    concessions: Concessions,
) -> list[Check]:
    """Compare a copy with its manifest and its archive.

    `connection` leads to another database of the copy's server.
    """
    checks = [
        *compare_contents(copy),
        compare_large_objects(copy),
        *compare_structure(copy, concessions, archive.entries),
    ]

    def make_reference() -> Contents:
        name = database.derived_name(describe.names[1], REFERENCE_SUFFIX)
        url = with_database(describe.url, name)
        locale = concessions.locale(copy.manifest.inventory["locale"])
        inventory = copy.manifest.inventory | {"locale": locale}
        database.drop(connection, name)
        database.create_like(connection, name, inventory)
        try:
            with connect(url, purpose="reference") as beside:
                reference.build(beside, archive, concessions.left_out)
            return definitions.describe(describe.at(url))
        finally:
            database.drop(connection, name)

    return checks + definitions.compare_definitions(
        archive, describe, left_out=concessions.left_out, reference=make_reference
    )


def copy_to_describe(
    connection: Connection,
    copy: RestoredCopy,
    *,
    name: str,
    installations: Sequence[Installation],
    server_major: int,
    folder: Path,
    concessions: Concessions,
) -> CopyToDescribe:
    """Return how pg_dump is to describe the copy, by the program the set came from."""
    inventory = copy.manifest.inventory
    return CopyToDescribe(
        url=copy.url,
        installation=load.choose_program(
            [each for each in installations if each.major >= server_major],
            client_major=copy.manifest.client_major,
            server_major=copy.manifest.client_major,
        ),
        folder=folder,
        timeout_seconds=copy.timeout_seconds,
        names=(str(inventory["database"]), name),
        first_roles=(str(inventory["first_role"]), roles.first(connection)),
        with_owners=not concessions.without_owners,
        with_tablespaces=not concessions.without_tablespaces,
        without_settings=bool(concessions.subjects("setting")),
    )


def compare_roles(
    connection: Connection, running: DrillServer, copy: RestoredCopy
) -> Check:
    """Compare the roles of the set with those of the server.

    On a server that is not thrown away there are others as well, and only the roles
    that the database needs are its concern.
    """
    observed = {each["name"]: each for each in roles.take(connection)}
    expected = {each["name"]: each for each in copy.manifest.inventory["roles"]}
    ours = None
    if running.is_throwaway:
        ours = expected.pop(server.SUPERUSER, None)
        observed.pop(server.SUPERUSER, None)
    else:
        needed = set(copy.manifest.inventory["needed_roles"])
        expected = {name: expected[name] for name in needed & expected.keys()}
        observed = {name: observed[name] for name in needed & observed.keys()}
    names = expected.keys() | observed.keys()
    differ = sorted(name for name in names if expected.get(name) != observed.get(name))
    return Check(
        name="roles",
        passed=not differ,
        expected=str(len(expected)),
        observed=str(len(observed)),
        detail=", ".join(differ)
        or ("" if ours is None else "but for the drill's own role"),
    )
