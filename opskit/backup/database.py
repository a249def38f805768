"""A database as a source: opened at one snapshot, when pg_dump holds its locks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from opskit.backup import diagnosis
from opskit.backup.dump import DatabaseDump
from opskit.backup.plan import DatabaseSource, Plan, expected_tables, make_plan
from opskit.backup.stream import DumpStream
from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import locks, snapshot
from opskit.postgres.client import require_same_server
from opskit.postgres.connect import Connection, server_major, translated
from opskit.postgres.locks import LockWait, LockWatch, SchemaChanged
from opskit.postgres.servers.programs import Installation, find_client
from opskit.postgres.snapshot import DatabaseLock, Snapshot, database_lock

_LOOK_SECONDS = 0.2
_ATTEMPTS = 3


@dataclass(frozen=True)
class DatabaseBackup:
    """A database to back up; the lock is taken in the database itself."""

    source: DatabaseSource

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return self.source.name

    @contextlib.contextmanager
    def opened(
        self, *, run_id: str, clock: Callable[[], datetime]
    ) -> Iterator[DatabaseDump]:
        """See `Source.opened`: one snapshot.

        Raises:
            DatabaseError: the server is unreachable or refuses.
            ClientToolError: there are no programs for its major.
        """
        with (
            database_lock(
                self.source.url,
                name=f"backup {self.name}",
                run_id=run_id,
                lock_wait=self.source.lock_wait,
            ) as lock,
            _dump(self.source, lock, run_id=run_id) as dump,
        ):
            yield dump


@contextlib.contextmanager
def _dump(
    source: DatabaseSource, lock: DatabaseLock, *, run_id: str
) -> Iterator[DatabaseDump]:
    """Take a snapshot of a database and yield its dump, which has all its locks.

    What changes between the snapshot and the locks spoils it; then it begins again, a
    few times.

    Raises:
        DatabaseError: the server is unreachable or refuses.
        ClientToolError: there are no programs for its major.
        BackupFailed: pg_dump failed, or waited too long for a lock.
    """
    major = server_major(lock.connection)
    client = find_client(source.installations, server_major=major)
    require_same_server(source.url, client, lock.connection)
    with contextlib.ExitStack() as stack:
        try:
            yield _entered(stack, source, lambda: _locked(source, client, lock, run_id))
        except LockWait:
            raise
        except BackupFailed as error:
            raise error.replace(hint=_hint(source, lock) or error.hint) from error


def _hint(source: DatabaseSource, lock: DatabaseLock) -> str:
    try:
        with translated("looking for the reason"):
            return diagnosis.hint(
                lock.connection, url=source.url, streams=source.streams
            )
    except DatabaseError as error:
        return error.hint


def _entered(
    stack: contextlib.ExitStack,
    source: DatabaseSource,
    begin: Callable[[], contextlib.AbstractContextManager[DatabaseDump]],
) -> DatabaseDump:
    for attempt in itertools.count(1):
        try:
            return stack.enter_context(begin())
        except SchemaChanged as error:
            if attempt == _ATTEMPTS:
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
    rewritten = snapshot.rewritten_tables(taken.connection)
    if rewritten:
        raise SchemaChanged(
            f"{', '.join(rewritten)} was truncated or rewritten after the snapshot "
            "was taken",
            hint="Run the backup again, when the migration has ended.",
        )
