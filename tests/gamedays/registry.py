"""Every scenario, by its name."""

from __future__ import annotations

from tests.gamedays.backups import BackupRefused, SchedulerKilled
from tests.gamedays.databases import DatabaseLost, RowsDeleted
from tests.gamedays.releases import BadRelease
from tests.gamedays.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    "database-lost": DatabaseLost(),
    "rows-deleted": RowsDeleted(),
    "bad-release": BadRelease(),
    "backup-refused": BackupRefused(),
    "scheduler-killed": SchedulerKilled(),
}
