"""Run: what an operation works with: settings, clock, stores, keys, locks, ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from opskit import config, files, locks, log
from opskit.catalog import catalog
from opskit.catalog.catalog import Catalog, Known
from opskit.catalog.manifest import Manifest, of_database
from opskit.catalog.sets import BackupSet, CatalogCache, ListedSet
from opskit.catalog.writer import Protection
from opskit.checks import some
from opskit.config import DatabaseSettings, FolderSettings, Settings
from opskit.crypto.keys import Identities
from opskit.errors import (
    ConfigurationError,
    OpskitError,
    OutOfTime,
    UsageError,
    machine_faults,
)
from opskit.log import hide
from opskit.operations import discovery, keys
from opskit.operations.discovery import Found
from opskit.operations.outcome import Record
from opskit.operations.recording import RunLedger
from opskit.operations.turn import Turn, read_turn
from opskit.postgres.parameters import parse
from opskit.postgres.servers.programs import Installation, installations
from opskit.store import Store, open_store
from opskit.store import locks as store_locks
from opskit.workspace import Limits

_JOBS_MAX = 8


def now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


class Observer(Protocol):
    """Learns of every operation that goes on record.

    An error of its own is a warning, and changes nothing about the operation.
    """

    def started(self, run: Run, record: Record) -> None:
        """Learn that an operation begins.

        Raises:
            ConfigurationError: it must not go on; this is recorded as its failure.
        """
        ...

    def ended(self, run: Run, record: Record) -> None:
        """Learn how it ended, after that was written to the ledger."""
        ...


@dataclass(frozen=True)
class Run:
    """One run of one operation, with what the settings name, opened when needed."""

    settings: Settings
    run_id: str = field(default_factory=log.new_run_id)
    observers: tuple[Observer, ...] = ()

    def now(self) -> datetime:
        """Return the time by the clock of every run."""
        return now()

    @cached_property
    def stores(self) -> list[Store]:
        """Every configured store, the nearest first: folders, then what is remote.

        Raises:
            ConfigurationError: there is none.
        """
        if not self.settings.stores:
            raise ConfigurationError(
                "no store is configured",
                hint='Add one: [stores.local] with url = "file:///var/backups/opskit".',
            )
        nearest_first = sorted(
            self.settings.stores.items(),
            key=lambda item: not item[1].url.startswith("file:"),
        )
        return [open_store(name, each) for name, each in nearest_first]

    @cached_property
    def turn(self) -> Turn | None:
        """The turn of a fleet that this run was started for, if it was.

        Raises:
            UsageError: what the worker says of it cannot be read.
        """
        return read_turn(os.environ.get("OPSKIT_TURN", ""))

    @property
    def state_dir(self) -> Path:
        """Where locks, the ledger and reports lie."""
        return self.settings.state_dir

    def listing(
        self, source: str | None = None, *, whole: bool = False
    ) -> Catalog[ListedSet]:
        """List the stores, with what was seen of them before; else like `catalog`.

        To show, to plan and to choose by; what is chosen is read from the stores.

        Raises:
            StoreError: no store can be reached, or with `whole` not every one.
        """
        return _warned(self.sets_in(self.stores, source), whole=whole)

    def sets_in(
        self, stores: Sequence[Store], source: str | None = None
    ) -> Catalog[ListedSet]:
        """List some of the stores like `listing`, and warn of nothing.

        Raises:
            StoreError: none of them can be reached.
        """
        return catalog.list_sets(
            stores,
            source=source,
            trust=keys.trust(self.settings),
            caches=self._caches,
        )

    def catalog(
        self, source: str | None = None, *, whole: bool = False
    ) -> Catalog[BackupSet]:
        """Read the stores; warn of every store and manifest that cannot be used.

        Raises:
            StoreError: no store can be reached, or with `whole` not every one.
        """
        return _warned(self._read_catalog(self.stores, source), whole=whole)

    def catalog_of(self, store: Store) -> Catalog[BackupSet]:
        """Read one store.

        Raises:
            StoreError: it cannot be reached.
        """
        return self._read_catalog([store], None)

    def _read_catalog(
        self, stores: Sequence[Store], source: str | None
    ) -> Catalog[BackupSet]:
        return catalog.read(stores, source=source, trust=keys.trust(self.settings))

    @cached_property
    def _caches(self) -> dict[str, CatalogCache]:
        folder = self.state_dir / "catalog-cache"
        return {
            name: CatalogCache(folder, store=(name, each.url, each.endpoint_url))
            for name, each in self.settings.stores.items()
        }

    @cached_property
    def installations(self) -> list[Installation]:
        """The PostgreSQL programs on this machine."""
        return installations(self.settings.postgres.bin_dirs)

    @cached_property
    def protection(self) -> Protection:
        """For whom new sets are encrypted, and who signs sets and evidence."""
        return keys.protection(self.settings)

    @cached_property
    def identities(self) -> Identities | None:
        """What opens encrypted sets here, if anything does."""
        return keys.own_identities(self.settings)

    @property
    def jobs(self) -> int:
        """How many processes a restore may use at once."""
        return self.settings.drill.jobs or min(_JOBS_MAX, os.cpu_count() or 1)

    def limits(self, manifest: Manifest) -> Limits:
        """Return how long a drill or restore of a set may take, and how it may work."""
        drill = self.settings.drill
        return Limits(
            seconds=drill.timeout_seconds(of_database(manifest).inventory.size_bytes),
            jobs=self.jobs,
            work_dir=drill.work_dir,
        )

    @property
    def reports(self) -> Path:
        """The folder of the drills' reports."""
        return self._writable("reports")

    def _writable(self, name: str) -> Path:
        """Return a folder inside the state folder, made if it is missing.

        Raises:
            ConfigurationError: this user may not write there.
        """
        path = self.state_dir / name
        try:
            files.make_directories(path)
        except OSError as error:
            raise ConfigurationError(
                f"the state folder {self.state_dir} cannot be used: {error.strerror}",
                hint="Let this user write there, or name another with state_dir.",
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"the state folder {path} is not writable for this user",
                hint="Run this as its owner, or name another with state_dir.",
            )
        return path

    @cached_property
    def found(self) -> Found:
        """What the rules of `[discover]` find; with a warning of each fault.

        A turn of a fleet does not ask: its configuration lists what was found.
        """
        if self.turn:
            return Found()
        found = discovery.find(self.settings)
        for error in found.faults.values():
            log.logger().warning(error.message)
        return found

    def database(self, name: str) -> DatabaseSettings:
        """Return a database that is configured, or that a rule of `[discover]` finds.

        Raises:
            UsageError: there is none of this name.
        """
        if name in self.settings.files:
            raise UsageError(
                f"{name} is a folder, not a database",
                hint=f"Name it with --files {name}.",
            )
        database = (
            self.settings.databases.get(name)
            or self.found.databases.get(name)
            or discovery.by_pattern(self.settings, name)
        )
        if database is None:
            known = some([*self.settings.databases, *self.found.databases])
            raise UsageError(
                f"no database {name} is configured (configured: {known})",
                hint=f"Add [databases.{name}] to the configuration, or name another.",
            )
        return database

    def folder(self, name: str) -> FolderSettings:
        """Return a configured folder.

        Raises:
            UsageError: there is none of this name.
        """
        if name in self.settings.databases:
            raise UsageError(
                f"{name} is a database, not a folder",
                hint=f"Name it with --database {name}.",
            )
        if name not in self.settings.files:
            known = ", ".join(self.settings.files) or "none"
            raise UsageError(
                f"no folder {name} is configured (configured: {known})",
                hint=f"Add [files.{name}] to the configuration, or name another.",
            )
        return self.settings.files[name]

    def lock(self, source: str, operation: str) -> AbstractContextManager[None]:
        """Hold this host's lock of a source: no two runs change its sets at once."""
        return locks.exclusive(
            self._writable("locks"),
            f"source-{source}",
            operation=f"{operation} {source}",
            run_id=self.run_id,
            now=now(),
        )

    def store_lock(
        self, store: Store, source: str, operation: str
    ) -> AbstractContextManager[store_locks.HeldLock]:
        """Hold the lock of a source in a store: hosts meet there.

        The caller holds this host's lock of the source, or it has the turn of it in a
        fleet: then the claim of an attempt before counts no more.
        """
        owner = self.ledger.id
        if operation == "backup" and self.turn and self.turn.job is not None:
            owner = f"turn {source} {self.turn.due.isoformat()}"
        return store_locks.hold(
            store,
            source,
            operation=f"{operation} {source}",
            run_id=self.run_id,
            owner=owner,
            clock=now,
        )

    def reading(self, backup_id: str) -> AbstractContextManager[None]:
        """Keep prune on this host from deleting a set that is being read."""
        return locks.in_use(self._writable("locks"), f"set-{backup_id}.reading")

    def unread(self, backup_id: str) -> AbstractContextManager[bool]:
        """Tell whether nobody on this host reads a set, and keep it so."""
        return locks.unused(self._writable("locks"), f"set-{backup_id}.reading")

    @cached_property
    def ledger(self) -> RunLedger:
        """The record of every run."""
        stores = self.stores if self.settings.stores else ()
        return RunLedger(
            folder=self._writable(""),
            stores=stores,
            clock=now,
            name=self.settings.ledger_name,
        )

    @contextmanager
    def recorded(
        self, operation: str, subject: str = "", *, watched: bool = False
    ) -> Iterator[Record]:
        """Do an operation in the block; its outcome is that of the record afterwards.

        An error that opskit raises becomes part of the outcome. What has begun to be
        recorded gets its line in the ledger, however it ends. If it is `watched`, so
        does an error before that, unless the call was wrong. All that wants to know
        what became of operations learns it here.
        """
        record = Record(
            operation=operation,
            run_id=self.run_id,
            started_at=now(),
            subject=subject,
            require_ledger=lambda: self.ledger,
            on_begin=self._begun,
        )
        try:
            with machine_faults(operation):
                yield record
            record.ended = "ok"
        except OutOfTime as error:
            record.fail(error.failure(operation))
            raise
        except KeyboardInterrupt:
            record.ended = "interrupted"
            raise
        except OpskitError as error:
            record.fail(error)
            if watched and type(error) is not UsageError:
                record.keep()
        except Exception as error:
            # Its words may hold rows.
            unexpected = f"unexpected error: {type(error).__name__}"
            record.details |= {"error": unexpected, "code": 1}
            raise
        finally:
            record.end()
            if record.on_record:
                self.ledger.append(record)
                self.notify(record)  # does not wait for a store that hangs
                self.ledger.copy(record)

    def _begun(self, record: Record) -> None:
        for each in self.observers:
            with _harmless(each, refusal=ConfigurationError):
                each.started(self, record)

    def notify(self, record: Record) -> None:
        """Notify the observers of how something ended."""
        for each in self.observers:
            with _harmless(each):
                each.ended(self, record)


def start() -> Run:
    """Load the configuration, set up the logs, and return the run.

    Raises:
        ConfigurationError: see `config.load`.
    """
    return begin(config.load())


def begin(settings: Settings) -> Run:
    """Return a run with these settings."""
    run = Run(settings)
    log.configure(run_id=run.run_id, form=settings.log_format)
    _hide_secrets(settings)
    return run


def _hide_secrets(settings: Settings) -> None:
    """Have the passwords of the configuration masked before anything is printed.

    Raises:
        ConfigurationError: a URL is not valid.
    """
    hide(os.environ.get("PGPASSWORD", ""))
    urls = {
        "drill.existing_url": settings.drill.existing_url,
        "fleet.url": settings.fleet.url,
    }
    for section in ("databases", "discover"):
        for name, each in getattr(settings, section).items():
            urls[f"{section}.{name}.url"] = each.url
            urls[f"{section}.{name}.restore_url"] = each.restore_url
    for key, url in urls.items():
        if text := url.get_secret_value():
            try:
                parse(text)
            except ConfigurationError as error:
                raise error.replace(summary=f"{key}: {error.summary}") from None


@contextmanager
def _harmless(
    observer: Observer, refusal: type[OpskitError] | tuple[()] = ()
) -> Iterator[None]:
    """Turn what an observer raises into a warning, unless it is a refusal."""
    try:
        yield
    except refusal:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the operation goes on
        log.logger().warning(
            "an observer failed",
            observer=type(observer).__name__,
            reason=f"{type(error).__name__}: {error}",
        )


def _warned(read: Catalog[Known], *, whole: bool) -> Catalog[Known]:
    """Return what was read; warn of what could not be, or raise it."""
    if whole and read.unreachable:
        raise read.unreachable[0]
    read.warn()
    return read
