"""Dispatcher: starts what is due, when nothing else is at work on the same source."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from opskit.errors import LockHeld
from opskit.log import logger
from opskit.scheduler.jobs import Cause, Ended
from opskit.scheduler.timetable import Due, History, Job, Key, Missed, standing

_TOGETHER_MAX = 4
# A lock that is held is tried again after this time, then after twice as long, ….
_RETRY = timedelta(seconds=30)
_RETRY_MAX = timedelta(minutes=15)


class Work(Protocol):
    """A job that was started."""

    job: Job
    at: datetime
    ended: Ended | None

    def stop(self, cause: Cause = "stopped") -> None:
        """Tell it to end."""
        ...


class Records(Protocol):
    """The ledger, as far as it concerns jobs."""

    def history(self) -> History:
        """Return what ran, and since when the timetable has its lines."""
        ...

    def missed(self, job: Job, missed: Missed) -> None:
        """Record runs that will not be made up for."""
        ...

    def ended(self, job: Job, at: datetime, ended: Ended) -> None:
        """Record the end of a job that has not recorded it itself."""
        ...


@dataclass
class _Wait:
    """A job whose lock was held: how often, and when it is tried again."""

    times: int
    until: float


class Dispatcher:
    """The jobs that run, and the rules by which the next ones are started."""

    def __init__(
        self,
        *,
        records: Records,
        launch: Callable[[Job, datetime], Work],
        retry: timedelta = _RETRY,
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        self.records = records
        self.results: list[tuple[Job, Ended]] = []
        self._launch, self._retry, self._uptime = launch, retry, uptime
        self._running: dict[Key, Work] = {}
        self._waits: dict[Key, _Wait] = {}
        # What the ledger should say: one that cannot be written must not start a job
        # over and over again.
        self._done: dict[Key, datetime] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return bool(self._running)

    @property
    def is_waiting(self) -> bool:
        """Whether a job that found its lock held is to be tried again."""
        return bool(self._waits)

    def stop(self) -> None:
        """Tell every job to end."""
        for each in self._running.values():
            each.stop()

    def collect(self) -> None:
        """Take note of the jobs that have ended."""
        for key, work in [*self._running.items()]:
            if work.ended is not None:
                del self._running[key]
                self._conclude(work, work.ended)

    def _conclude(self, work: Work, ended: Ended) -> None:
        if ended.code == LockHeld.exit_code and not ended.cause:
            self._wait(work.job, str(ended.document.get("error", "its lock is held")))
            return
        self._waits.pop(work.job.key, None)
        self.results.append((work.job, ended))
        if ended.cause == "stopped":
            return  # it is still due, for who comes next
        self._done[work.job.key] = work.at
        done = self.records.history().done.get(work.job.key)
        if done is None or done < work.at:
            self.records.ended(work.job, work.at, ended)

    def start(
        self,
        jobs: Sequence[Job],
        *,
        now: datetime,
        grace: timedelta,
        may_start: Callable[[], bool],
    ) -> None:
        """Start what is due of these jobs, and record what was missed of them.

        `may_start` is asked right before each start and each record.
        """
        history = self.records.history()
        for job in jobs:
            since = history.since(job)
            if since is None or job.key in self._running:
                continue
            since = max(since, self._done.get(job.key, since))
            due = standing(job, since=since, now=now, grace=grace)
            if due is None:
                self._waits.pop(job.key, None)
            elif (due.at is None or self._is_free(job)) and may_start():
                self._start(due)

    def _is_free(self, job: Job) -> bool:
        """Return whether a job may start beside those that run.

        Backups run side by side, up to a number. What goes through every set runs one
        after the other, and nothing changes the sets of a source twice at once.
        """
        wait = self._waits.get(job.key)
        if wait and self._uptime() < wait.until:
            return False
        others = [each.job for each in self._running.values()]
        if job.operation != "backup" and any(
            each.operation != "backup" for each in others
        ):
            return False
        clashes = any(
            job.changes
            and each.changes
            and (job.source == each.source or "" in (job.source, each.source))
            for each in others
        )
        return not clashes and len(others) < _TOGETHER_MAX

    def _start(self, due: Due) -> None:
        job = due.job
        if due.missed is not None:
            self._done[job.key] = due.missed.last
            self.records.missed(job, due.missed)
        if due.at is None:
            self._waits.pop(job.key, None)
            return
        try:
            self._running[job.key] = self._launch(job, due.at)
        except LockHeld as error:
            self._wait(job, error.message)
        except OSError as error:
            self._done[job.key] = due.at
            document = {"error": f"{job.name} could not be started: {error}"}
            self.records.ended(job, due.at, Ended(code=1, document=document))

    def _wait(self, job: Job, reason: str) -> None:
        before = self._waits.get(job.key)
        times = before.times + 1 if before else 0
        pause = min(_RETRY_MAX, self._retry * 2 ** min(times, 10))
        self._waits[job.key] = _Wait(times, self._uptime() + pause.total_seconds())
        logger().warning(
            "a job is tried again later",
            job=job.name,
            seconds=pause.total_seconds(),
            reason=reason,
        )
