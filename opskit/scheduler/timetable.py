"""Timetable: what is due of the jobs, and what was missed; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from opskit.config.cron import due_times
from opskit.operations.schedule import Job

# How far back missed runs are looked for: enough for a yearly job.
_MISSED_MAX = timedelta(days=400)


@dataclass(frozen=True, kw_only=True)
class Missed:
    """Runs of a job that were due and will not be made up for."""

    first: datetime
    last: datetime
    number: int

    def as_json(self) -> dict[str, object]:
        """Return what the ledger keeps of it."""
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "number": self.number,
        }


@dataclass(frozen=True, kw_only=True)
class Due:
    """What is due of a job: a run for the time `at`, and what was missed before."""

    job: Job
    at: datetime | None
    missed: Missed | None


def standing(
    job: Job, *, since: datetime, now: datetime, grace: timedelta
) -> Due | None:
    """Return what is due of a job that is dealt with up to a time, if anything is.

    Of several runs the last is made up for, if it is not later than the grace.
    """
    times = due_times(job.line, job.zone, after=max(since, now - _MISSED_MAX))
    pending = list(takewhile(lambda each: each <= now, times))
    if not pending:
        return None
    at = pending[-1] if now - pending[-1] <= grace else None
    gone = pending if at is None else pending[:-1]
    missed = Missed(first=gone[0], last=gone[-1], number=len(gone)) if gone else None
    return Due(job=job, at=at, missed=missed)


def wake_up(wanted: Iterable[Job], *, now: datetime) -> datetime | None:
    """Return when the next job is due, if there is any job."""
    return min((job.next_due(now) for job in wanted), default=None)
