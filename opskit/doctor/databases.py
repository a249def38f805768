"""Whether a database can be backed up, restored and drilled, by trying it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from opskit.catalog.manifest import DatabaseManifest
from opskit.checks import Check, failure
from opskit.config import DrillSettings, LoadSettings
from opskit.drill.servers import (
    DrillServer,
    open_server,
    place_beside,
)
from opskit.errors import DatabaseError, OpskitError
from opskit.postgres import client, database, roles, survey
from opskit.postgres.archive import toc
from opskit.postgres.connect import Connection, connect, query_value, server_major
from opskit.postgres.inventory import Inventory, Loss
from opskit.postgres.parameters import client_connection, client_environment
from opskit.postgres.servers.programs import Installation, find_client
from opskit.preflight.concessions import accept
from opskit.preflight.shortages import Shortage, role_shortages
from opskit.restore import surroundings, unpack
from opskit.restore.job import FillJob
from opskit.restore.make import make
from opskit.workspace import Limits


@dataclass(kw_only=True)
class ExaminedDatabase:
    """The checks of one database; `inventory` is None where it is unreachable."""

    name: str
    inventory: Inventory | None = None
    checks: list[Check] = field(default_factory=list)

    def add(self, check: Check) -> None:
        name = f"database {self.name}: {check.name}"
        self.checks.append(replace(check, name=name))


def examine(
    name: str, url: str, installations: Sequence[Installation]
) -> ExaminedDatabase:
    """Connect as a backup would, and look at what it will need."""
    examined = ExaminedDatabase(name=name)
    try:
        with connect(url, purpose="doctor") as connection:
            inventory = examined.inventory = survey.take(connection)
            version = f"PostgreSQL {inventory.server_version}"
            examined.add(Check(name="connection", passed=True, observed=version))
            for check in _rights(connection):
                examined.add(check)
            examined.add(_not_dumped(inventory.beyond_dumps))
            examined.add(_programs(url, connection, installations))
    except DatabaseError as error:
        examined.add(failure("connection", error))
    return examined


def examine_restore(examined: ExaminedDatabase, url: str) -> None:
    """Ask whether the role of this URL could restore the database beside itself."""
    if examined.inventory is None:
        return
    name = "restore here"
    try:
        with database.maintenance(url, purpose="doctor") as connection:
            lacking = role_shortages(connection, examined.inventory)
            role = query_value(connection, "SELECT current_user")
    except DatabaseError as error:
        examined.add(failure(name, error))
        return
    observed = f"the role {role} can restore here"
    if lacking:
        observed = "; ".join(each.detail for each in lacking)
    hint = lacking[0].hint if lacking else ""
    examined.add(_advice(name, not lacking, observed, hint))


def _advice(
    name: str, passed: bool, observed: str, hint: str, expected: str = ""
) -> Check:
    return Check(
        name=name,
        passed=passed,
        advisory=True,
        expected=expected,
        observed=observed,
        hint="" if passed else hint,
    )


def _rights(connection: Connection) -> Iterator[Check]:
    for name, unreadable, hint in _unreadable(connection):
        if unreadable:
            yield Check(
                name=name,
                passed=False,
                expected="none",
                observed=f"{len(unreadable)}, for instance {unreadable[0]}",
                hint=hint,
            )
        else:
            yield Check(name=name, passed=True, observed="none")
    with_passwords = roles.passwords_readable(connection)
    yield _advice(
        "passwords of roles",
        with_passwords,
        "can be read" if with_passwords else "cannot be read",
        "Roles are backed up without passwords; only a superuser can read them.",
    )


def _unreadable(connection: Connection) -> Iterator[tuple[str, list[str], str]]:
    yield (
        "relations that the role may not read",
        survey.unreadable_relations(connection),
        "Grant it the right to read everything: GRANT pg_read_all_data TO that role.",
    )
    yield (
        "large objects that the role may not read",
        survey.unreadable_large_objects(connection),
        "Let their owner grant it: GRANT SELECT ON LARGE OBJECT number TO that_role; "
        "or back up as a superuser.",
    )
    yield (
        "tables whose row security hides rows from the role",
        survey.hidden_tables(connection),
        "Let it see all rows: ALTER ROLE that_role BYPASSRLS.",
    )


def _not_dumped(losses: Sequence[Loss]) -> Check:
    return _advice(
        "what no dump holds",
        not losses,
        "; ".join(f"{each.name} ({each.reason})" for each in losses) or "nothing",
        "Keep statements that make it again, for instance in sql_after; or take what "
        "is yours out of the extension: ALTER EXTENSION name DROP TABLE table.",
    )


def _programs(
    url: str, connection: Connection, installations: Sequence[Installation]
) -> Check:
    major = server_major(connection)
    try:
        program = find_client(installations, server_major=major)
        client.require_same_server(url, program, connection)
    except DatabaseError as error:
        return failure("pg_dump", error)
    return _advice(
        "pg_dump",
        program.major == major,
        program.version,
        f"A restore needs pg_restore {program.major} or newer; install the client "
        f"programs of {major}.",
        expected=f"major {major}",
    )


def examine_drill(name: str, trial: Trial) -> Iterator[Check]:
    """Start the server that a drill would run on, and yield all that it lacks."""
    try:
        with open_server(
            trial.settings, trial.installations, trial.inventory
        ) as running:
            lacking = [*_lacking(name, trial, running)]
    except OpskitError as error:
        yield failure(f"drill {name}: server", error)
        return
    description = running.full_description
    yield Check(name=f"drill {name}: server", passed=True, observed=description)
    yield from lacking


def _lacking(name: str, trial: Trial, running: DrillServer) -> Iterator[Check]:
    try:
        lacking = shortages(trial, running)
    except OpskitError as error:
        yield Check(
            name=f"drill {name}: definitions",
            passed=None,
            observed=f"they could not be tried: {error.message}",
            hint=error.hint,
        )
        return
    for each in lacking:
        allowed = each.name in trial.settings.allow
        yield Check(
            name=f"drill {name}: {each.name}",
            passed=False,
            advisory=allowed,
            expected="allowed, and not checked" if allowed else "",
            observed=each.detail,
            hint=each.hint,
        )


# A migration that holds its tables longer is not waited for.
_LOCK_WAIT = timedelta(seconds=10)
_SECONDS_MAX = 600.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A live database, what is known of it, and what a drill of it is given."""

    url: str = field(repr=False)
    inventory: Inventory
    installations: Sequence[Installation]
    settings: DrillSettings
    exclude_tables: Sequence[str] = ()
    run_id: str


def shortages(trial: Trial, running: DrillServer) -> list[Shortage]:
    """Return what the server lacks; where all of it is allowed, after a trial.

    Everything that stands before the rows is made on the server, from a dump of the
    live database's definitions.
    """
    inventory, settings = trial.inventory, trial.settings
    program = find_client(trial.installations, server_major=inventory.server_major)
    limits = Limits(seconds=_SECONDS_MAX, jobs=1, work_dir=settings.work_dir)
    known: dict[str, Any] = {"inventory": inventory, "tables": (), "sequences": ()}
    manifest = DatabaseManifest.model_construct(client_version=program.version, **known)
    with unpack.folder(limits) as folder:
        archive = folder / "dump.pgdump"
        roles_sql = _dump(trial, program, archive)
        entries = toc.read(archive).entries
        with place_beside(running, inventory.database, run_id=trial.run_id) as place:
            lacking = surroundings.shortages(place, inventory, entries)
            if any(each.name not in settings.allow for each in lacking):
                return lacking
            if running.is_throwaway:
                surroundings.make_surroundings(place, roles_sql, inventory.tablespaces)
            job = FillJob(
                place=place,
                manifest=manifest,
                archive=archive,
                entries=entries,
                installations=trial.installations,
                limits=limits,
                concessions=accept(entries, lacking, manifest),
                loading=LoadSettings(sql_before=settings.sql_before),
            )
            with surroundings.owners_raised(place, entries):
                failures = make(job)
    return lacking + [each.as_shortage() for each in failures]


def _dump(trial: Trial, program: Installation, archive: Path) -> str:
    arguments = ["--format=custom", "--compress=0", "--schema-only", "--no-password"]
    arguments += [f"--exclude-table={each}" for each in trial.exclude_tables]
    arguments += [f"--lock-wait-timeout={_LOCK_WAIT.seconds}s", f"--file={archive}"]
    client.run(
        [
            program.program("pg_dump"),
            *arguments,
            f"--dbname={client_connection(trial.url)}",
        ],
        client_environment(trial.url),
        doing="pg_dump of the definitions",
        timeout_seconds=_SECONDS_MAX,
    )
    with connect(trial.url, purpose="doctor") as connection:
        dumped = roles.dump_globals(
            trial.url, program, connection, lock_wait=_LOCK_WAIT
        )
    return dumped.roles_sql.decode("utf-8", "surrogateescape")
