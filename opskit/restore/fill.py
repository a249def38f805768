"""Makes a database like the source's and fills it from an archive."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.catalog.manifest import Manifest
from opskit.errors import DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import (
    database,
    extensions,
    foreign,
    properties,
    row_checks,
    scratch,
    surroundings,
)
from opskit.postgres.connect import (
    Connection,
    connect,
    limit_statements,
    server_major,
    translated,
)
from opskit.postgres.conninfo import with_database, with_settings
from opskit.postgres.order import (
    dependents,
    event_triggers,
    not_validated,
    reads_elsewhere,
    with_dependents,
)
from opskit.postgres.programs import Installation
from opskit.postgres.row_checks import RowCheck
from opskit.postgres.sessions import OWN_STATEMENTS
from opskit.postgres.toc_entry import TocEntry
from opskit.progress import measured
from opskit.restore import again, definition, load, verdict
from opskit.restore.ahead import extension_statement, statements_ahead
from opskit.restore.concessions import Concessions, Failure, accept
from opskit.restore.preflight import Shortage
from opskit.restore.rights import Rights, choose, warn_of_code

_FIRST_WITH_EVENT_TRIGGERS_SETTING = 17
# Of a wrapper without its handler, and of a view that was not filled for want of one.
_NO_HANDLER_OR_ROWS = "55000"
_WITH_ROW_CHECKS = ("TABLE", "FOREIGN TABLE", "DOMAIN")
# Of a library or another file that is not there.
_UNDEFINED_FILE = "58P01"
_HOW_TO_READ = ("ENCODING", "STDSTRINGS", "SEARCHPATH")


@dataclass(frozen=True, kw_only=True)
class FillJob:
    """What to make of which archive.

    `entries` are the archive's contents as far as they are wanted, `is_whole` tells
    whether that is all of them. `sql_before` and `sql_after` are the user's own, and
    so are `settings` of the sessions that load. In the `last_try`, rows are loaded
    without CHECK constraints, which are put back afterwards, and an error is judged.
    `trust` is called where code of these roles will run with the rights of a superuser.
    Where it is `offline`, nothing that is loaded connects to foreign servers.
    `run_id` is that of the run that the copy is marked for; one on a throw-away server
    needs no mark. `loaded` is told of entries that are in already, see
    `load.LoadJob.finished`. `is_over` says whether the run's time is over.
    """

    server_url: str = field(repr=False)
    name: str
    manifest: Manifest
    archive: Path
    entries: Sequence[TocEntry]
    is_whole: bool = True
    installations: Sequence[Installation]
    jobs: int
    timeout_seconds: float
    concessions: Concessions = field(default_factory=Concessions)
    settings: Mapping[str, str] = field(default_factory=dict)
    sql_before: Sequence[str] = ()
    sql_after: Sequence[str] = ()
    last_try: bool = False
    loaded: Callable[[int], None] = lambda _dump_id: None
    trust: Callable[[Sequence[str]], None] = warn_of_code
    run_id: str = ""
    is_over: Callable[[], bool] = lambda: False
    offline: bool = False

    @functools.cached_property
    def outside(self) -> set[int]:
        """The dump ids of entries that would read foreign tables where nothing may."""
        return reads_elsewhere(self.entries) if self.offline else set()


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A copy with all its rows, and the entries after the data that it lacks."""

    url: str = field(repr=False)
    words: str
    failures: tuple[Failure, ...]


def copy_url(connection: Connection, job: FillJob) -> str:
    """Return how to connect to the copy so that nothing in it acts by itself.

    Its triggers and event triggers, its rules, its libraries and settings are the
    service's; loading and comparing must meet the tables alone.
    """
    settings = _plain_settings(connection, job) | _silencing(connection)
    return with_settings(with_database(job.server_url, job.name), settings)


def _plain_settings(connection: Connection, job: FillJob) -> dict[str, str]:
    settings = {"default_transaction_read_only": "off", "role": "none"}
    money = job.manifest.inventory["settings"].get("lc_monetary")
    if money and surroundings.has_locale(connection, money):
        settings["lc_monetary"] = money
    return settings | surroundings.of_sessions(connection, job.settings)


def _silencing(connection: Connection) -> dict[str, str]:
    """Return the settings that only a superuser can give a session."""
    if not surroundings.is_superuser(connection):
        return {}
    settings = {"session_replication_role": "replica", "session_preload_libraries": ""}
    if server_major(connection) >= _FIRST_WITH_EVENT_TRIGGERS_SETTING:
        settings["event_triggers"] = "off"
    return settings


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
    _run_all(url, job.sql_before, job.timeout_seconds)
    given = Rights(url=url, connection=connection)
    # No two of them are made at once, so that another try makes no difference.
    return _make_definitions(given, replace(job, jobs=1, last_try=True))


def with_shortages(job: FillJob, found: Iterable[Shortage]) -> Concessions:
    """Return the job's concessions, and what is done without for these shortages."""
    shortages = (*job.concessions.accepted, *found)
    return accept(job.entries, shortages, job.manifest)


def fill(connection: Connection, job: FillJob) -> Filled:
    """Load all rows into what `make` made, and after them as much as can be made.

    What fails with parallel jobs may be a matter of their timing, and a CHECK may
    refuse rows that were there: it is tried once more with one job, and with all checks
    put back after the rows. What rows break then is a failure of the constraint.

    Raises:
        ServerFault: the server or a machine failed.
        DatabaseError: the server or pg_restore refuses rows.
    """
    try:
        return _fill(connection, job)
    except ServerFault:
        raise
    except DatabaseError as error:
        if job.is_over():
            raise
        logger().warning(
            "loading once more with one job, checks after rows", failed=error.message
        )
        _make_again(connection, job)
    return _fill(connection, replace(job, jobs=1, last_try=True))


def _make_again(connection: Connection, job: FillJob) -> None:
    scratch.drop_made(connection, job.server_url, job.name, run_id=job.run_id)
    make(connection, job)


def _fill(connection: Connection, job: FillJob) -> Filled:
    url = copy_url(connection, job)
    size_bytes = job.manifest.inventory.get("size_bytes") if job.is_whole else None
    given = _rights(connection, job, url)
    handlers = _disconnected(given, job)
    with measured(
        "loading", size_bytes, lambda: database.size_bytes(connection, job.name)
    ):
        loaded = _load(given, job)
    failures = _put_back(given, job, loaded.taken)
    failures += _load_again(given, job, loaded.failed)
    if handlers:
        with connect(url, purpose="restore") as copy:
            foreign.connect_again(copy, handlers)
    _run_all(url, job.sql_after, job.timeout_seconds)
    if job.is_whole:
        failures += _set_properties(connection, job)
    failures += [
        Failure(entry=entry, error="", is_outside=True)
        for entry in job.concessions.entries(job.entries)
        if entry.dump_id in job.outside
    ]
    return Filled(url=url, words=loaded.words, failures=tuple(failures))


def _rights(connection: Connection, job: FillJob, url: str) -> Rights:
    plain = with_database(job.server_url, job.name)
    ourselves = Rights(
        url=url,
        connection=connection,
        login_url=with_settings(plain, _plain_settings(connection, job)),
        settings=_silencing(connection),
    )
    return choose(ourselves, job.concessions.entries(job.entries), job.trust)


def _put_back(given: Rights, job: FillJob, taken: Sequence[RowCheck]) -> list[Failure]:
    """Add constraints to what has its rows now, with the rights of its owner."""
    made_with = {
        (e.schema, e.name): e for e in job.entries if e.kind in _WITH_ROW_CHECKS
    }
    failures = []
    for each in taken:
        entry = replace(
            made_with[each.schema, each.of],
            kind="CHECK CONSTRAINT",
            name=f"{each.of} {each.name}",
        )
        with given.by(entry) as url:
            error = again.make(
                url,
                entry,
                each.statement.encode(),
                encoding="UTF8",
                timeout_seconds=job.timeout_seconds,
            )
        if error is not None:
            heirs = frozenset(made_with[heir].dump_id for heir in each.heirs)
            failures.append(replace(_failure(entry, error), also=heirs))
    return failures


def _load_again(given: Rights, job: FillJob, failed: Collection[int]) -> list[Failure]:
    """Try entries once more, each by itself, now that all others are there."""
    head = [entry for entry in job.entries if entry.kind in _HOW_TO_READ]
    inventory = job.manifest.inventory
    failures = []
    for entry in again.in_order(each for each in job.entries if each.dump_id in failed):
        script = load.script(_load_job(given, job, [*head, entry]))
        try:
            with given.by(entry) as url:
                error = again.make(
                    url,
                    entry,
                    again.with_search_path(script, head, inventory),
                    encoding=inventory["encoding"],
                    timeout_seconds=job.timeout_seconds,
                )
        except ServerFault as fault:
            if not (entry.before_data and fault.sqlstate == _UNDEFINED_FILE):
                raise
            error = fault
        if error is not None:
            is_outside = (
                job.offline
                and entry.kind == "MATERIALIZED VIEW DATA"
                and error.sqlstate == _NO_HANDLER_OR_ROWS
            )
            failures.append(_failure(entry, error, is_outside=is_outside))
    return failures


def _failure(
    entry: TocEntry, error: DatabaseError, *, is_outside: bool = False
) -> Failure:
    return Failure(
        entry=entry,
        error=error.message,
        sqlstate=error.sqlstate,
        is_outside=is_outside,
    )


def _set_properties(connection: Connection, job: FillJob) -> list[Failure]:
    """Give the database its own settings, grants and comment."""
    failures = []
    for entry in job.entries:
        script = properties.property_script(
            [entry],
            str(job.manifest.inventory["database"]),
            job.name,
            without_settings=job.concessions.subjects("setting"),
            without_roles=job.concessions.subjects("role"),
            with_grants=not job.concessions.without_owners,
        )
        error = again.make_each(
            entry,
            definition.units(script),
            lambda each: scratch.run_about(
                connection, job.name, each, run_id=job.run_id
            ),
        )
        if error is not None:
            failures.append(_failure(entry, error))
    return failures


def _disconnected(given: Rights, job: FillJob) -> foreign.Handlers:
    """Put foreign servers out of reach; return the handlers to be given back."""
    if not (job.offline and surroundings.is_superuser(given.connection)):
        return {}
    with connect(given.url, purpose="restore") as copy:
        return foreign.disconnect(copy)


class _Loaded:
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
            if not e.before_data and e.kind not in _HOW_TO_READ
        }
        self._words: list[str] = []
        self._given, self._job = given, job

    @property
    def words(self) -> str:
        """What pg_restore said in all steps."""
        return "\n".join(filter(None, self._words))

    def step(self, wanted: Collection[int], url: str = "") -> None:
        """Load these entries, if there are any, and what tells how to read them."""
        if not wanted:
            return
        entries = [
            e for e in self.kept if e.kind in _HOW_TO_READ or e.dump_id in wanted
        ]
        load_job = _load_job(self._given, self._job, entries)
        load_job = replace(load_job, url=url or self._given.url)
        try:
            said, failed = load.load(load_job)
        except ServerFault:
            raise
        except DatabaseError as error:
            if not self._job.last_try or self._job.is_over():
                raise
            raise verdict.judged(self._given.connection, load_job, error) from error
        self._words.append(said)
        self.failed.update(failed)
        self.left.difference_update(wanted)


def _make_definitions(given: Rights, job: FillJob) -> list[Failure]:
    """Make what stands before the rows; what fails is tried once more at the end."""
    loaded = _Loaded(given, job)
    kept = loaded.kept
    ahead = statements_ahead(kept, job.manifest, job.concessions)
    before = {e.dump_id for e in kept if e.before_data and e.kind not in _HOW_TO_READ}
    failures: list[Failure] = []
    if ahead:
        schemas = {e.dump_id for e in kept if e.kind == "SCHEMA"}
        loaded.step(schemas)
        failures += _run_ahead(given, job, kept, ahead)
        gone = with_dependents(kept, (each.entry.dump_id for each in failures))
        before -= schemas | gone
    loaded.step(before)
    failures += _load_again(given, job, loaded.failed)
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
            _run_all(given.url, [statement], job.timeout_seconds)
        except DatabaseError as error:
            entry = next(
                (e for start, e in entries.items() if statement.startswith(start)),
                None,
            )
            is_fault = isinstance(error, ServerFault)
            if entry is None or (is_fault and error.sqlstate != _UNDEFINED_FILE):
                raise
            if not _run_under_other_names(given, job, statement):
                failures.append(_failure(entry, error))
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


def _load(given: Rights, job: FillJob) -> _Loaded:
    """Load the rows, and in steps what comes after them or last of all."""
    loaded = _Loaded(given, job)
    kept = loaded.kept
    last = with_dependents(kept, not_validated(kept) | event_triggers(kept))
    if job.last_try:
        with connect(given.url, purpose="restore") as inside:
            loaded.taken = row_checks.take_off(inside)
    rows = {e.dump_id: (e.schema, e.name) for e in kept if e.kind == "TABLE DATA"}
    tables = job.manifest.tables
    configuration = {(e.schema_name, e.name) for e in tables if e.extension}
    # A type of an extension may read it for each value of another table.
    loaded.step({each for each, name in rows.items() if name in configuration})
    if given.login_url or job.last_try:
        with given.for_rows() as rows_url:
            loaded.step(loaded.left & rows.keys(), rows_url)
    loaded.step(loaded.left - last)
    for entry in filter(given.checks, kept):
        with given.by(entry) as url:
            loaded.step({entry.dump_id}, url)
    loaded.step(last & loaded.left)
    return loaded


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
        jobs=job.jobs,
        timeout_seconds=job.timeout_seconds,
        use_list=use_list,
        no_tablespaces=job.concessions.without_tablespaces,
        no_owners=job.concessions.without_owners,
        finished=job.loaded,
        may_fail=frozenset(
            e.dump_id for e in job.entries if e.before_data or e.after_data
        ),
    )


def _run_all(url: str, statements: Sequence[str], timeout_seconds: float) -> None:
    if statements:
        with connect(url, purpose=OWN_STATEMENTS) as connection:
            limit_statements(connection, timeout_seconds)
            connection.execute("RESET search_path")
            for statement in statements:
                database.run_script(connection, statement)
