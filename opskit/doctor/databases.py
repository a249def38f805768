"""Whether a database can be backed up: reachable, readable, with the right programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from opskit.catalog.manifest import Manifest
from opskit.checks import Finding, Health
from opskit.drill.servers import DrillServer
from opskit.drill.surroundings import make_surroundings, owners_raised, place_beside
from opskit.errors import DatabaseError
from opskit.postgres import client, database, globals, reach, survey
from opskit.postgres.archive import toc
from opskit.postgres.connect import (
    Connection,
    client_connection,
    client_environment,
    connect,
    query_value,
    server_major,
)
from opskit.postgres.inventory import Inventory, Loss
from opskit.postgres.servers.programs import Installation, find_client
from opskit.preflight import ability
from opskit.preflight import shortages as preflight_shortages
from opskit.preflight.concessions import accept
from opskit.preflight.shortages import Shortage
from opskit.restore import unpack
from opskit.restore.job import FillJob
from opskit.restore.make import make


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
            found.inventory = survey.take(connection)
            found.add(
                "connection",
                Health.HEALTHY,
                f"PostgreSQL {found.inventory.server_version}",
            )
            _examine_rights(connection, found)
            _examine_dumps(found.inventory.beyond_dumps, found)
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
    with_passwords = globals.reads_passwords(connection)
    found.add(
        "passwords of roles",
        Health.HEALTHY if with_passwords else Health.DEGRADED,
        "can be read" if with_passwords else "cannot be read",
        hint=""
        if with_passwords
        else "Roles are backed up without passwords; only a superuser can read them.",
    )


def _examine_dumps(losses: Sequence[Loss], found: ExaminedDatabase) -> None:
    if not losses:
        found.add("what no dump holds", Health.HEALTHY, "nothing")
        return
    found.add(
        "what no dump holds",
        Health.DEGRADED,
        "; ".join(f"{each.name} ({each.reason})" for each in losses),
        hint="Keep statements that make it again, for instance in sql_after; or take "
        "what is yours out of the extension: ALTER EXTENSION name DROP TABLE table.",
    )


def _unreadable(connection: Connection) -> Iterator[tuple[str, list[str], str]]:
    yield (
        "relations that the role may not read",
        globals.unreadable_relations(connection),
        "Grant it the right to read everything: GRANT pg_read_all_data TO that role.",
    )
    yield (
        "large objects that the role may not read",
        globals.unreadable_large_objects(connection),
        "Let their owner grant it: GRANT SELECT ON LARGE OBJECT number TO that_role; "
        "or back up as a superuser.",
    )
    yield (
        "tables whose row security hides rows from the role",
        globals.hidden_tables(connection),
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


# A migration that holds its tables longer is not waited for.
_LOCK_WAIT = timedelta(seconds=10)
_SECONDS_MAX = 600.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A live database, what is known of it, and what a drill of it is given."""

    url: str = field(repr=False)
    major: int
    inventory: Inventory
    installations: Sequence[Installation]
    allowed: Sequence[str] = ()
    sql_before: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    work_dir: Path | None = None
    run_id: str


def shortages(trial: Trial, running: DrillServer) -> list[Shortage]:
    """Return what the server lacks; where all of it is allowed, after a trial.

    Everything that stands before the rows is made on the server, from a dump of the
    live database's definitions.

    Raises:
        DatabaseError: the definitions cannot be dumped, or not be made at all.
    """
    program = find_client(trial.installations, server_major=trial.major)
    with unpack.folder(trial.work_dir) as folder:
        archive = folder / "dump.pgdump"
        roles_sql = _dump(trial, program, archive)
        entries = toc.read(archive).entries
        known: dict[str, Any] = {
            "inventory": trial.inventory,
            "client_version": program.version,
            "tables": (),
            "sequences": (),
        }
        manifest = Manifest.model_construct(**known)
        with place_beside(
            running, trial.inventory.database, run_id=trial.run_id
        ) as place:
            found = preflight_shortages.shortages(
                place.connection,
                trial.inventory,
                entries,
                creates_roles=running.is_throwaway,
                is_throwaway=running.is_throwaway,
            )
            if any(each.name not in trial.allowed for each in found):
                return found
            if running.is_throwaway:
                make_surroundings(place, roles_sql, trial.inventory.tablespaces)
            job = FillJob(
                server_url=running.url(place.name),
                name=place.name,
                manifest=manifest,
                archive=archive,
                entries=entries,
                installations=trial.installations,
                jobs=1,
                timeout_seconds=_SECONDS_MAX,
                concessions=accept(entries, found, manifest),
                sql_before=trial.sql_before,
                run_id=place.run_id,
            )
            with owners_raised(place, entries):
                failures = make(place.connection, job)
    return found + [each.as_shortage() for each in failures]


def _dump(trial: Trial, program: Installation, archive: Path) -> str:
    """Dump the definitions into a file; return the roles as SQL."""
    client.run(
        [
            program.program("pg_dump"),
            "--format=custom",
            "--compress=0",
            "--schema-only",
            "--no-password",
            f"--lock-wait-timeout={_LOCK_WAIT.seconds}s",
            *(f"--exclude-table={each}" for each in trial.exclude_tables),
            f"--file={archive}",
            f"--dbname={client_connection(trial.url)}",
        ],
        client_environment(trial.url),
        doing="pg_dump of the definitions",
        timeout_seconds=_SECONDS_MAX,
    )
    with connect(trial.url, purpose="doctor") as connection:
        found = globals.dump(trial.url, program, connection, lock_wait=_LOCK_WAIT)
    return found.roles_sql.decode("utf-8", "surrogateescape")
