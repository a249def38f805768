"""Every scenario, by its name."""

from __future__ import annotations

from tests.gamedays.backups import BackupRefused, SchedulerKilled
from tests.gamedays.databases import DatabaseLost, RowsDeleted
from tests.gamedays.disasters import EverythingLost, LedgerOverwritten, Ransomware
from tests.gamedays.keys import Leaked, Lost
from tests.gamedays.releases import BadMigration, BadRelease
from tests.gamedays.scenario import Scenario
from tests.gamedays.stores import Damaged, DiskFull, Silent

SCENARIOS: dict[str, Scenario] = {
    "database-lost": DatabaseLost(),
    "rows-deleted": RowsDeleted(),
    "bad-release": BadRelease(),
    "bad-migration": BadMigration(),
    "backup-refused": BackupRefused(),
    "scheduler-killed": SchedulerKilled(),
    "store-damaged": Damaged(),
    "store-silent": Silent(),
    "disk-full": DiskFull(),
    "keys-lost": Lost(),
    "keys-leaked": Leaked(),
    "ledger-overwritten": LedgerOverwritten(),
    "ransomware": Ransomware(),
    "everything-lost": EverythingLost(),
}
