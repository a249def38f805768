"""Databases: one is dropped, and rows of a table are deleted."""

from __future__ import annotations

from collections.abc import Mapping

from opskit.postgres import database
from opskit.postgres.connect import connect
from tests.gamedays.scenario import Scenario, StatusCheck
from tests.gamedays.system import DATABASE, System


class DatabaseLost(Scenario):
    """Somebody drops the database of the running service."""

    runbook = "database-lost"
    broken = "the database of the running service was dropped"
    sign = StatusCheck(f"database {DATABASE}: connection")
    destroys = (DATABASE,)

    def break_(self, system: System) -> None:
        """Drop it."""
        server = system.site.url.replace(f"/{DATABASE}", "/postgres")
        with connect(server, purpose="test") as connection:
            database.drop(connection, DATABASE)

    def inputs(self, _system: System) -> Mapping[str, str]:
        """Return which one it is."""
        return {"database": DATABASE}
