"""Makes a database like the source's, and all that stands before its rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace

from opskit.errors import DatabaseError, ServerFault
from opskit.postgres import database, extensions, scratch, surroundings
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, connect, limit_statements, translated
from opskit.postgres.order import dependents, with_dependents
from opskit.postgres.sessions import OWN_STATEMENTS
from opskit.preflight.concessions import Concessions, Failure, accept
from opskit.preflight.shortages import Shortage
from opskit.restore.ahead import extension_statement, statements_ahead
from opskit.restore.fill_job import FillJob, copy_url
from opskit.restore.rights import Rights
from opskit.restore.steps import (
    HOW_TO_READ,
    UNDEFINED_FILE,
    Steps,
    failure,
    load_again,
    run_all,
)


def make(connection: Connection, job: FillJob) -> list[Failure]:
    """Create the database and everything that stands before the rows.

    `connection` leads to another database of the same server. What the server refuses
    is returned, without what only depends on it.

    Raises:
        ServerFault: the server or a machine failed.
        DatabaseError: the database cannot be made, or the archive not be read.
    """
    manifest = job.manifest
    given_up = job.concessions
    inventory = manifest.inventory | {
        "locale": given_up.locale(manifest.inventory["locale"])
    }
    own = next((each for each in job.entries if each.kind == "DATABASE"), None)
    scratch.create(
        connection,
        job.name,
        inventory,
        run_id=job.run_id,
        tablespace=own.tablespace if own and not given_up.without_tablespaces else "",
    )
    url = copy_url(connection, job)
    database.make_bare(url, inventory)
    _run_before(url, job)
    given = Rights(url=url, connection=connection)
    # No two of them are made at once, so that another try makes no difference.
    failures = _make_definitions(given, replace(job, jobs=1, last_try=True))
    job.require_time()
    return failures


def _run_before(url: str, job: FillJob) -> None:
    """Run the user's own statements in the empty copy, where no set is to blame."""
    try:
        run_all(url, job.sql_before, job.timeout_seconds)
    except DatabaseError as error:
        raise ServerFault(
            f"sql_before failed: {error.message}",
            hint="Correct sql_before in the configuration.",
            sqlstate=error.sqlstate,
        ) from error


def _make_definitions(given: Rights, job: FillJob) -> list[Failure]:
    """Make what stands before the rows; what fails is tried once more at the end."""
    loaded = Steps(given, job)
    kept = loaded.kept
    ahead = statements_ahead(kept, job.manifest, job.concessions)
    before = {e.dump_id for e in kept if e.before_data and e.kind not in HOW_TO_READ}
    failures: list[Failure] = []
    if ahead:
        schemas = {e.dump_id for e in kept if e.kind == "SCHEMA"}
        loaded.step(schemas)
        failures += _run_ahead(given, job, kept, ahead)
        gone = with_dependents(kept, (each.entry.dump_id for each in failures))
        before -= schemas | gone
    loaded.step(before)
    failures += load_again(given, job, loaded.failed)
    later = dependents(kept, (each.entry.dump_id for each in failures))
    return [each for each in failures if each.entry.dump_id not in later]


def _run_ahead(
    given: Rights, job: FillJob, kept: Iterable[TocEntry], statements: Iterable[str]
) -> list[Failure]:
    """Run what comes ahead; return the extensions that the server refuses."""
    entries = {extension_statement(e.name): e for e in kept if e.kind == "EXTENSION"}
    failures = []
    for statement in statements:
        try:
            run_all(given.url, [statement], job.timeout_seconds)
        except DatabaseError as error:
            entry = next(
                (e for start, e in entries.items() if statement.startswith(start)),
                None,
            )
            is_fault = isinstance(error, ServerFault)
            if entry is None or (is_fault and error.sqlstate != UNDEFINED_FILE):
                raise
            if not _run_under_other_names(given, job, statement):
                failures.append(failure(entry, error))
    return failures


def _run_under_other_names(given: Rights, job: FillJob, statement: str) -> bool:
    """Make an extension that wants to be in a database of another name, if it is one.

    That is the source's name, or one that the server's settings hold.
    """
    if not surroundings.is_superuser(given.connection):
        return False
    with connect(given.url, purpose=OWN_STATEMENTS) as copy:
        limit_statements(copy, job.timeout_seconds)
        own = str(job.manifest.inventory["database"])
        for name in dict.fromkeys([own, *extensions.names_in_settings(copy)]):
            with (
                contextlib.suppress(DatabaseError),
                translated(f"as database {name}"),
                extensions.under_name(copy, name),
            ):
                database.run_script(copy, statement)
                return True
    return False


def with_shortages(job: FillJob, found: Iterable[Shortage]) -> Concessions:
    """Return the job's concessions, and what is done without for these shortages."""
    shortages = (*job.concessions.accepted, *found)
    return accept(job.entries, shortages, job.manifest)
