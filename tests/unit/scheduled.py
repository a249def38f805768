"""A scheduler without processes and files: its clock, its ledger and its jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from opskit.config import Settings
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import History, Job, history, jobs
from opskit.scheduler.dispatcher import Dispatcher
from opskit.scheduler.jobs import Cause, Ended, Running
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Missed

GRACE = timedelta(hours=12)


def moment(text: str) -> datetime:
    """Return a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def record(
    operation: str,
    started_at: datetime,
    *,
    source: str = "",
    outcome: str = "ok",
    **details: object,
) -> LedgerEntry:
    """Return a record of a run that began at a time."""
    return LedgerEntry(
        sequence=0,
        time=(started_at + timedelta(seconds=1)).isoformat(),
        run_id="run",
        operation=operation,
        outcome=outcome,
        details=details | ({"source": source} if source else {}),
        previous="",
        started_at=started_at.isoformat(),
        seconds=1,
    )


def timetable(line: str = "", *, zone: str = "UTC", **lines: str) -> tuple[Job, ...]:
    """Return the jobs of a source with this line, and those of the lines named."""
    off = dict.fromkeys(("verify", "drill", "prune", "report"), "")
    settings = Settings.model_validate(
        {
            "databases": {"shop": {"url": "postgresql://db/shop", "schedule": line}},
            "scheduler": {"timezone": zone, **off, **lines},
        }
    )
    return jobs(settings)


class Played(Running):
    """A job without a process, which the test ends."""

    def __init__(self, job: Job, at: datetime) -> None:
        self.job, self.at, self.causes = job, at, list[Cause]()

    def stop(self, cause: Cause = "stopped") -> None:
        """Remember that it was told to end."""
        self.causes.append(cause)


class Scheduler(Journal):
    """A dispatcher, and the ledger that it works by, in memory."""

    def __init__(self, wanted: Sequence[Job], now: datetime) -> None:
        self.wanted, self.now, self.began = wanted, now, now
        # The last records of each job: the rest changes nothing any more.
        self.entries: dict[str, list[LedgerEntry]] = {}
        self.started: list[Played] = []
        self.running: dict[str, Played] = {}
        self.reported: list[tuple[str, Missed]] = []
        self.may_start: Callable[[], bool] = lambda: True
        self.uptime = 0.0
        self.is_full = False
        lines = {each.name: each.written for each in wanted}
        self.learnt = record("scheduler", now, lines=lines)
        self.restart()

    def restart(self) -> None:
        """Forget all but the ledger."""
        self.dispatcher = Dispatcher(
            journal=self, launch=self.launch, uptime=lambda: self.uptime
        )

    def write(self, entry: LedgerEntry) -> None:
        """Append a record to the ledger, unless its disk is full."""
        if self.is_full:
            return
        of_job = self.entries.setdefault(
            f"{entry.operation} {entry.details.get('source')}", []
        )
        of_job.append(entry)
        del of_job[:-3]

    def history(self) -> History:
        """Return what the ledger knows."""
        entries = [each for of_job in self.entries.values() for each in of_job]
        return history([self.learnt, *entries], now=self.now)

    def missed(self, job: Job, missed: Missed) -> None:
        """Record what was missed."""
        self.reported.append((job.name, missed))
        due = missed.as_json()
        self.write(
            record(
                job.operation, self.now, source=job.source, outcome="missed", due=due
            )
        )

    def ended(self, job: Job, at: datetime, ended: Ended) -> None:
        """Record what a job did not record itself."""
        outcome = "failed" if ended.code else "ok"
        due = Missed(first=at, last=at, number=1).as_json()
        self.write(
            record(job.operation, self.now, source=job.source, outcome=outcome, due=due)
        )

    def launch(self, job: Job, at: datetime) -> Running:
        """Start a job that runs until the test ends it."""
        self.running[job.name] = Played(job, at)
        self.started.append(self.running[job.name])
        return self.started[-1]

    def tick(self, now: datetime | None = None) -> list[str]:
        """Do what is to be done at a time; return the names of what was started."""
        self.now = now or self.now
        before = len(self.started)
        self.dispatcher.collect()
        self.dispatcher.start(
            self.wanted,
            new_since=self.began,
            now=self.now,
            grace=GRACE,
            may_start=lambda: self.may_start(),
        )
        return [each.job.name for each in self.started[before:]]

    def end(self, name: str, code: int = 0, outcome: str = "ok") -> None:
        """End a job that runs; with an outcome, it has recorded its end itself."""
        played = self.running.pop(name)
        played.ended = Ended(code=code, cause=(*played.causes, "")[0])
        if outcome:
            self.write(
                record(
                    played.job.operation,
                    self.now,
                    source=played.job.source,
                    outcome=outcome,
                    code=code,
                )
            )

    def catch_up(self, now: datetime) -> list[str]:
        """Start what is due and end it at once, until nothing is due any more."""
        names: list[str] = []
        while started := self.tick(now):
            names += started
            for each in started:
                self.end(each)
        return names
