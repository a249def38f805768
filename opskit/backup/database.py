"""A database as the content of a set: dump, roles, tablespaces, list of objects."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opskit.backup import guide as backup_guide
from opskit.backup.dump import PostgresDump, open_dump
from opskit.backup.plan import DatabaseSource
from opskit.backup.stream import DumpStream, compressed
from opskit.catalog.manifest import StoredObject
from opskit.catalog.writer import SetWriter
from opskit.log import logger
from opskit.postgres import schema
from opskit.postgres.globals import Globals
from opskit.postgres.snapshot import database_lock
from opskit.progress import measured
from opskit.threads import together


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
    ) -> Iterator[OpenDatabase]:
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
            open_dump(self.source, lock, run_id=run_id) as dump,
        ):
            yield OpenDatabase(self.source, dump, lock.require_held)


class OpenDatabase:
    """A database at one snapshot."""

    def __init__(
        self,
        source: DatabaseSource,
        dump: PostgresDump,
        require_held: Callable[[], None],
    ) -> None:
        self._source, self._dump = source, dump
        self._globals: Globals | None = None
        self._dump_bytes = 0
        self.require_held = require_held

    def write(self, writer: SetWriter) -> dict[str, Any]:
        """See `OpenSource.write`."""
        dump, source = self._dump, self._source
        logger().info(
            "dumping",
            source=source.name,
            snapshot=dump.snapshot_id,
            server=dump.inventory.server_version,
            client=dump.client.version,
            tables=dump.tables_expected,
            streams=len(dump.streams),
        )
        title = f"backing up {source.name}"
        with measured(title, dump.bytes_expected, dump.bytes_passed):
            self._store(writer)
        observed = dump.observed()
        found = dump.globals()
        writer.put("roles.sql", "roles", [found.roles_sql])
        if dump.inventory.tablespaces:
            writer.put("tablespaces.sql", "tablespaces", [found.tablespaces_sql])
        writer.put("schema.jsonl.zst", "schema", compressed([dump.schema_json()]))
        self._globals, self._dump_bytes = found, observed.dump_bytes
        return {
            "kind": "postgres",
            "snapshot": dump.snapshot_id,
            "snapshot_at": dump.snapshot_at,
            "server_version": dump.inventory.server_version,
            "client_version": dump.client.version,
            "dump_bytes": observed.dump_bytes,
            "streams": observed.streams,
            "schema_format": schema.FORMAT,
            "tables": observed.tables,
            "sequences": observed.sequences,
            "large_objects": observed.large_objects,
            "exclude_tables": tuple(source.exclude_tables),
            "exclude_table_data": tuple(source.exclude_table_data),
            "warnings": tuple(dump.warnings),
            "inventory": dump.inventory,
        }

    def _store(self, writer: SetWriter) -> None:
        """Store all dumps at once; if one fails, the others are ended."""
        dump = self._dump

        def store(stream: DumpStream) -> None:
            chunks = compressed(
                stream.blocks(dump.look),
                self._source.compression_level,
                streams=len(dump.streams),
            )
            writer.put(f"{stream.role}.pgdump.zst", stream.role, chunks)

        jobs = [functools.partial(store, each) for each in dump.streams]
        together(jobs, stop=dump.end)

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        """See `OpenSource.guide`."""
        return backup_guide.render(
            backup_id=backup_id,
            inventory=self._dump.inventory,
            client_version=self._dump.client.version,
            dump_bytes=self._dump_bytes,
            roles=[each.role for each in self._dump.streams],
            with_passwords=self._globals is not None and self._globals.with_passwords,
            snapshot_at=self._dump.snapshot_at,
            objects=objects,
            in_parallel=self._dump.restores_in_parallel,
            encrypted=encrypted,
            signed=signed,
        )
