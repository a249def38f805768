"""The dumps of a database: a catch-all, and the largest tables beside it.

Each is a pg_dump whose bytes are read as they pass.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import zstandard

from opskit.catalog.manifest import CATCH_ALL, ROWS
from opskit.errors import BackupFailed
from opskit.postgres import client, schema, snapshot
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.connect import Connection, milliseconds
from opskit.postgres.parameters import client_connection, client_environment
from opskit.postgres.servers.programs import Installation
from opskit.postgres.snapshot import TableName, TableSizes, Weights

# What pg_dump says first once it has locked its tables and read all of the catalog.
_AFTER_LOCKS = b"pg_dump: saving encoding"
_FIRST_WORD_SECONDS_MAX = 60
_END_SECONDS = 1


class DumpStream:
    """A pg_dump under the snapshot, and what its bytes held once they were read."""

    def __init__(
        self, *, role: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.role = role
        self.reader = ArchiveReader()
        self.dump_bytes = 0
        self._begun = self._begun_at = 0
        self._arguments = [*arguments, "--verbose"]
        self._environment = {**environment, **client.PLAIN_WORDS}
        self._program: client.Running | None = None
        self._settled = threading.Event()
        self._has_locks = self._has_ended = self._is_locked = False
        self._started = time.monotonic()
        self._is_silent = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the program while the block lasts.

        It cannot end, and give its locks back, before its bytes are read.
        """
        with client.running(
            self._arguments, self._environment, progress=self._hear, held=True
        ) as self._program:
            self._started = time.monotonic()
            yield

    def wait_for_locks(self, seconds: float) -> bool:
        """Wait a while for the locks of all its tables; return whether to wait longer.

        It does not wait for a program that has ended or prints nothing: its bytes will
        show why.

        Raises:
            BackupFailed: it failed.
        """
        self._settled.wait(seconds)
        self._running.require_well(_END_SECONDS if self._has_ended else 0)
        self._is_locked = self._has_locks
        waited_seconds = time.monotonic() - self._started
        is_silent = self._is_silent and waited_seconds > _FIRST_WORD_SECONDS_MAX
        return not self._settled.is_set() and not is_silent

    def blocks(self, idle: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """Yield the dump's bytes; `idle` is called while there is none.

        Raises:
            BackupFailed: pg_dump did not end well, or began without its locks.
            ArchiveError: what it wrote is no whole archive.
        """
        for block in self._running.blocks(idle):
            self.reader.feed(block)
            begun = len(self.reader.begun)
            if begun > self._begun:
                self._begun, self._begun_at = begun, self.dump_bytes
            self.dump_bytes += len(block)
            yield block
        self.reader.close()
        if not self._is_locked:
            raise BackupFailed(
                "pg_dump did not say that it had the locks of its tables",
                hint="Use PostgreSQL's own pg_dump; a wrapper must pass --verbose on.",
            )

    def bytes_passed(self, weights: Weights) -> int:
        """Return the weights of what has passed by, and a part of what does now."""
        if not self.reader.begun:
            return 0
        *done, current = self.reader.begun
        part = weights.part(
            current,
            rows=self.reader.rows_of_current,
            size_bytes=self.dump_bytes - self._begun_at,
        )
        return sum(map(weights.of, done)) + part

    def end(self) -> None:
        self._running.end()

    @property
    def _running(self) -> client.Running:
        assert self._program is not None
        return self._program

    def _hear(self, line: bytes) -> None:
        self._is_silent = False
        self._has_ended = not line
        self._has_locks |= line.startswith(_AFTER_LOCKS)
        if self._has_ended or self._has_locks:
            self._settled.set()


LEVEL = 3
_THREADS_MAX = 4
_CHUNK_BYTES = 1024 * 1024
# Each thread holds a few jobs: the library's own 8 MiB take several times the memory.
# So that small ones compress as well, each knows half a window of what came before it.
_JOB_BYTES = 2 * 1024 * 1024
_OVERLAP_LOG = 8
# Of two of zstd's levels, the shortest match that is looked for. Rows are full of
# digits that match by chance for five bytes, which costs time and saves hardly a byte.
_MIN_MATCH = {3: 6, 4: 6}


def compressed(
    chunks: Iterable[bytes], level: int = LEVEL, *, streams: int = 1
) -> Iterator[bytes]:
    """Yield one zstd frame, checksum included, in chunks of about 1 MiB.

    `streams` is how many are compressed at once: they share the processors. A stream
    that has none to itself is compressed by its reader, without threads' buffers.

    Raises:
        BackupFailed: there is no memory, or no thread, to compress with.
    """
    threads = min(_THREADS_MAX, os.cpu_count() or 1) // streams
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        **({"min_match": _MIN_MATCH[level]} if level in _MIN_MATCH else {}),
        threads=threads if threads > 1 else 0,
        job_size=_JOB_BYTES,
        overlap_log=_OVERLAP_LOG,
        write_checksum=True,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    chunker = compressor.chunker(chunk_size=_CHUNK_BYTES)
    try:
        for chunk in chunks:
            yield from chunker.compress(chunk)
        yield from chunker.finish()  # type: ignore[no-untyped-call]  # its stub has no types
    except zstandard.ZstdError as error:
        raise BackupFailed(
            f"the dump cannot be compressed: {error}",
            hint="Free some memory, or raise the limit of processes (`ulimit -u`).",
        ) from error


_STREAMS_MAX = 4


def usual_streams(processors: int) -> int:
    """Return how many dumps at once suit a machine, where none are configured.

    One keeps two processors busy with its server process, pg_dump, digests and zstd;
    and the digests of all streams share one processor, which a few of them fill.
    """
    return max(1, min(processors // 2, _STREAMS_MAX))


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """Which database to back up, with which programs, and what to leave out.

    `streams` is how many dumps may run at once under the one snapshot.
    """

    name: str
    url: str = field(repr=False)
    installations: Sequence[Installation]
    exclude_tables: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()
    lock_wait: timedelta = timedelta(seconds=60)
    compression_level: int = 3
    streams: int = 1


# Each pg_dump begins by reading the catalog: in the time that takes for one relation it
# dumps about this much. What a stream brings must be worth its beginning.
_BYTES_PER_RELATION = 64 * 1024
_STREAM_BYTES_MIN = 64 * 1024 * 1024
# pg_dump's own limit is the second one: whoever looks at its locks knows the holder,
# and must not see that it waits no longer just before it says why.
_PATIENCE = timedelta(seconds=10)
# Names go on a command line; and what is not among the largest tips no balance.
_TABLES_PER_STREAM_MAX = 16


def shares(
    sizes: Mapping[TableName, int], *, streams: int, others_bytes: int, relations: int
) -> tuple[tuple[TableName, ...], ...]:
    """Return the tables of each stream but the catch-all; empty if one is enough.

    `sizes` are bytes of the tables that may have a stream to themselves, `others_bytes`
    what the catch-all dumps anyway; it counts among the `streams`. `relations` is how
    many the catalog has.
    """
    least = max(_STREAM_BYTES_MIN, relations * _BYTES_PER_RELATION)
    ordered = sorted(sizes, key=lambda each: (-sizes[each], each))
    largest = ordered[: streams * _TABLES_PER_STREAM_MAX]
    small_bytes = sum(sizes[each] for each in ordered[len(largest) :])
    loads = [others_bytes + small_bytes, *[0] * (streams - 1)]
    tables: list[list[TableName]] = [[] for _ in loads]
    for table in largest:
        number = loads.index(min(loads))
        loads[number] += sizes[table]
        tables[number].append(table)
    own = zip(tables[1:], loads[1:], strict=True)
    return tuple(tuple(held) for held, load in own if load >= least)


def commands(
    source: DatabaseSource,
    program: Sequence[str],
    *,
    expected: Collection[TableName],
    sizes: TableSizes,
) -> list[tuple[str, list[str]]]:
    """Return the role and the command of each dump, the catch-all first.

    `program` is pg_dump and the arguments that all dumps have, `expected` the tables
    whose rows must be dumped; no others are dumped alone.
    """
    alone = {
        table: size_bytes
        for table, size_bytes in sizes.tables.items()
        if table in expected and schema.has_exact_pattern(*table)
    }
    others_bytes = sum(sizes.tables.values()) - sum(alone.values())
    own = shares(
        alone,
        streams=source.streams,
        others_bytes=others_bytes + sizes.large_objects_bytes,
        relations=sizes.relations,
    )
    common = [
        *program,
        f"--dbname={client_connection(source.url)}",
        "--format=custom",
        "--compress=0",
        "--no-password",
        f"--lock-wait-timeout={milliseconds(source.lock_wait + _PATIENCE)}",
    ]
    away = [schema.exact_pattern(*table) for tables in own for table in tables]
    catch_all = [f"--exclude-table={each}" for each in source.exclude_tables]
    catch_all += [
        f"--exclude-table-data={each}" for each in (*source.exclude_table_data, *away)
    ]
    dumps = [(CATCH_ALL, [*common, *catch_all])]
    for number, tables in enumerate(own, start=1):
        wanted = [f"--table={schema.exact_pattern(*table)}" for table in tables]
        # Not --data-only, which warns of foreign keys that form a circle.
        rows = ["--section=data", "--strict-names", *wanted]
        dumps.append((f"{ROWS}{number}", [*common, *rows]))
    return dumps


@dataclass(frozen=True)
class Plan:
    """What is settled before there is a snapshot: the programs, and their commands.

    A table may come or go in between; then a dump does not find it, or lacks it.
    """

    source: DatabaseSource
    client: Installation
    sizes: TableSizes
    commands: Sequence[tuple[str, list[str]]]
    expected: set[TableName]

    def streams(self, snapshot_id: str) -> tuple[DumpStream, ...]:
        environment = client_environment(self.source.url)
        return tuple(
            DumpStream(
                role=role,
                arguments=[*command, f"--snapshot={snapshot_id}"],
                environment=environment,
            )
            for role, command in self.commands
        )


def make_plan(
    source: DatabaseSource, client: Installation, connection: Connection
) -> Plan:
    sizes = snapshot.table_sizes(connection)
    expected = expected_tables(source, connection)
    # Named, so that no setting of the role or the environment chooses another.
    encoding = connection.info.parameter_status("server_encoding")
    program = [client.program("pg_dump"), f"--encoding={encoding}"]
    planned = commands(source, program, expected=expected, sizes=sizes)
    return Plan(source, client, sizes, planned, expected)


def expected_tables(source: DatabaseSource, connection: Connection) -> set[TableName]:
    """Return the tables whose rows a dump must hold."""
    return snapshot.expected_tables(
        connection,
        exclude_tables=source.exclude_tables,
        exclude_table_data=source.exclude_table_data,
    )
