"""A PostgreSQL database as a source: one snapshot, one dump, and what they hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from opskit.backup import records, surroundings
from opskit.catalog.manifest import LargeObjectsRecord, SequenceRecord, TableRecord
from opskit.errors import BackupFailed
from opskit.log import logger
from opskit.postgres import (
    client,
    extensions,
    inventory,
    schema,
    snapshot,
)
from opskit.postgres.archive import ArchiveReader
from opskit.postgres.connect import server_major
from opskit.postgres.conninfo import client_connection, client_environment
from opskit.postgres.globals import Globals
from opskit.postgres.inventory import Inventory
from opskit.postgres.order import not_validated
from opskit.postgres.programs import Installation, find_client
from opskit.postgres.schema import SchemaObject
from opskit.postgres.snapshot import Snapshot
from opskit.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class DatabaseSource:
    """Which database to back up, with which programs, and what to leave out."""

    name: str
    url: str = field(repr=False)
    installations: Sequence[Installation]
    exclude_tables: Sequence[str] = ()
    exclude_table_data: Sequence[str] = ()
    lock_wait: timedelta = timedelta(seconds=60)
    compression_level: int = 3


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a finished dump holds, as read from its own bytes."""

    dump_bytes: int
    tables: tuple[TableRecord, ...]
    sequences: tuple[SequenceRecord, ...]
    large_objects: LargeObjectsRecord


class PostgresDump:
    """A database at one snapshot: describes it, streams it, checks what went by."""

    def __init__(self, source: DatabaseSource, taken: Snapshot) -> None:
        self._source = source
        self._snapshot = taken
        self._reader = ArchiveReader()
        self._dump_bytes = 0
        connection = taken.connection
        major = server_major(connection)
        self.client = find_client(source.installations, server_major=major)
        self.warnings: list[str] = []
        if self.client.major != major:
            self._warn(
                f"server {major} is dumped with the newer pg_dump "
                f"{self.client.version}; "
                f"a restore needs pg_restore {self.client.major} or newer"
            )
        self.inventory: Inventory = inventory.take(connection)
        self.schema: list[SchemaObject] = schema.take(
            connection, exclude_tables=source.exclude_tables
        )
        self._of_extensions = extensions.relations(connection)
        for loss in self.inventory["not_dumped"]:
            self._warn(f"{loss}: only a superuser's backup holds them")
        self._expected = inventory.expected_tables(
            connection,
            exclude_tables=source.exclude_tables,
            exclude_table_data=source.exclude_table_data,
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
    def size_bytes_expected(self) -> int:
        """The size of the database on the server: an upper bound for progress."""
        return int(self.inventory["size_bytes"])

    @property
    def tables_expected(self) -> int:
        """How many tables the dump must hold."""
        return len(self._expected)

    def stream(self, progress: Progress = silent) -> Iterator[bytes]:
        """Yield the dump's bytes, reading them as they pass.

        Raises:
            BackupFailed: pg_dump did not end well.
            ArchiveError: what it wrote is no whole archive.
        """
        locked = False
        with client.streaming(self._arguments(), self._environment()) as blocks:
            for block in blocks:
                self._reader.feed(block)
                if not locked and self._reader.has_contents:
                    locked = True
                    self._require_unchanged()
                self._dump_bytes += len(block)
                progress(size_bytes=self._dump_bytes, tables=self._reader.tables_done)
                yield block
        self._reader.close()

    def observed(self) -> Observed:
        """Return what the dump holds, once it has gone by as a whole.

        Raises:
            BackupFailed: a table of the snapshot is not in it.
        """
        tables = records.tables(self._reader, self._of_extensions)
        missing = self._expected - {(table.schema_name, table.name) for table in tables}
        if missing:
            names = ", ".join(sorted(f"{ns}.{name}" for ns, name in missing))
            raise BackupFailed(
                f"the dump does not hold the data of {names}",
                hint="The tables are in the snapshot; check the exclusions and the "
                "rights of the role.",
            )
        return Observed(
            dump_bytes=self._dump_bytes,
            tables=tables,
            sequences=records.sequences(self._reader, self._of_extensions),
            large_objects=records.large_objects(self._reader),
        )

    def _require_unchanged(self) -> None:
        """Check, once pg_dump has its locks, that it dumps what the snapshot saw."""
        rewritten = inventory.rewritten_tables(self._snapshot.connection)
        if rewritten:
            raise BackupFailed(
                f"{', '.join(rewritten)} was truncated or rewritten after the snapshot "
                "was taken",
                hint="Run the backup again, when the migration has ended.",
            )

    def globals(self) -> Globals:
        """Return the server's roles and tablespaces, and note the same roles.

        Raises:
            BackupFailed: roles change all the time, or one of the dump's is gone.
        """
        found, taken = surroundings.take(self._source.url, self.client)
        surroundings.require_roles(
            taken, self._reader.contents.entries, self.inventory["needed_roles"]
        )
        self.inventory["roles"] = taken
        if not found.with_passwords:
            self._warn(
                "roles are stored without password hashes: "
                "only a superuser can read them"
            )
        return found

    @property
    def restores_in_parallel(self) -> bool:
        """Whether several jobs of pg_restore bring all of it back."""
        return not not_validated(self._reader.contents.entries)

    def schema_json(self) -> bytes:
        """Return every object of the database as JSON lines."""
        lines = (
            json.dumps([each.kind, each.name, each.state], ensure_ascii=False)
            for each in self.schema
        )
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def _arguments(self) -> list[str]:
        source = self._source
        lock_wait_ms = int(source.lock_wait.total_seconds() * 1000)
        return [
            self.client.program("pg_dump"),
            f"--dbname={client_connection(source.url)}",
            "--format=custom",
            "--compress=0",
            "--no-password",
            f"--snapshot={self.snapshot_id}",
            # Named, lest a default of the role or the environment choose another.
            f"--encoding={self.inventory['encoding']}",
            f"--lock-wait-timeout={lock_wait_ms}",
            *(f"--exclude-table={pattern}" for pattern in source.exclude_tables),
            *(
                f"--exclude-table-data={pattern}"
                for pattern in source.exclude_table_data
            ),
        ]

    def _environment(self) -> dict[str, str]:
        return client_environment(self._source.url)

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        logger().warning(message, source=self._source.name)


@contextlib.contextmanager
def open_dump(source: DatabaseSource, *, run_id: str) -> Iterator[PostgresDump]:
    """Take a snapshot of a database and yield its dump, not yet begun.

    Raises:
        DatabaseError: the server is unreachable or refuses.
        ClientToolError: there are no programs for its major.
    """
    with snapshot.exported(source.url, purpose=f"backup run {run_id}") as taken:
        yield PostgresDump(source, taken)
