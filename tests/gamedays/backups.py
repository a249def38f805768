"""Backups: they are refused, or nothing takes them any more."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from tests.gamedays.scenario import Alert, Scenario
from tests.gamedays.system import System
from tests.support import execute, processes_of
from tests.watching import until

_ROLE = "backup_of_service"


class BackupRefused(Scenario):
    """Somebody takes from the role of the backups what it may read."""

    runbook = "backup-failing"
    broken = "the role of the backups was refused the tables"
    sign = Alert("OpskitBackupFailed")
    skip = (4, 7, 8)  # the scheduler runs, nothing changed, nobody gets messages

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Back up as a role that may just read."""
        url = system.site.url
        execute(url, f"CREATE ROLE {_ROLE} LOGIN IN ROLE pg_read_all_data")
        stack.callback(execute, url, f"DROP ROLE {_ROLE}")
        host = url.partition("@")[2]
        system.configure(url=f"postgresql://{_ROLE}@{host}")
        system.document("backup", "--all")

    def break_(self, system: System) -> None:
        """Revoke it, then back up as the timetable does."""
        execute(system.site.url, f"REVOKE pg_read_all_data FROM {_ROLE}")
        system.document("backup", "--all", codes=(30, 40))

    def by_hand(self, system: System) -> None:
        """Grant it again."""
        execute(system.site.url, f"GRANT pg_read_all_data TO {_ROLE}")


class SchedulerKilled(Scenario):
    """The scheduler is killed, and nothing starts it again."""

    runbook = "backup-failing"
    broken = "the scheduler was killed, and not started again"
    sign = Alert("OpskitAbsent")
    skip = (7, 8)

    def prepare(self, system: System, stack: ExitStack) -> None:
        """Have a command that starts it, as a service manager has."""
        configuration = system.folder / "opskit.toml"
        # It outlives the step that starts it, and is gone where nobody can end it.
        run = f"timeout 900 {sys.executable} -m opskit scheduler"
        (system.folder / "start").write_text(
            f"cd {system.folder}\n"
            f"setsid {run} --config {configuration} >started.log 2>&1 &\n"
        )
        stack.callback(_end, str(configuration))

    def break_(self, system: System) -> None:
        """Kill it."""
        system.scheduler.kill()

    def inputs(self, system: System) -> Mapping[str, str]:
        """Return how it is started."""
        return {"restart": f"sh {system.folder}/start"}


def _end(configuration: str) -> None:
    """End what the runbook started, and wait until it has ended."""
    for each in processes_of(configuration):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    until(lambda: not processes_of(configuration))
