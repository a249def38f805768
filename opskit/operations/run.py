"""Builds what the domain is given: settings, stores, clock, locks, the ledger."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from opskit import config, files, locks, log
from opskit.catalog.writer import Protection
from opskit.config import DatabaseSettings, FilesSettings, Settings
from opskit.crypto.keys import Identities
from opskit.errors import ConfigurationError, UsageError
from opskit.log import hide
from opskit.operations import keys
from opskit.operations.recording import RunLedger
from opskit.operations.stock import Stock
from opskit.postgres.connect import parse
from opskit.postgres.servers.programs import Installation, installations
from opskit.store import Store
from opskit.store import locks as store_locks

_JOBS_MAX = 8


def now() -> datetime:
    """Return the time, aware and in UTC: the clock of every run."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Runtime(Stock):
    """One run of one task."""

    run_id: str = field(default_factory=log.new_run_id)

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

    def database(self, name: str) -> DatabaseSettings:
        """Return a configured database.

        Raises:
            UsageError: there is none of this name.
        """
        if name in self.settings.files:
            raise UsageError(
                f"{name} is a folder of files, not a database",
                hint=f"Name it with --files {name}.",
            )
        if name not in self.settings.databases:
            known = ", ".join(self.settings.databases) or "none"
            raise UsageError(
                f"no database {name} is configured (configured: {known})",
                hint=f"Add [databases.{name}] to the configuration, or name another.",
            )
        return self.settings.databases[name]

    def folder(self, name: str) -> FilesSettings:
        """Return a configured folder of files.

        Raises:
            UsageError: there is none of this name.
        """
        if name in self.settings.databases:
            raise UsageError(
                f"{name} is a database, not a folder of files",
                hint=f"Name it with --database {name}.",
            )
        if name not in self.settings.files:
            known = ", ".join(self.settings.files) or "none"
            raise UsageError(
                f"no folder of files {name} is configured (configured: {known})",
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

        The caller holds this host's lock of the source.
        """
        return store_locks.hold(
            store,
            source,
            operation=f"{operation} {source}",
            run_id=self.run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            owner=self.ledger.id,
            clock=now,
        )

    def reading(self, backup_id: str) -> AbstractContextManager[None]:
        """Keep prune on this host from deleting a set that is being read."""
        return locks.in_use(self._writable("locks"), f"set-{backup_id}.reading")

    def unread(self, backup_id: str) -> AbstractContextManager[bool]:
        """Tell whether nobody on this host reads a set, and keep it so."""
        return locks.unused(self._writable("locks"), f"set-{backup_id}.reading")

    @property
    def ledger(self) -> RunLedger:
        """The record of every run."""
        return RunLedger(
            folder=self._writable(""), stores=self.stores, run_id=self.run_id, clock=now
        )

    def recorded(
        self, operation: str, details: dict[str, Any]
    ) -> AbstractContextManager[dict[str, Any]]:
        """Append the outcome of the block to the ledger; see `RunLedger.recorded`."""
        return self.ledger.recorded(operation, details)


def start() -> Runtime:
    """Load the configuration, set up the logs, and return the run.

    Raises:
        ConfigurationError: see `config.load`.
    """
    return begin(config.load())


def begin(settings: Settings) -> Runtime:
    """Return a run with these settings."""
    runtime = Runtime(settings)
    log.configure(
        run_id=runtime.run_id,
        form=settings.log_format,
    )
    _hide_secrets(settings)
    return runtime


def _hide_secrets(settings: Settings) -> None:
    """Have the passwords of the configuration masked before anything is printed.

    Raises:
        ConfigurationError: a URL is not valid.
    """
    hide(os.environ.get("PGPASSWORD", ""))
    urls = {"drill.existing_url": settings.drill.existing_url}
    for name, each in settings.databases.items():
        urls[f"databases.{name}.url"] = each.url
        urls[f"databases.{name}.restore_url"] = each.restore_url
    for key, url in urls.items():
        if text := url.get_secret_value():
            try:
                parse(text)
            except ConfigurationError as error:
                error.message = f"{key}: {error.message}"
                raise
