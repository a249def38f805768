"""A database at one snapshot: described, dumped, and checked against what went by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from opskit.backup import guide
from opskit.backup.stream import (
    DatabaseSource,
    DumpStream,
    Plan,
    compressed,
    expected_tables,
)
from opskit.catalog.manifest import (
    LargeObjectsRecord,
    SequenceRecord,
    StoredObject,
    StreamRecord,
    TableRecord,
)
from opskit.catalog.writer import SetWriter
from opskit.errors import BackupFailed
from opskit.log import logger
from opskit.postgres import extensions, roles, schema, survey
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.reader import ArchiveReader
from opskit.postgres.archive.toc import not_validated
from opskit.postgres.connect import Connection, server_major
from opskit.postgres.inventory import Role
from opskit.postgres.locks import LockWatch
from opskit.postgres.roles import Globals
from opskit.postgres.servers.programs import Installation
from opskit.postgres.snapshot import Snapshot, TableName, Weights
from opskit.progress import measured
from opskit.threads import together

# By schema and name: the extension, and the condition of the rows that are dumped.
OfExtensions = Mapping[tuple[str, str], tuple[str, str | None]]


def table_records(
    readers: Iterable[ArchiveReader], of_extensions: OfExtensions
) -> tuple[TableRecord, ...]:
    tables = []
    for entry, content in (each for reader in readers for each in reader.tables()):
        name = (entry.schema, entry.name)
        extension, condition = of_extensions.get(name, (None, None))
        record = TableRecord(
            schema=entry.schema,
            name=entry.name,
            rows=content.rows,
            digest=content.digest,
            columns=entry.columns,
            via_root=entry.loaded_into,
            extension=extension,
            condition=condition,
        )
        tables.append(record)
    return tuple(tables)


def sequence_records(
    reader: ArchiveReader, of_extensions: OfExtensions
) -> tuple[SequenceRecord, ...]:
    sequences = []
    for entry in reader.contents.entries:
        if entry.kind == "SEQUENCE SET":
            last_value, is_called = entry.sequence_value
            name = (entry.schema, entry.name)
            record = SequenceRecord(
                schema=entry.schema,
                name=entry.name,
                last_value=last_value,
                is_called=is_called,
                extension=of_extensions.get(name, (None, None))[0],
            )
            sequences.append(record)
    return tuple(sequences)


def large_objects_record(reader: ArchiveReader) -> LargeObjectsRecord:
    found = reader.large_objects()
    return LargeObjectsRecord(
        count=found.count, size_bytes=found.size_bytes, digest=found.digest
    )


_ROLES_ATTEMPTS = 5


class DatabaseDump:
    """A database at one snapshot, ready to be read.

    It is made when pg_dump has its locks: what the snapshot holds is there to be read.
    """

    def __init__(
        self,
        plan: Plan,
        taken: Snapshot,
        streams: Sequence[DumpStream],
        watch: LockWatch,
        require_held: Callable[[], None],
    ) -> None:
        source, connection = plan.source, taken.connection
        self._source, self._client = source, plan.client
        self._snapshot, self._watch, self._streams = taken, watch, streams
        self.require_held = require_held
        self._warnings: list[str] = []
        major = server_major(connection)
        if self._client.major != major:
            self._warn(
                f"server {major} is dumped with the newer pg_dump "
                f"{self._client.version}; "
                f"a restore needs pg_restore {self._client.major} or newer"
            )
        self._inventory = survey.take(connection)
        self._schema = schema.take(connection, exclude_tables=source.exclude_tables)
        self._of_extensions = extensions.relations(connection)
        for loss in self._inventory.not_dumped:
            self._warn(f"{loss}: only a superuser's backup holds them")
        for each in self._inventory.beyond_dumps:
            self._warn(f"not in the dump: {each.name}: {each.reason}")
        self._expected = expected_tables(source, connection)
        self._weights = Weights(self._expected, plan.sizes, self._inventory.size_bytes)

    @property
    def _entries(self) -> Sequence[TocEntry]:
        """The entries of the catch-all, which lacks but the rows of some tables."""
        return self._streams[0].reader.contents.entries

    def write(self, writer: SetWriter) -> dict[str, Any]:
        source, inventory = self._source, self._inventory
        logger().info(
            "dumping",
            source=source.name,
            snapshot=self._snapshot.id,
            server=inventory.server_version,
            client=self._client.version,
            tables=len(self._expected),
            streams=len(self._streams),
        )
        title = f"backing up {source.name}"
        with measured(title, self._weights.total, self._bytes_passed):
            self._store(writer)
        tables = self._tables()
        found = self.globals()
        writer.put("roles.sql", "roles", [found.roles_sql])
        if inventory.tablespaces:
            writer.put("tablespaces.sql", "tablespaces", [found.tablespaces_sql])
        writer.put("schema.jsonl.zst", "schema", compressed([self._schema_json()]))
        first = self._streams[0].reader
        streams = tuple(
            StreamRecord(role=each.role, dump_bytes=each.dump_bytes)
            for each in self._streams
        )
        return {
            "kind": "postgres",
            "snapshot": self._snapshot.id,
            "snapshot_at": self._snapshot.taken_at,
            "server_version": inventory.server_version,
            "client_version": self._client.version,
            "dump_bytes": self._dump_bytes,
            "streams": streams if len(streams) > 1 else (),
            "schema_format": schema.FORMAT,
            "tables": tables,
            "sequences": sequence_records(first, self._of_extensions),
            "large_objects": large_objects_record(first),
            "exclude_tables": tuple(source.exclude_tables),
            "exclude_table_data": tuple(source.exclude_table_data),
            "warnings": tuple(self._warnings),
            "inventory": self._inventory,
        }

    def guide(
        self,
        backup_id: str,
        objects: Sequence[StoredObject],
        *,
        encrypted: bool,
        signed: bool,
    ) -> str:
        return guide.render(
            backup_id=backup_id,
            inventory=self._inventory,
            client_version=self._client.version,
            dump_bytes=self._dump_bytes,
            roles=[each.role for each in self._streams],
            with_passwords=self._inventory.role_passwords,
            snapshot_at=self._snapshot.taken_at,
            objects=objects,
            in_parallel=not not_validated(self._entries),
            encrypted=encrypted,
            signed=signed,
        )

    def globals(self) -> Globals:
        """Return the server's roles and tablespaces, and note the same roles."""
        # A CONNECTION LIMIT counts pg_dump's sessions until the server has ended them.
        self._watch.wait_for_end()
        found, taken = _roles(self._source, self._client, self._watch.connection)
        _require_roles(taken, self._entries, self._inventory.needed_roles)
        changes = {"roles": taken, "role_passwords": found.with_passwords}
        self._inventory = self._inventory.model_copy(update=changes)
        if not found.with_passwords:
            self._warn(
                "roles are stored without password hashes: "
                "only a superuser can read them"
            )
        return found

    @property
    def _dump_bytes(self) -> int:
        return sum(each.dump_bytes for each in self._streams)

    def _bytes_passed(self) -> int:
        return sum(each.bytes_passed(self._weights) for each in self._streams)

    def _store(self, writer: SetWriter) -> None:
        """Store all dumps at once; if one fails, the others are ended."""

        def store(stream: DumpStream) -> None:
            chunks = compressed(
                stream.blocks(self._watch.look),
                self._source.compression_level,
                streams=len(self._streams),
            )
            writer.put(f"{stream.role}.pgdump.zst", stream.role, chunks)

        def end() -> None:
            for each in self._streams:
                each.end()

        together([partial(store, each) for each in self._streams], stop=end)

    def _tables(self) -> tuple[TableRecord, ...]:
        """Return what the streams held, once they have gone by as a whole."""
        readers = [each.reader for each in self._streams]
        tables = table_records(readers, self._of_extensions)
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
        return tables

    def _schema_json(self) -> bytes:
        lines = (
            json.dumps([each.kind, each.name, each.state], ensure_ascii=False)
            for each in self._schema
        )
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")

    def _warn(self, message: str) -> None:
        self._warnings.append(message)  # they are shown with the result
        logger().info(message, source=self._source.name)


def _listed(tables: Iterable[TableName]) -> str:
    return ", ".join(sorted(".".join(each) for each in tables))


def _roles(
    source: DatabaseSource, client: Installation, connection: Connection
) -> tuple[Globals, tuple[Role, ...]]:
    """Return the globals as SQL, and the same roles as records.

    The programs for the SQL know no snapshot, and the connection must not be in one: it
    is done again while roles change.
    """
    for _ in range(_ROLES_ATTEMPTS):
        before = roles.take(connection)
        found = roles.dump_globals(
            source.url, client, connection, lock_wait=source.lock_wait
        )
        unchanged = roles.take(connection) == before
        # One may have come and gone in between.
        if unchanged and found.roles() == {each.name for each in before}:
            return found, before
    raise BackupFailed(
        "roles were changed each time that they were read",
        hint="Run the backup again when nothing makes or drops roles.",
    )


def _require_roles(
    taken: Iterable[Role], entries: Iterable[TocEntry], needed: Iterable[str]
) -> None:
    """Check that a role which the dump names was not dropped or renamed since."""
    named = {entry.owner for entry in entries}.union(needed) - {""}
    gone = named - {each.name for each in taken}
    # PostgreSQL's own are on every server, and in no dump of the roles.
    gone = {name for name in gone if not name.startswith("pg_")}
    if gone:
        raise BackupFailed(
            f"the dump names roles that are gone by now: {', '.join(sorted(gone))}",
            hint="They were dropped or renamed during the backup; run it again.",
        )
