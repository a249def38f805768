"""What to make of which archive, and how to reach the copy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.catalog.manifest import DatabaseManifest
from opskit.config import LoadSettings
from opskit.errors import ServerFault
from opskit.postgres import capabilities
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import reads_elsewhere
from opskit.postgres.connect import (
    Connection,
    server_major,
    with_database,
    with_settings,
)
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions
from opskit.restore.rights import warn_of_code
from opskit.workspace import Limits

_FIRST_WITH_EVENT_TRIGGERS_SETTING = 17


@dataclass(frozen=True, kw_only=True)
class FillJob:
    """What to make of which archive.

    `entries` are the archive's contents as far as they are wanted, `is_whole` tells
    whether that is all of them. In the `last_try`, rows are loaded
    without CHECK constraints, which are put back afterwards, and an error is judged.
    `trust` is called where code of these roles will run with the rights of a superuser.
    Where it is `offline`, nothing that is loaded connects to foreign servers.
    `run_id` is that of the run that the copy is marked for; one on a throw-away server
    needs no mark. `loaded` is called for entries that are in already, see
    `load.LoadJob.finished`. `is_over` says whether the run's time is over.
    """

    server_url: str = field(repr=False)
    name: str
    manifest: DatabaseManifest
    archive: Path
    entries: Sequence[TocEntry]
    is_whole: bool = True
    installations: Sequence[Installation]
    limits: Limits
    concessions: Concessions = field(default_factory=Concessions)
    loading: LoadSettings = field(default_factory=LoadSettings)
    last_try: bool = False
    loaded: Callable[[int], None] = lambda _dump_id: None
    trust: Callable[[Sequence[str]], None] = warn_of_code
    run_id: str = ""
    is_over: Callable[[], bool] = lambda: False
    offline: bool = False

    def require_time(self) -> None:
        """Refuse what was seen once the run's sessions were being ended.

        Raises:
            ServerFault: the time is over; `Bound` says what held it up.
        """
        if self.is_over():
            raise ServerFault("the time for the load is over")

    def as_last_try(self) -> FillJob:
        """Return the same with one job, so that no error is a matter of timing."""
        return replace(self, limits=replace(self.limits, jobs=1), last_try=True)

    @functools.cached_property
    def outside(self) -> set[int]:
        """The dump ids of entries that would read foreign tables where nothing may."""
        return reads_elsewhere(self.entries) if self.offline else set()


def copy_url(connection: Connection, job: FillJob) -> str:
    """Return how to connect to the copy so that nothing in it acts by itself.

    Its triggers and event triggers, its rules, its libraries and settings are the
    service's; loading and comparing must meet the tables alone.
    """
    settings = plain_settings(connection, job) | silencing(connection)
    return with_settings(with_database(job.server_url, job.name), settings)


def plain_settings(connection: Connection, job: FillJob) -> dict[str, str]:
    settings = {"default_transaction_read_only": "off", "role": "none"}
    money = job.manifest.inventory.money_locale
    if money and capabilities.has_locale(connection, money):
        settings["lc_monetary"] = money
    return settings | capabilities.of_sessions(connection, job.loading.settings)


def silencing(connection: Connection) -> dict[str, str]:
    """Return the settings that only a superuser can give a session."""
    if not capabilities.is_superuser(connection):
        return {}
    settings = {"session_replication_role": "replica", "session_preload_libraries": ""}
    if server_major(connection) >= _FIRST_WITH_EVENT_TRIGGERS_SETTING:
        settings["event_triggers"] = "off"
    return settings
