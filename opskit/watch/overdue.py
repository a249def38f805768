"""Overdue: which jobs of the scheduler did not run when they were due; pure."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from opskit.config import Settings
from opskit.config.cron import longest_interval, next_due
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import history, jobs

# A run for every minute may take this long before anybody calls it late.
_LEAST = timedelta(minutes=2)


def overdue(
    entries: Iterable[LedgerEntry], settings: Settings, *, now: datetime
) -> dict[str, datetime | None]:
    """Return by the name of each job since when a run of it is overdue, if one is.

    The records of the scheduler say which jobs it has: where it never ran there are
    none. A run must begin within `grace` and end within `job_timeout`, and in any case
    before another interval has passed.
    """
    past = history(entries, now=now)
    limit = settings.scheduler.grace + settings.scheduler.job_timeout
    late: dict[str, datetime | None] = {}
    for job in jobs(settings):
        if job.name not in past.known:
            continue
        written, began = past.known[job.name]
        line, _, zone = written.rpartition(" ")
        with suppress(ValueError, KeyError, OSError, CronSimError):
            since = max(began, past.done.get(job.key, began))
            due = next_due(line, ZoneInfo(zone), after=since)
            allowed = max(_LEAST, min(limit, longest_interval(line)))
            late[job.name] = due if due + allowed < now else None
    return late
