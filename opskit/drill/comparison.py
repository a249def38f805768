"""Compares of a drilled copy what no restore compares: definitions, roles, queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from opskit.checks import Check
from opskit.compare import definitions
from opskit.compare.contents import RestoredCopy
from opskit.compare.definitions import CopyToDescribe, describe
from opskit.config import Query
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres import database, roles, scratch
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import connect, limit_statements, translated, user_query
from opskit.postgres.parameters import with_database
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions
from opskit.restore import load
from opskit.restore.engine import Restored
from opskit.restore.make import statements_ahead
from opskit.restore.surroundings import Place


def compare_definitions(
    restored: Restored, installations: Sequence[Installation]
) -> list[Check]:
    """Compare the definitions, with those of a database made of the archive's own."""
    place, copy, fetched = restored.place, restored.copy, restored.fetched
    concessions = restored.concessions
    described = _described(restored, installations)
    kept = concessions.entries(fetched.contents.entries)
    ahead = ";".join(statements_ahead(kept, copy.manifest, concessions))

    def make_reference() -> Contents:
        name = place.reference
        url = with_database(described.url, name)
        inventory = concessions.inventory(copy.manifest.inventory)
        scratch.create(place.connection, name, inventory, run_id=place.run_id)
        try:
            database.make_bare(url, inventory)
            with connect(url, purpose="reference") as beside:
                limit_statements(beside, copy.limits.seconds)
                definitions.build(beside, fetched.contents, kept, ahead)
            return describe(described.at(url))
        finally:
            database.drop(place.connection, name)

    return definitions.compare_definitions(
        fetched.contents,
        described,
        left_out=concessions.not_made,
        reference=make_reference,
    )


def _described(
    restored: Restored, installations: Sequence[Installation]
) -> CopyToDescribe:
    """Return how pg_dump is to describe the copy, by the program the set came from."""
    place, concessions = restored.place, restored.concessions
    manifest = restored.copy.manifest
    return CopyToDescribe(
        url=restored.copy.url,
        installation=load.choose_program(
            [each for each in installations if each.major >= place.major],
            client_major=manifest.client_major,
            server_major=manifest.client_major,
        ),
        folder=restored.fetched.archive.parent,
        timeout_seconds=restored.copy.limits.seconds,
        names=(manifest.inventory.database, place.name),
        first_roles=(
            manifest.inventory.first_role,
            roles.first_role(place.connection),
        ),
        with_owners=not concessions.without_owners,
        with_tablespaces=not concessions.without_tablespaces,
        without_settings=bool(
            concessions.subjects("setting") or concessions.subjects("role")
        ),
    )


def compare_roles(place: Place, copy: RestoredCopy, concessions: Concessions) -> Check:
    """Compare the roles of the set with those of the server.

    On a server that is not thrown away there are others as well, and only the roles
    that the database needs are its concern.
    """
    inventory = copy.manifest.inventory
    allowed = concessions.subjects("role") | concessions.subjects("role-attributes")
    observed = {each.name: each for each in roles.take(place.connection)}
    expected = {each.name: each for each in inventory.roles}
    first = (inventory.first_role, roles.first_role(place.connection))

    def is_different(name: str) -> bool:
        if not (name in expected and name in observed):
            return True
        return bool(
            expected[name].differences(
                observed[name],
                majors=(copy.manifest.server_major, place.major),
                with_password=place.is_throwaway,
                with_parameters=name not in first,
            )
        )

    ours = None
    if place.is_throwaway:
        ours = expected.pop(throwaway.SUPERUSER, None)
        observed.pop(throwaway.SUPERUSER, None)
        names = expected.keys() | observed.keys()
    else:
        names = set(inventory.needed_roles) - allowed
    differ = sorted(name for name in names if is_different(name))
    return Check(
        name="roles",
        passed=not differ,
        expected=str(len(names & expected.keys())),
        observed=str(len(names & observed.keys())),
        detail=", ".join(differ)
        or ("" if ours is None else "but for the drill's own role"),
    )


def run_queries(copy: RestoredCopy, queries: Sequence[Query]) -> list[Check]:
    """Ask each query of the copy; one check each."""
    if not queries:
        return []
    with connect(copy.url, purpose="queries") as connection:
        limit_statements(connection, copy.limits.seconds)
        # The user's text is written for the database's own search path.
        connection.execute("RESET search_path")
        checks = []
        for query in queries:
            try:
                with translated(f"query {query.name}"):
                    rows = [list(row) for row in user_query(connection, query.sql)]
            except ServerFault:
                raise
            except DatabaseError as error:
                checks.append(
                    Check(
                        name=f"query {query.name}",
                        passed=False,
                        expected=_text(query.expect),
                        detail=error.message,
                    )
                )
            else:
                checks.append(_judge(query, rows))
    return checks


def _judge(query: Query, rows: list[list[Any]]) -> Check:
    observed: Any = rows
    if not isinstance(query.expect, list) and len(rows) == 1 and len(rows[0]) == 1:
        observed = rows[0][0]
    return Check(
        name=f"query {query.name}",
        # By their text: 12 and Decimal("12") are the same answer to a person.
        passed=_text(query.expect) == _text(observed),
        expected=_text(query.expect),
        observed=_text(observed),
        detail=query.sql,
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value)
