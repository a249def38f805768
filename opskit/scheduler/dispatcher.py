"""Dispatcher: starts what is due, when nothing else is at work on the same source."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from opskit.errors import LockHeld, failure_of
from opskit.log import logger
from opskit.operations.outcome import Failure
from opskit.operations.schedule import Job, Key, is_credible
from opskit.scheduler.jobs import Ended, Running
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Due, standing

_TOGETHER_MAX = 4
# A lock that is held is tried again after this time, then after twice as long.
_RETRY = timedelta(seconds=30)
_RETRY_MAX = timedelta(minutes=15)


class Dispatcher:
    """The jobs that run, and the rules by which the next ones are started."""

    def __init__(
        self,
        *,
        journal: Journal,
        launch: Callable[[Job, datetime], Running],
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        # How each job failed the last time, if it ever did.
        self._failures: dict[Key, Failure] = {}
        self._journal = journal
        self._launch, self._uptime = launch, uptime
        self._running: dict[Key, Running] = {}
        # How often a job found its lock held, when it is tried again, and who holds it.
        self._waits: dict[Key, tuple[int, float, Failure]] = {}
        # What the ledger should say: while it cannot be written, a job must not start
        # over and over again.
        self._done: dict[Key, datetime] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return bool(self._running)

    @property
    def failures(self) -> list[Failure]:
        """The failures of jobs that have failed, or that wait for a lock."""
        waiting = [failure for _times, _until, failure in self._waits.values()]
        return [*self._failures.values(), *waiting]

    def stop(self) -> None:
        """Tell every job to end."""
        for each in self._running.values():
            each.stop()

    def collect(self) -> bool:
        """Deal with the jobs that have ended; return whether there were any."""
        over = [each for each in self._running.values() if each.ended is not None]
        for work in over:
            del self._running[work.job.key]
            assert work.ended is not None
            self._conclude(work, work.ended)
        return bool(over)

    def _conclude(self, work: Running, ended: Ended) -> None:
        logger().info("a job has ended", job=work.job.name, code=ended.code)
        if ended.code == LockHeld.exit_code and not ended.cause:
            self._wait(work.job, ended.failure(work.job))
            return
        self._waits.pop(work.job.key, None)
        if ended.code:
            self._failures[work.job.key] = ended.failure(work.job)
        if ended.cause == "stopped":
            return  # it is still due, for who comes next
        self._done[work.job.key] = work.at
        done = self._journal.history().done.get(work.job.key)
        if done is None or done < work.at:
            self._journal.ended(work.job, work.at, ended)

    def start(
        self,
        jobs: Sequence[Job],
        *,
        new_since: datetime,
        now: datetime,
        grace: timedelta,
        may_start: Callable[[], bool],
    ) -> None:
        """Start what is due of these jobs, and record what was missed of them.

        A job that the ledger does not know is due from `new_since` on. `may_start` is
        asked right before each start and each record.
        """
        history = self._journal.history()
        for job in jobs:
            if job.key in self._running:
                continue
            since = history.since(job) or new_since
            done = self._done.get(job.key, since)
            if is_credible(done, now=now):
                since = max(since, done)
            due = standing(job, since=since, now=now, grace=grace)
            if due is None:
                self._waits.pop(job.key, None)
            elif (due.at is None or self._is_free(job)) and may_start():
                self._start(due, may_start)

    def _is_free(self, job: Job) -> bool:
        """Return whether a job may start beside those that run.

        Backups run side by side, up to a number. What goes through every set runs one
        after the other, and nothing changes the sets of a source twice at once. A live
        service is asked when it is due: a long drill is no reason to miss that.
        """
        if job.key in self._waits and self._uptime() < self._waits[job.key][1]:
            return False
        if not job.uses_sets:
            return True
        others = [e.job for e in self._running.values() if e.job.uses_sets]
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

    def _start(self, due: Due, may_start: Callable[[], bool]) -> None:
        job = due.job
        if due.missed is not None:
            self._done[job.key] = due.missed.last
            self._journal.missed(job, due.missed)
        if due.at is None:
            self._waits.pop(job.key, None)
            return
        if due.missed is not None and not may_start():
            return
        try:
            self._running[job.key] = self._launch(job, due.at)
        except LockHeld as error:
            self._wait(job, Failure.of(error))
        except OSError as error:
            self._done[job.key] = due.at
            logger().error(
                "a job could not be started", job=job.name, reason=str(error)
            )
            ended = Ended(code=failure_of(job.operation).exit_code)
            self._failures[job.key] = ended.failure(job)
            self._journal.ended(job, due.at, ended)

    def _wait(self, job: Job, failure: Failure) -> None:
        times = self._waits[job.key][0] if job.key in self._waits else 0
        pause = min(_RETRY_MAX, _RETRY * 2 ** min(times, 10)).total_seconds()
        self._waits[job.key] = (times + 1, self._uptime() + pause, failure)
        logger().warning(
            "a job is tried again later",
            job=job.name,
            seconds=pause,
            reason=failure.message,
        )
