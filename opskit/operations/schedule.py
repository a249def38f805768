"""Schedule: which jobs the settings ask for, and what the ledger says of them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from opskit.config import Settings
from opskit.config.cron import longest_interval, next_due
from opskit.errors import LockHeld
from opskit.ledger import LedgerEntry

SCHEDULER = "scheduler"
MISSED = "missed"
# The operation and the source that a job is about, which may be all of them.
Key = tuple[str, str]
_AHEAD_MAX = timedelta(days=1)
# What is older is not asked of other hosts: a monthly job has run since then.
REMEMBERED = timedelta(days=45)
# A run for every minute may take this long before anybody calls it late.
_LATE_MIN = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One line of the timetable: a task, the source it is for, and when it is due."""

    operation: str
    line: str
    zone: ZoneInfo
    source: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """What the ledger knows its runs by."""
        return (self.operation, self.source)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.operation} {self.source}".strip()

    @property
    def written(self) -> str:
        """The line and its zone, as the ledger keeps them."""
        return f"{self.line} {self.zone.key}"

    @property
    def changes(self) -> bool:
        """Whether it changes the sets of its source, so that no other may meanwhile."""
        return self.operation in ("backup", "prune")

    @property
    def uses_sets(self) -> bool:
        """Whether it writes or reads backup sets, and so has to wait for others."""
        return self.operation != "smoke"

    def next_due(self, after: datetime) -> datetime:
        """Return when it is due for the first time after a time."""
        return next_due(self.line, self.zone, after=after)


def jobs(settings: Settings) -> tuple[Job, ...]:
    """Return the jobs that the configuration asks for: backups first."""
    scheduler = settings.scheduler
    sources = dict.fromkeys(settings.databases, "--database")
    sources |= dict.fromkeys(settings.files, "--files")
    lines = {name: each.schedule for name, each in settings.databases.items()}
    lines |= {name: each.schedule for name, each in settings.files.items()}
    of_each = [("backup", name, lines[name]) for name in sources]
    of_each += [("restore-drill", name, scheduler.drill) for name in sources]
    wanted = [
        Job(
            operation=operation,
            source=name,
            line=line,
            zone=scheduler.zone,
            arguments=(sources[name], name),
        )
        for operation, name, line in of_each
    ]
    wanted += [
        Job(operation=operation, line=line, zone=scheduler.zone, arguments=arguments)
        for operation, line, arguments in (
            ("verify", scheduler.verify, ()),
            ("prune", scheduler.prune, ()),
            ("report", scheduler.report, ("--month",)),
            ("smoke", scheduler.smoke if settings.smoke.url else "", ()),
        )
    ]
    return tuple(each for each in wanted if each.line.strip())


@dataclass(frozen=True, kw_only=True)
class History:
    """What the ledger knows of the timetable.

    `done` says up to which time the runs of a job are dealt with, `known` since when
    the timetable has had a job's line.
    """

    done: Mapping[Key, datetime]
    known: Mapping[str, tuple[str, datetime]]

    def since(self, job: Job) -> datetime | None:
        """Return the time up to which a job is dealt with; None if it is new."""
        line, began = self.known.get(job.name, ("", None))
        if began is None or line != job.written:
            return None
        return max(began, self.done.get(job.key, began))


def history(entries: Iterable[LedgerEntry], *, now: datetime) -> History:
    """Return what the records say of runs, in the order in which they were written.

    Records whose times or details are none are passed over.
    """
    done: dict[Key, datetime] = {}
    known: dict[str, tuple[str, datetime]] = {}
    for entry in entries:
        with suppress(ValueError, TypeError, AttributeError):
            if entry.operation == SCHEDULER:
                known = _known(known, entry)
            elif (time := _dealt_with(entry)) and is_credible(time, now=now):
                key = (entry.operation, entry.source)
                done[key] = max(time, done.get(key, time))
    return History(done=done, known=known)


def is_credible(time: datetime, *, now: datetime) -> bool:
    """Return whether a record may be of this time, or its clock must have been wrong.

    A clock that is set back by an hour leaves such records; one that was a month ahead
    must not keep a job from being due for a month.
    """
    return time <= now + _AHEAD_MAX


def _known(
    known: dict[str, tuple[str, datetime]], entry: LedgerEntry
) -> dict[str, tuple[str, datetime]]:
    """Return the lines of a record, each with the time since which it is the same."""
    lines = entry.details.get("lines")
    if not isinstance(lines, dict):
        return known
    time = datetime.fromisoformat(entry.time)
    return {
        name: known[name] if known.get(name, (None,))[0] == line else (str(line), time)
        for name, line in lines.items()
    }


def _dealt_with(entry: LedgerEntry) -> datetime | None:
    """Return up to when a record deals with its job; None if it was no run of it.

    A run that failed has run. One that was interrupted, or that found another at work,
    is still due.
    """
    due = entry.details.get("due")
    last = due.get("last") if isinstance(due, dict) else None
    up_to = datetime.fromisoformat(last) if isinstance(last, str) else None
    if entry.outcome == MISSED:
        return up_to
    if entry.outcome == "interrupted":
        return None
    if entry.details.get("code") == LockHeld.exit_code:
        return None
    began = datetime.fromisoformat(entry.started_at or entry.time)
    return max(began, up_to or began)


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
            allowed = max(_LATE_MIN, min(limit, longest_interval(line)))
            late[job.name] = due if due + allowed < now else None
    return late
