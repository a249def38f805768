"""A database as a source: opened at one snapshot, when pg_dump holds its locks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from opskit.backup.dump import DatabaseDump
from opskit.backup.stream import (
    DatabaseSource,
    DumpStream,
    Plan,
    expected_tables,
    make_plan,
)
from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import locks, snapshot, survey
from opskit.postgres.client import require_same_server
from opskit.postgres.connect import (
    Connection,
    connect,
    query,
    query_value,
    server_major,
    translated,
)
from opskit.postgres.locks import LockWait, LockWatch, SchemaChanged
from opskit.postgres.servers.programs import Installation, find_client
from opskit.postgres.snapshot import (
    Attempt,
    DatabaseLock,
    Snapshot,
    database_lock,
)


def hint(connection: Connection, *, url: str, streams: int) -> str:
    """Return what to do about a dump that failed, empty where nothing is found.

    pg_dump reports no SQLSTATE, so the server is asked for the reason.

    Raises:
        DatabaseError: another connection, such as pg_dump's, is refused, and nothing
            on the server says why.
    """
    hindrances = " ".join(_hindrances(connection, streams))
    try:
        with connect(url, purpose="diagnosis") as other:
            if _server(other) != _server(connection):
                return (
                    "Two servers answer at this URL, and a snapshot exists on one of "
                    "them only: name the server itself in the URL."
                )
    except DatabaseError:
        if not hindrances:
            raise
    return hindrances


def _server(connection: Connection) -> object:
    return query_value(connection, "SELECT pg_postmaster_start_time()")


def _hindrances(connection: Connection, streams: int) -> Iterator[str]:
    if survey.hidden_tables(connection):
        yield (
            "Connect as a role with BYPASSRLS or as the tables' owner: a dump through "
            "row-level security would hold only the rows that the role may see."
        )
    if unreadable := survey.unreadable_relations(connection):
        yield _how_to_read(connection, unreadable[0])
    if unreadable := survey.unreadable_large_objects(connection):
        yield (
            "Let its owner grant it: GRANT SELECT ON LARGE OBJECT "
            f"{unreadable[0]} TO that_role; or back up as a superuser."
        )
    yield from _limits(connection, streams)
    if query_value(connection, _CONFLICTS):
        yield (
            "This standby has cancelled queries for its replay: set "
            "hot_standby_feedback = on there, or raise max_standby_streaming_delay."
        )


_CONFLICTS = """
    SELECT sum(confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin
               + confl_deadlock) > 0
    FROM pg_stat_database_conflicts
    WHERE datname = current_database() AND pg_is_in_recovery()
    """


def _how_to_read(connection: Connection, relation: str) -> str:
    if roles := survey.role_in_place_of_ours(connection):
        given, ours, database = roles
        return (
            f"A setting gives the session the role {given}, which may not read "
            f"everything. If {ours} may: "
            f"ALTER ROLE {ours} IN DATABASE {database} SET role = none. "
            f"Else grant {given} what is missing."
        )
    return (
        f"The role may not read {relation}. Grant what is missing to it, for instance: "
        "GRANT pg_read_all_data TO that_role; or exclude the table."
    )


def _limits(connection: Connection, streams: int) -> Iterator[str]:
    ((connections, has_slots),) = query(
        connection,
        """
        SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1)),
               (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p'))
               < current_setting('max_locks_per_transaction')::int8 *
                 (current_setting('max_connections')::int8
                  + current_setting('max_prepared_transactions')::int8)
        FROM pg_roles r, pg_database d
        WHERE r.rolname = session_user AND d.datname = current_database()
        """,
    )
    needed = 2 + streams
    if connections is not None and connections < needed:
        yield (
            f"A backup needs {needed} connections at once, and the role or database is "
            f"allowed {connections}: raise CONNECTION LIMIT, or set streams lower."
        )
    if not has_slots:
        yield (
            "Raise max_locks_per_transaction on the server: pg_dump locks every table."
        )


_LOOK_SECONDS = 0.2
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class DatabaseBackup(DatabaseSource):
    """A database to back up; the lock is taken in the database itself.

    `attempt` is that at a job of a fleet, if it is done for one.
    """

    attempt: Attempt | None = None

    @contextlib.contextmanager
    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> Iterator[DatabaseDump]:
        """See `Source.opened`: one snapshot, and all locks of its dump.

        Raises:
            DatabaseError: the server is unreachable or refuses.
            ClientToolError: there are no programs for its major.
            BackupFailed: pg_dump failed, or waited too long for a lock.
        """
        name, wait = f"backup {self.name}", self.lock_wait
        with (
            database_lock(
                self.url,
                name=name,
                run_id=run_id,
                lock_wait=wait,
                attempt=self.attempt,
            ) as lock,
            contextlib.ExitStack() as stack,
        ):
            major = server_major(lock.connection)
            client = find_client(self.installations, server_major=major)
            require_same_server(self.url, client, lock.connection)
            try:
                yield _entered(stack, self, client, lock, run_id)
            except LockWait:
                raise
            except BackupFailed as error:
                raise error.replace(hint=_hint(self, lock) or error.hint) from error


def _hint(source: DatabaseSource, lock: DatabaseLock) -> str:
    try:
        with translated("looking for the reason"):
            return hint(lock.connection, url=source.url, streams=source.streams)
    except DatabaseError as error:
        return error.hint


def _entered(
    stack: contextlib.ExitStack,
    source: DatabaseSource,
    client: Installation,
    lock: DatabaseLock,
    run_id: str,
) -> DatabaseDump:
    """Begin a dump; what changes between the snapshot and the locks begins it again."""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            return stack.enter_context(_locked(source, client, lock, run_id))
        except SchemaChanged as error:
            if not attempts_left:
                raise
            logger().warning(
                "the backup begins again with a new snapshot",
                source=source.name,
                reason=error.message,
            )
    raise AssertionError


@contextlib.contextmanager
def _locked(
    source: DatabaseSource, client: Installation, lock: DatabaseLock, run_id: str
) -> Iterator[DatabaseDump]:
    """Yield a dump under a snapshot of its own, held back until it is read."""
    plan = make_plan(source, client, lock.connection)
    watch = LockWatch(lock, source.lock_wait)
    purpose = f"backup run {run_id}"
    with (
        snapshot.exported(
            source.url, purpose=purpose, lock_wait=source.lock_wait
        ) as taken,
        contextlib.ExitStack() as running,
    ):
        streams = plan.streams(taken.id)
        running.callback(watch.wait_for_end)
        for each in streams:
            running.enter_context(each.running())
        with (
            _judged(plan, taken, lock.connection),
            _timed_out(watch, "reading the catalog"),
        ):
            _require_locks(streams, watch)
            with taken.connection.transaction():  # what fails does not end the snapshot
                _require_unchanged(taken)
                dump = DatabaseDump(plan, taken, streams, watch, lock.require_held)
        yield dump


@contextlib.contextmanager
def _judged(plan: Plan, taken: Snapshot, now: Connection) -> Iterator[None]:
    """Tell what failed because the schema changed from what failed for good."""
    try:
        yield
    except (LockWait, SchemaChanged, ServerFault):
        raise
    except (BackupFailed, DatabaseError) as error:
        found = None
        with contextlib.suppress(DatabaseError), translated("looking for changes"):
            planned = plan.expected - expected_tables(plan.source, taken.connection)
            found = locks.explanation(error, taken.connection, now, planned=planned)
        if found is None:
            raise
        raise found from error


@contextlib.contextmanager
def _timed_out(watch: LockWatch, doing: str) -> Iterator[None]:
    """Say for whom a statement waited that lock_timeout ended."""
    try:
        with translated(doing):
            yield
    except DatabaseError as error:
        if error.sqlstate == locks.TIMED_OUT:
            raise watch.waited(doing) from error
        raise


def _require_locks(streams: Sequence[DumpStream], watch: LockWatch) -> None:
    """Wait until all streams hold their locks, and see that none has failed."""
    waiting = list(streams)
    while waiting:
        try:
            waiting = [each for each in waiting if each.wait_for_locks(_LOOK_SECONDS)]
        except BackupFailed as error:
            if watch.is_waiting:  # pg_dump has its own limit for tables
                raise watch.waited("pg_dump") from error
            raise
        watch.look()


def _require_unchanged(taken: Snapshot) -> None:
    """Check, while all locks are held, that what the snapshot saw is dumped."""
    if rewritten := snapshot.rewritten_tables(taken.connection):
        raise SchemaChanged(
            f"{', '.join(rewritten)} was truncated or rewritten after the snapshot "
            "was taken",
            hint="Run the backup again, when the migration has ended.",
        )
