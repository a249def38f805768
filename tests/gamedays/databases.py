"""Databases: one is dropped, and rows of a table are deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from opskit.postgres import database
from opskit.postgres.connect import connect
from tests.gamedays.scenario import Alert, Scenario
from tests.gamedays.system import DATABASE, System
from tests.support import execute


class DatabaseLost(Scenario):
    """Somebody drops the database of the running service."""

    runbook = "database-lost"
    broken = "the database of the running service was dropped"
    sign = Alert("OpskitSourceUnreachable")
    destroys = (DATABASE,)
    skip = (3,)  # the newest set was drilled

    def break_(self, system: System) -> None:
        """Drop it."""
        server = system.site.url.replace(f"/{DATABASE}", "/postgres")
        with connect(server, purpose="test") as connection:
            database.drop(connection, DATABASE)

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return which one it is, and how its rows are known."""
        return {
            "database": DATABASE,
            "backup": system.newest_set,
            "target": DATABASE,
            "question": "SELECT count(*) >= 500 FROM public.tasks",
        }


class RowsDeleted(Scenario):
    """Somebody deletes most rows of a table; the next backup holds far less."""

    runbook = "rows-deleted"
    broken = "two of three rows of a table were deleted, and the next backup ran"
    sign = Alert("OpskitBackupChanged")

    def break_(self, system: System) -> None:
        """Delete them while the service goes on, then back up as the timetable does."""
        self._before = datetime.now(UTC)
        execute(system.site.url, "DELETE FROM public.tasks WHERE id % 3 <> 0")
        system.document("backup", "--all")

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return the table, and a time from before."""
        return {
            "damaged": system.newest_set,
            "database": DATABASE,
            "table": "public.tasks",
            "before": self._before.isoformat(),
            "live": DATABASE,
        }
