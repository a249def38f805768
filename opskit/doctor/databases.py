"""Whether a database can be backed up: reachable, readable, with the right programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from opskit.checks import Finding, Health
from opskit.errors import DatabaseError
from opskit.postgres import database, inventory, reach, rights
from opskit.postgres.connect import Connection, connect, query_value, server_major
from opskit.postgres.inventory import Inventory
from opskit.postgres.servers.programs import Installation, find_client
from opskit.preflight import ability


@dataclass(kw_only=True)
class ExaminedDatabase:
    """What was found of one database; `inventory` is None where it is unreachable."""

    name: str
    major: int = 0
    inventory: Inventory | None = None
    findings: list[Finding] = field(default_factory=list)

    def add(self, what: str, status: Health, observed: str, **more: str) -> None:
        """Note a finding about this database."""
        self.findings.append(
            Finding(
                name=f"database {self.name}: {what}",
                status=status,
                observed=observed,
                **more,
            )
        )


def examine(
    name: str, url: str, installations: Sequence[Installation]
) -> ExaminedDatabase:
    """Connect as a backup would, and look at what it will need."""
    found = ExaminedDatabase(name=name)
    try:
        with connect(url, purpose="doctor") as connection:
            found.major = server_major(connection)
            found.inventory = inventory.take(connection)
            found.add(
                "connection",
                Health.HEALTHY,
                f"PostgreSQL {found.inventory['server_version']}",
            )
            _examine_rights(connection, found)
            _examine_dumps(found.inventory["beyond_dumps"], found)
            _examine_programs(found, url, connection, installations)
    except DatabaseError as error:
        found.add("connection", Health.UNHEALTHY, error.message, hint=error.hint)
    return found


def examine_restore(found: ExaminedDatabase, url: str) -> None:
    """Ask whether the role of this URL could restore the database beside itself."""
    if found.inventory is None:
        return
    try:
        with database.maintenance(url, purpose="doctor") as connection:
            lacking = ability.shortages(connection, found.inventory)
            role = query_value(connection, "SELECT current_user")
    except DatabaseError as error:
        found.add("restore here", Health.UNHEALTHY, error.message, hint=error.hint)
        return
    if lacking:
        found.add(
            "restore here",
            Health.DEGRADED,
            "; ".join(each.detail for each in lacking),
            hint=lacking[0].hint,
        )
    else:
        found.add("restore here", Health.HEALTHY, f"the role {role} can restore here")


def _examine_rights(connection: Connection, found: ExaminedDatabase) -> None:
    for what, unreadable, hint in _unreadable(connection):
        if unreadable:
            found.add(
                what,
                Health.UNHEALTHY,
                f"{len(unreadable)}, for instance {unreadable[0]}",
                limit="none",
                hint=hint,
            )
        else:
            found.add(what, Health.HEALTHY, "none")
    with_passwords = rights.reads_passwords(connection)
    found.add(
        "passwords of roles",
        Health.HEALTHY if with_passwords else Health.DEGRADED,
        "can be read" if with_passwords else "cannot be read",
        hint=""
        if with_passwords
        else "Roles are backed up without passwords; only a superuser can read them.",
    )


def _examine_dumps(losses: Sequence[dict[str, str]], found: ExaminedDatabase) -> None:
    if not losses:
        found.add("what no dump holds", Health.HEALTHY, "nothing")
        return
    found.add(
        "what no dump holds",
        Health.DEGRADED,
        "; ".join(f"{each['name']} ({each['reason']})" for each in losses),
        hint="Keep statements that make it again, for instance in sql_after; or take "
        "what is yours out of the extension: ALTER EXTENSION name DROP TABLE table.",
    )


def _unreadable(connection: Connection) -> Iterator[tuple[str, list[str], str]]:
    yield (
        "relations that the role may not read",
        rights.unreadable_relations(connection),
        "Grant it the right to read everything: GRANT pg_read_all_data TO that role.",
    )
    yield (
        "large objects that the role may not read",
        rights.unreadable_large_objects(connection),
        "Let their owner grant it: GRANT SELECT ON LARGE OBJECT number TO that_role; "
        "or back up as a superuser.",
    )
    yield (
        "tables whose row security hides rows from the role",
        rights.hidden_tables(connection),
        "Let it see all rows: ALTER ROLE that_role BYPASSRLS.",
    )


def _examine_programs(
    found: ExaminedDatabase,
    url: str,
    connection: Connection,
    installations: Sequence[Installation],
) -> None:
    try:
        client = find_client(installations, server_major=found.major)
        reach.require_same(url, client, connection)
    except DatabaseError as error:
        found.add("pg_dump", Health.UNHEALTHY, error.message, hint=error.hint)
        return
    exact = client.major == found.major
    found.add(
        "pg_dump",
        Health.HEALTHY if exact else Health.DEGRADED,
        client.version,
        limit=f"major {found.major}",
        hint=""
        if exact
        else f"A restore needs pg_restore {client.major} or newer; install the client "
        f"programs of {found.major}.",
    )
