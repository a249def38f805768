"""Every scenario, by its name."""

from __future__ import annotations

from tests.gamedays.backups import BackupRefused, SchedulerKilled
from tests.gamedays.databases import DatabaseLost, RowsDeleted
from tests.gamedays.releases import BadMigration, BadRelease
from tests.gamedays.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    "database-lost": DatabaseLost(),
    "rows-deleted": RowsDeleted(),
    "bad-release": BadRelease(),
    "bad-migration": BadMigration(),
    "backup-refused": BackupRefused(),
    "scheduler-killed": SchedulerKilled(),
}
