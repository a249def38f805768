"""Creates a backup set: objects first, the manifest last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from opskit import __version__
from opskit.backup import inflight, restore_md
from opskit.backup.compress import compressed
from opskit.backup.fanout import put_everywhere
from opskit.backup.postgres import DatabaseSource, PostgresDump, open_dump
from opskit.catalog.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    StoredObject,
    new_backup_id,
    set_prefix,
)
from opskit.errors import StoreError
from opskit.log import logger
from opskit.postgres import schema
from opskit.postgres.snapshot import database_lock
from opskit.progress import Progress, bar
from opskit.store import Store


@dataclass(frozen=True, kw_only=True)
class BackupResult:
    """A set that was recorded, where it stands, and where it could not be stored."""

    manifest: Manifest
    stores: tuple[str, ...]
    failed: dict[str, StoreError] = field(default_factory=dict)


@dataclass(kw_only=True)
class _SetWriter:
    """Writes objects of one set into the stores that have not failed so far."""

    prefix: str
    stores: list[Store]
    objects: list[StoredObject] = field(default_factory=list)
    failed: dict[str, StoreError] = field(default_factory=dict)

    def put(self, name: str, role: str, chunks: Iterable[bytes]) -> None:
        key = self.prefix + name
        stored = put_everywhere(self.stores, key, chunks)
        for store_name, error in stored.failed.items():
            self.failed[store_name] = error
            logger().error("a store failed", store=store_name, error=error.message)
        self.stores = [each for each in self.stores if each.name not in self.failed]
        self.objects.append(
            StoredObject(
                key=key, role=role, size_bytes=stored.size_bytes, sha256=stored.sha256
            )
        )

    def discard(self, everywhere: Sequence[Store]) -> bool:
        """Remove the set again; return whether every store could do so."""
        clean = True
        for store in everywhere:
            try:
                # Its manifest first, lest a kill leave a listed set without objects.
                store.delete(self.prefix + MANIFEST_NAME)
                store.discard(self.prefix)
            except StoreError as error:
                clean = False
                logger().error("cannot clean up", store=store.name, error=error.message)
        return clean


def create_backup(
    source: DatabaseSource,
    stores: Sequence[Store],
    *,
    run_id: str,
    state_dir: Path,
    clock: Callable[[], datetime],
) -> BackupResult:
    """Back up one database into every store and return the recorded set.

    The caller holds this host's lock of the source; the database's own is taken here.
    A store that fails does not hold up the others; it is named in the result.

    Raises:
        BackupFailed: no set was recorded, and nothing of it is left in a store.
        StoreError: no store took it.
        DatabaseError: the server is unreachable or refuses.
        LockHeld: another host is backing up this database.
    """
    journal = state_dir / "inflight"
    inflight.clean_up(journal, source=source.name, stores=stores)
    lock = database_lock(source.url, name=f"backup {source.name}", run_id=run_id)
    with lock as require_lock:
        started_at = clock()
        backup_id = new_backup_id(source.name, started_at)
        prefix = set_prefix(source.name, started_at, backup_id)
        writer = _SetWriter(prefix=prefix, stores=list(stores))
        with (
            inflight.writing(journal, source=source.name, prefix=prefix),
            _removed_on_error(writer, stores, journal, source.name),
            open_dump(source, run_id=run_id) as dump,
        ):
            manifest = _write(dump, writer, source, backup_id, started_at, clock)
            require_lock()
            _record(writer, manifest)
            _SetWriter.discard(writer, [s for s in stores if s.name in writer.failed])
    return BackupResult(
        manifest=manifest,
        stores=tuple(each.name for each in writer.stores),
        failed=writer.failed,
    )


@contextlib.contextmanager
def _removed_on_error(
    writer: _SetWriter, stores: Sequence[Store], journal: Path, source: str
) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Also for Ctrl-C. What cannot be removed now, the next run removes.
        if writer.discard(stores):
            inflight.forget(journal, source=source, prefix=writer.prefix)
        raise


def _write(
    dump: PostgresDump,
    writer: _SetWriter,
    source: DatabaseSource,
    backup_id: str,
    started_at: datetime,
    clock: Callable[[], datetime],
) -> Manifest:
    logger().info(
        "backup started",
        backup_id=backup_id,
        snapshot=dump.snapshot_id,
        server=dump.inventory["server_version"],
        client=dump.client.version,
        tables=dump.tables_expected,
    )
    with _progress(source.name, dump) as progress:
        writer.put("dump.pgdump.zst", "dump", compressed(dump.stream(progress)))
    observed = dump.observed()
    found = dump.globals()
    writer.put("roles.sql", "roles", [found.roles_sql])
    if dump.inventory["tablespaces"]:
        writer.put("tablespaces.sql", "tablespaces", [found.tablespaces_sql])
    writer.put("schema.jsonl.zst", "schema", compressed([dump.schema_json()]))
    guide = restore_md.render(
        backup_id=backup_id,
        inventory=dump.inventory,
        client_version=dump.client.version,
        dump_bytes=observed.dump_bytes,
        with_passwords=found.with_passwords,
        snapshot_at=dump.snapshot_at,
        objects=writer.objects,
        in_parallel=dump.restores_in_parallel,
    )
    writer.put("RESTORE.md", "guide", [guide.encode()])
    return Manifest(
        format_version=FORMAT_VERSION,
        backup_id=backup_id,
        source=source.name,
        kind="postgres",
        started_at=started_at,
        finished_at=clock(),
        snapshot=dump.snapshot_id,
        snapshot_at=dump.snapshot_at,
        server_version=str(dump.inventory["server_version"]),
        client_version=dump.client.version,
        tool_version=__version__,
        dump_bytes=observed.dump_bytes,
        schema_format=schema.FORMAT,
        objects=tuple(writer.objects),
        tables=observed.tables,
        sequences=observed.sequences,
        large_objects=observed.large_objects,
        exclude_tables=tuple(source.exclude_tables),
        exclude_table_data=tuple(source.exclude_table_data),
        warnings=tuple(dump.warnings),
        inventory=dump.inventory | {"role_passwords": found.with_passwords},
    )


def _record(writer: _SetWriter, manifest: Manifest) -> None:
    """Put the manifest, last: the set exists exactly when it does."""
    recorded = put_everywhere(
        writer.stores, writer.prefix + MANIFEST_NAME, [manifest.to_json()]
    )
    writer.failed |= recorded.failed
    writer.stores = [each for each in writer.stores if each.name not in recorded.failed]


def _progress(
    name: str, dump: PostgresDump
) -> contextlib.AbstractContextManager[Progress]:
    return bar(
        f"backup {name}",
        bytes_expected=dump.size_bytes_expected,
        tables_expected=dump.tables_expected,
    )
