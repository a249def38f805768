"""Locks of migrations and releases in the database, where hosts meet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from opskit.config.release import MigrationsSettings
from opskit.errors import LockHeld, ReleaseRefused
from opskit.operations.run import Run
from opskit.postgres.connect import Connection, is_pooled
from opskit.postgres.migrations import sessions
from opskit.postgres.snapshot import DatabaseLock, database_lock
from opskit.release.revisions import APPLICATION

_LOCK_WAIT = timedelta(seconds=10)
_OTHERS_SECONDS_MAX = 30.0
_LOOK_SECONDS = 0.2


@contextmanager
def release_lock(run: Run) -> Iterator[DatabaseLock | None]:
    """Hold the lock of releases in the database: hosts meet there.

    Without migrations there is no database, and no lock.
    """
    settings = run.settings.release.migrations
    if not settings.tool:
        yield None
        return
    url = run.database(settings.database).resolve_url()
    with locked(run, url, settings, name="release") as lock:
        yield lock


@contextmanager
def locked(
    run: Run, url: str, settings: MigrationsSettings, *, name: str = "migrate"
) -> Iterator[DatabaseLock]:
    """Hold a lock in the database on a connection of its own.

    A pooler may give each statement another session, which a lock of a session does
    not survive.
    """
    with database_lock(url, name=name, run_id=run.run_id, lock_wait=_LOCK_WAIT) as lock:
        if is_pooled(lock.connection):
            raise ReleaseRefused(
                f"{settings.database} is reached through a connection pooler",
                hint="Give migrations the address of the server itself: locks and "
                "settings of a session do not pass a pooler.",
            )
        _await_others(lock.connection, settings.database)
        yield lock


def _await_others(connection: Connection, name: str) -> None:
    """Wait for the migration of a run that was killed: the server goes on with it.

    Nobody knows before its end what the database has.

    Raises:
        LockHeld: it has not ended in time.
    """
    deadline = time.monotonic() + _OTHERS_SECONDS_MAX
    while left := sessions(connection, APPLICATION):
        if time.monotonic() > deadline:
            raise LockHeld(
                f"the server process {left[0]} still runs a migration of another run "
                f"in {name}",
                hint="Wait for its end, or end it: "
                f"SELECT pg_terminate_backend({left[0]});",
            )
        time.sleep(_LOOK_SECONDS)
