"""Makes a database like the source's, and all that stands before its rows."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from opskit.catalog.manifest import DatabaseManifest
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres import database, extensions, scratch, survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import dependents, with_dependents
from opskit.postgres.connect import (
    Connection,
    connect,
    ends_sessions,
    is_server_fault,
    last_error,
    limit_statements,
    query_value,
    quoted,
    server_major,
    translated,
)
from opskit.postgres.database import RowCheck
from opskit.postgres.locks import OWN_STATEMENTS
from opskit.postgres.parameters import client_connection, client_environment
from opskit.preflight.concessions import Concessions, Failure, accept
from opskit.preflight.shortages import Shortage
from opskit.restore import load
from opskit.restore.job import FillJob, Rights
from opskit.restore.load import LoadFailed, LoadJob, script_arguments

_CONNECTION_LOST = 2  # psql's exit code
_PLAIN = {"LC_ALL": "C", "LANGUAGE": ""}


def judged(connection: Connection, job: LoadJob, error: LoadFailed) -> DatabaseError:
    """Return the error of a failed load, a ServerFault if the set is not to blame.

    pg_restore gives no SQLSTATE. What it failed at is therefore run once more by psql,
    which does, and which names the source file that reported the error.

    `connection` leads to another database of the same server. The copy must be as the
    load left it.
    """
    try:
        if error.entry is None:
            # pg_restore cannot read the archive, or lost the server.
            return error if _is_unreadable(job) else _fault(error, "")
        use_list = job.archive.with_name("failed.list")
        use_list.write_text(f"{error.entry};\n")
        code, output, words = _run_once_more(replace(job, use_list=use_list))
    except subprocess.TimeoutExpired:
        return _fault(error, "")
    sqlstate, source = last_error(output, words)
    if not sqlstate:
        # It worked, or there was no server to refuse it.
        return _fault(error, "") if code in (0, _CONNECTION_LOST) else error
    claimed = is_server_fault(sqlstate, source)
    if claimed and not (ends_sessions(sqlstate) and _is_up(connection)):
        return _fault(error, sqlstate)
    return DatabaseError(
        error.summary, said=error.said, hint=error.hint, sqlstate=sqlstate
    )


def _fault(error: DatabaseError, sqlstate: str) -> ServerFault:
    return ServerFault(
        error.summary,
        said=error.said,
        hint="See the server's log, and the disk space and memory of its machine, "
        "then run this again.",
        sqlstate=sqlstate,
    )


def _is_up(connection: Connection) -> bool:
    """Return whether the server has gone on: then it ended the load's session alone."""
    try:
        with translated("server"):
            return bool(query_value(connection, "SELECT true"))
    except ServerFault:
        return False


def _is_unreadable(job: LoadJob) -> bool:
    finished = subprocess.run(
        script_arguments(job),
        env=client_environment(job.url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=job.limits.seconds,
        check=False,
    )
    return finished.returncode > 0


def _run_once_more(job: LoadJob) -> tuple[int, str, str]:
    """Run the job's statements by psql; return its exit code and what it said.

    It ends with the code of the last error, which no error's text can forge.
    """
    environment = client_environment(job.url) | _PLAIN
    script = subprocess.Popen(
        script_arguments(job),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        finished = subprocess.run(
            [
                job.installation.program("psql"),
                "--no-psqlrc",
                "--quiet",
                "--no-password",
                "--set=VERBOSITY=verbose",
                "--file=-",
                r"--command=\echo :LAST_ERROR_SQLSTATE",
                f"--dbname={client_connection(job.url)}",
            ],
            env=environment,
            stdin=script.stdout,
            capture_output=True,
            timeout=job.limits.seconds,
            check=False,
        )
    finally:
        script.kill()
        script.communicate()
    output, words = (
        each.decode("utf-8", "replace") for each in (finished.stdout, finished.stderr)
    )
    return finished.returncode, output, words


def statements_ahead(
    entries: Iterable[TocEntry], manifest: DatabaseManifest, concessions: Concessions
) -> list[str]:
    """Return stand-ins for missing collations, and extensions in their versions.

    pg_dump leaves the version out, so that the server would take its newest.
    """
    inventory, statements = manifest.inventory, []
    missing = concessions.subjects("collation")
    for collation in inventory.collations if missing else ():
        if f"{collation.schema_name}.{collation.name}" in missing:
            name = f"{quoted(collation.schema_name)}.{quoted(collation.name)}"
            statements.append(
                f"CREATE COLLATION {name} (provider = libc, locale = 'C')"
            )
    known = {each.name: each for each in inventory.extensions}
    any_version = concessions.subjects("extension-version")
    for entry in entries:
        each = known.get(entry.name)
        if entry.kind == "EXTENSION" and each is not None:
            statement = extension_statement(entry.name)
            statement += f" WITH SCHEMA {quoted(each.schema_name)}"
            if entry.name not in any_version:
                statement += f" VERSION {quoted(each.version)}"
            statements.append(statement)
    return statements


def extension_statement(name: str) -> str:
    return f"CREATE EXTENSION IF NOT EXISTS {quoted(name)}"


# Of a wrapper without its handler, and of a view that was not filled for want of one.
_NO_HANDLER_OR_ROWS = "55000"
# Of a library or another file that is not there.
UNDEFINED_FILE = "58P01"
HOW_TO_READ = ("ENCODING", "STDSTRINGS", "SEARCHPATH")


class Steps:
    """What was loaded step by step: what pg_restore said, and what is still to do.

    `failed` are entries after the data, `taken` constraints to be put back.
    """

    def __init__(self, given: Rights, job: FillJob) -> None:
        self.failed: set[int] = set()
        self.taken: list[RowCheck] = []
        self.kept = [
            each
            for each in job.concessions.entries(job.entries)
            if each.dump_id not in job.outside
        ]
        self.left = {
            e.dump_id
            for e in self.kept
            if not e.before_data and e.kind not in HOW_TO_READ
        }
        self._words: list[str] = []
        self._given, self._job = given, job

    @property
    def words(self) -> str:
        return "\n".join(filter(None, self._words))

    def step(self, wanted: Collection[int], url: str = "") -> None:
        """Load these entries, if there are any, and what tells how to read them."""
        if not wanted:
            return
        entries = [e for e in self.kept if e.kind in HOW_TO_READ or e.dump_id in wanted]
        load_job = _load_job(self._given, self._job, entries)
        load_job = replace(load_job, url=url or self._given.url)
        try:
            said, failed = load.load(load_job)
        except ServerFault:
            raise
        except load.LoadFailed as error:
            if not self._job.last_try or self._job.is_over():
                raise
            raise judged(self._given.connection, load_job, error) from error
        self._words.append(said)
        self.failed.update(failed)
        self.left.difference_update(wanted)


def load_again(given: Rights, job: FillJob, failed: Collection[int]) -> list[Failure]:
    """Try entries once more, each by itself, now that all others are there."""
    head = [entry for entry in job.entries if entry.kind in HOW_TO_READ]
    inventory = job.manifest.inventory
    failures = []
    for entry in load.in_order(each for each in job.entries if each.dump_id in failed):
        script = load.script(_load_job(given, job, [*head, entry]))
        try:
            with given.by(entry) as url:
                error = load.make(
                    url,
                    entry,
                    load.with_search_path(script, head, inventory),
                    encoding=inventory.encoding,
                    timeout_seconds=job.limits.seconds,
                )
        except ServerFault as fault:
            if not (entry.before_data and fault.sqlstate == UNDEFINED_FILE):
                raise
            error = fault
        if error is not None:
            is_outside = (
                job.offline
                and entry.kind == "MATERIALIZED VIEW DATA"
                and error.sqlstate == _NO_HANDLER_OR_ROWS
            )
            failures.append(failure(entry, error, is_outside=is_outside))
    return failures


def failure(
    entry: TocEntry, error: DatabaseError, *, is_outside: bool = False
) -> Failure:
    return Failure(
        entry=entry,
        error=error.message,
        sqlstate=error.sqlstate,
        is_outside=is_outside,
    )


def _load_job(given: Rights, job: FillJob, entries: Iterable[TocEntry]) -> load.LoadJob:
    use_list = job.archive.with_name("entries.list")
    use_list.write_text("".join(f"{entry.dump_id};\n" for entry in entries))
    return load.LoadJob(
        archive=job.archive,
        url=given.url,
        installation=load.choose_program(
            job.installations,
            client_major=job.manifest.client_major,
            server_major=server_major(given.connection),
        ),
        limits=job.limits,
        use_list=use_list,
        no_tablespaces=job.concessions.without_tablespaces,
        no_owners=job.concessions.without_owners,
        finished=job.loaded,
        may_fail=frozenset(
            e.dump_id for e in job.entries if e.before_data or e.after_data
        ),
    )


def run_all(url: str, statements: Sequence[str], timeout_seconds: float) -> None:
    if statements:
        with connect(url, purpose=OWN_STATEMENTS) as connection:
            limit_statements(connection, timeout_seconds)
            connection.execute("RESET search_path")
            for statement in statements:
                database.run_script(connection, statement)


def make(job: FillJob) -> list[Failure]:
    """Create the database and everything that stands before the rows.

    What the server refuses is returned, without what only depends on it.

    Raises:
        ServerFault: the server or a machine failed.
        DatabaseError: the database cannot be made, or the archive not be read.
    """
    place, given_up = job.place, job.concessions
    inventory = given_up.inventory(job.manifest.inventory)
    own = next((each for each in job.entries if each.kind == "DATABASE"), None)
    scratch.create(
        place.connection,
        place.name,
        inventory,
        run_id=place.run_id,
        tablespace=own.tablespace if own and not given_up.without_tablespaces else "",
    )
    url, before = job.url, job.loading.sql_before
    database.make_bare(url, inventory)
    try:
        run_all(url, before, job.limits.seconds)
    except DatabaseError as error:
        # In an empty copy, where no set is to blame.
        raise ServerFault(
            "sql_before failed",
            said=error.message,
            hint="Correct sql_before in the configuration.",
            sqlstate=error.sqlstate,
        ) from error
    given = Rights(url=url, connection=place.connection)
    # No two of them are made at once, so that another try makes no difference.
    failures = _make_definitions(given, job.as_last_try())
    job.require_time()
    return failures


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
            run_all(given.url, [statement], job.limits.seconds)
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
    if not survey.is_superuser(given.connection):
        return False
    with connect(given.url, purpose=OWN_STATEMENTS) as copy:
        limit_statements(copy, job.limits.seconds)
        own = job.manifest.inventory.database
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
    shortages = (*job.concessions.accepted, *found)
    return accept(job.entries, shortages, job.manifest)
