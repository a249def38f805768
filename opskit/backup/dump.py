"""A PostgreSQL database as a source: one snapshot, one dump, and what they hold."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from opskit.backup import diagnosis, plan
from opskit.backup.plan import DatabaseSource, TableName
from opskit.backup.stream import DumpStream
from opskit.catalog.manifest import (
    LargeObjectsRecord,
    SequenceRecord,
    StreamRecord,
    TableRecord,
)
from opskit.errors import BackupFailed, DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import extensions, locks, schema, snapshot, survey
from opskit.postgres import locks as postgres_locks
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.archive.toc import not_validated
from opskit.postgres.client import require_same_server
from opskit.postgres.connect import (
    Connection,
    client_environment,
    server_major,
    translated,
)
from opskit.postgres.globals import Globals
from opskit.postgres.inventory import Inventory
from opskit.postgres.locks import LockWait, LockWatch, SchemaChanged
from opskit.postgres.schema import SchemaObject
from opskit.postgres.servers.programs import Installation, find_client
from opskit.postgres.snapshot import DatabaseLock, Snapshot, TableSizes, Weights

_LOOK_SECONDS = 0.2
_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a finished dump holds, as read from its own bytes.

    `dump_bytes` is the sum over all streams; `streams` has them where they are several.
    """

    dump_bytes: int
    streams: tuple[StreamRecord, ...]
    tables: tuple[TableRecord, ...]
    sequences: tuple[SequenceRecord, ...]
    large_objects: LargeObjectsRecord


@dataclass(frozen=True)
class Prepared:
    """What is settled before there is a snapshot: the programs, and their commands.

    A table may come or go in between; then a dump does not find it, or lacks it.
    """

    source: DatabaseSource
    client: Installation
    sizes: TableSizes
    commands: Sequence[tuple[str, list[str]]]
    expected: set[TableName]

    def streams(self, snapshot_id: str) -> tuple[DumpStream, ...]:
        """Return the dumps under a snapshot, not yet begun."""
        environment = client_environment(self.source.url)
        return tuple(
            DumpStream(
                role=role,
                arguments=[*command, f"--snapshot={snapshot_id}"],
                environment=environment,
            )
            for role, command in self.commands
        )


def prepare(
    source: DatabaseSource, client: Installation, connection: Connection
) -> Prepared:
    """Plan the dumps of a database as it is now."""
    sizes = snapshot.take(connection)
    expected = _expected(source, connection)
    # Named, so that no setting of the role or the environment chooses another.
    encoding = connection.info.parameter_status("server_encoding")
    commands = plan.commands(
        source,
        [client.program("pg_dump"), f"--encoding={encoding}"],
        expected=expected,
        sizes=sizes,
    )
    return Prepared(source, client, sizes, commands, expected)


def _expected(source: DatabaseSource, connection: Connection) -> set[TableName]:
    """Return the tables whose rows a dump must hold."""
    return snapshot.expected_tables(
        connection,
        exclude_tables=source.exclude_tables,
        exclude_table_data=source.exclude_table_data,
    )


class PostgresDump:
    """A database at one snapshot: describes it, streams it, checks what went by.

    It is made when pg_dump has its locks: what the snapshot holds is there to be read.
    """

    def __init__(
        self,
        prepared: Prepared,
        taken: Snapshot,
        streams: Sequence[DumpStream],
        watch: LockWatch,
    ) -> None:
        source = prepared.source
        self._source = source
        self._snapshot = taken
        self._watch = watch
        self.streams = streams
        self.client = prepared.client
        connection = taken.connection
        major = server_major(connection)
        self.warnings: list[str] = []
        if self.client.major != major:
            self._warn(
                f"server {major} is dumped with the newer pg_dump "
                f"{self.client.version}; "
                f"a restore needs pg_restore {self.client.major} or newer"
            )
        self.inventory: Inventory = survey.take(connection)
        self.schema: list[SchemaObject] = schema.take(
            connection, exclude_tables=source.exclude_tables
        )
        self._of_extensions = extensions.relations(connection)
        for loss in self.inventory.not_dumped:
            self._warn(f"{loss}: only a superuser's backup holds them")
        for each in self.inventory.beyond_dumps:
            self._warn(f"not in the dump: {each.name}: {each.reason}")
        self._expected = _expected(source, connection)
        self._weights = Weights(
            self._expected, prepared.sizes, self.inventory.size_bytes
        )

    @property
    def snapshot_id(self) -> str:
        """The id of the exported snapshot."""
        return self._snapshot.id

    @property
    def snapshot_at(self) -> datetime:
        """When the snapshot was taken, by the server's clock."""
        return self._snapshot.taken_at

    @property
    def bytes_expected(self) -> int:
        """How much there is to dump, by the sizes of the tables on the server."""
        return self._weights.total

    def bytes_passed(self) -> int:
        """Return how much of that has passed by so far."""
        return sum(each.bytes_passed(self._weights) for each in self.streams)

    @property
    def tables_expected(self) -> int:
        """How many tables the dump must hold."""
        return len(self._expected)

    def look(self) -> None:
        """Look whether a dump waits for a lock; callable from any thread.

        Raises:
            LockWait: it waited for too long.
        """
        self._watch.look()

    def end(self) -> None:
        """End every stream that still runs; callable from any thread."""
        for each in self.streams:
            each.end()

    def observed(self) -> Observed:
        """Return what the streams held, once they have gone by as a whole.

        Raises:
            BackupFailed: a table of the snapshot is not in it, or twice.
        """
        readers = [each.reader for each in self.streams]
        tables = plan.tables(readers, self._of_extensions)
        held = Counter((table.schema_name, table.name) for table in tables)
        if missing := self._expected - held.keys():
            raise BackupFailed(
                f"the dump does not hold the data of {_listed(missing)}",
                hint="The tables are in the snapshot; check the exclusions and the "
                "rights of the role.",
            )
        if doubled := {name for name, times in held.items() if times > 1}:
            raise BackupFailed(
                f"two streams of the dump hold the data of {_listed(doubled)}",
                hint="Set streams = 1 for this database, and report it: a restore "
                "would have every row twice.",
            )
        return Observed(
            dump_bytes=sum(each.dump_bytes for each in self.streams),
            streams=self._stream_records(),
            tables=tables,
            sequences=plan.sequences(self._first, self._of_extensions),
            large_objects=plan.large_objects(self._first),
        )

    def _stream_records(self) -> tuple[StreamRecord, ...]:
        found = tuple(
            StreamRecord(role=each.role, dump_bytes=each.dump_bytes)
            for each in self.streams
        )
        return found if len(found) > 1 else ()

    def globals(self) -> Globals:
        """Return the server's roles and tablespaces, and note the same roles.

        Raises:
            BackupFailed: roles change all the time, or one of the dump's is gone.
        """
        found, taken = plan.take(
            self._source.url,
            self.client,
            self._watch.connection,
            lock_wait=self._source.lock_wait,
        )
        plan.require_roles(
            taken,
            self._first.contents.entries,
            self.inventory.needed_roles,
        )
        self.inventory = self.inventory.model_copy(
            update={"roles": taken, "role_passwords": found.with_passwords}
        )
        if not found.with_passwords:
            self._warn(
                "roles are stored without password hashes: "
                "only a superuser can read them"
            )
        return found

    @property
    def restores_in_parallel(self) -> bool:
        """Whether several jobs of pg_restore bring all of it back."""
        return not not_validated(self._first.contents.entries)

    def schema_json(self) -> bytes:
        """Return every object of the database as JSON lines."""
        lines = (
            json.dumps([each.kind, each.name, each.state], ensure_ascii=False)
            for each in self.schema
        )
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    @property
    def _first(self) -> ArchiveReader:
        """The catch-all, which holds everything but the rows of some tables."""
        return self.streams[0].reader

    def _warn(self, message: str) -> None:
        self.warnings.append(message)  # they are shown with the result
        logger().info(message, source=self._source.name)


def _listed(tables: Iterable[TableName]) -> str:
    return ", ".join(sorted(".".join(each) for each in tables))


@contextlib.contextmanager
def open_dump(
    source: DatabaseSource, lock: DatabaseLock, *, run_id: str
) -> Iterator[PostgresDump]:
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
    begin: Callable[[], contextlib.AbstractContextManager[PostgresDump]],
) -> PostgresDump:
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
) -> Iterator[PostgresDump]:
    """Yield a dump under a snapshot of its own, held back until it is read."""
    prepared = prepare(source, client, lock.connection)
    watch = LockWatch(lock, source.lock_wait)
    purpose = f"backup run {run_id}"
    with (
        snapshot.exported(
            source.url, purpose=purpose, lock_wait=source.lock_wait
        ) as taken,
        contextlib.ExitStack() as running,
    ):
        streams = prepared.streams(taken.id)
        running.callback(watch.wait_for_end)
        for each in streams:
            running.enter_context(each.running())
        with (
            _judged(prepared, taken, lock.connection),
            _timed_out(watch, "reading the catalog"),
        ):
            _require_locks(streams, watch)
            with taken.connection.transaction():  # what fails does not end the snapshot
                _require_unchanged(taken)
                dump = PostgresDump(prepared, taken, streams, watch)
        yield dump


@contextlib.contextmanager
def _judged(prepared: Prepared, taken: Snapshot, now: Connection) -> Iterator[None]:
    """Tell what failed because the schema changed from what failed for good."""
    try:
        yield
    except (LockWait, SchemaChanged, ServerFault):
        raise
    except (BackupFailed, DatabaseError) as error:
        found = None
        with contextlib.suppress(DatabaseError), translated("looking for changes"):
            planned = prepared.expected - _expected(prepared.source, taken.connection)
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
        if error.sqlstate == postgres_locks.TIMED_OUT:
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
