"""Alone: what a worker does while the queue is away, under the stores' locks."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from opskit.config.cron import longest_interval
from opskit.doctor.stores import ping
from opskit.errors import DatabaseError, LockHeld, OpskitError
from opskit.fleet.tick import label
from opskit.log import logger
from opskit.operations.schedule import Job, jobs
from opskit.scheduler.jobs import Running
from opskit.scheduler.timetable import standing

if TYPE_CHECKING:
    from opskit.fleet.worker import Worker

_AGAIN_SECONDS = 60.0
_FAILED_SECONDS = 300.0
# Listing a store takes long, and all workers do it.
_LIST_SECONDS = 30.0
_ANY = timedelta(days=10_000)


class Alone:
    """Backs up the overdue sources of a worker's labels without the queue.

    Several workers may do so at once: the lock of a source in the store lets one of
    them, and the manifest of a due time exists once.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker, self._run = worker, worker.run
        self._away_since: float | None = None
        self._has_said_so, self._obstacle = False, ""
        self._started: dict[str, tuple[datetime, Running]] = {}
        # Up to which due time each source is dealt with, and when to look again.
        self._done: dict[str, datetime] = {}
        self._later: dict[str, float] = {}
        self._waiting: list[tuple[Job, datetime]] = []
        self._listed_until = 0.0

    @property
    def running(self) -> list[Running]:
        """The backups that run."""
        return [running for _due, running in self._started.values()]

    def back(self) -> None:
        """Note that the queue answers."""
        self._collect()
        if self._away_since is not None:
            self._worker.say("the queue answers again")
        if self._has_said_so:
            self._worker.report()
        self._away_since, self._has_said_so = None, False

    def away(self, error: OpskitError) -> None:
        """Note that the queue does not answer; after a while, go on without it."""
        self._collect()
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger().warning("the queue does not answer", reason=error.message)
        waited = time.monotonic() - self._away_since
        if waited < self._worker.settings.fleet.patience.total_seconds():
            return
        if time.monotonic() > self._listed_until:
            self._waiting = self._overdue()
            self._listed_until = time.monotonic() + _LIST_SECONDS
        if not self._has_said_so:
            self._has_said_so = True
            self._obstacle = self._find_obstacle()
            self._report(error, len(self._waiting))
        may_start = self._worker.may_work_alone and not self._obstacle
        while may_start and self._waiting and not self._worker.is_full:
            self._start(*self._waiting.pop())

    def _find_obstacle(self) -> str:
        """Return why nothing can be done; empty if nothing speaks against it."""
        if not self._worker.may_work_alone:
            return self._worker.reason or "it is ending"
        tolerance = self._worker.settings.fleet.clock_tolerance.total_seconds()
        for store in self._run.stores:
            try:
                _latency, offset = ping(store, now=self._run.now)
            except OpskitError:
                continue
            if offset is not None and abs(offset) > tolerance:
                return f"its clock is off by {-offset:+.0f} seconds"
        return ""

    def _collect(self) -> None:
        for source, (due, running) in [*self._started.items()]:
            if running.ended is None:
                continue
            del self._started[source]
            code = running.ended.code
            if not code:
                self._done[source] = due
            elif code == LockHeld.exit_code:
                self._later[source] = time.monotonic() + _AGAIN_SECONDS
            else:
                self._later[source] = time.monotonic() + _FAILED_SECONDS
                logger().error(running.ended.failure(running.job).message)

    def _overdue(self) -> list[tuple[Job, datetime]]:
        """Return the backups whose last due time has no set yet, in any order."""
        now = self._run.now()
        overdue = []
        for job in jobs(self._worker.settings):
            is_served = label(self._worker.settings, job) in self._worker.labels
            if job.operation != "backup" or not is_served:
                continue
            since = now - 2 * longest_interval(job.line)
            due = standing(job, since=since, now=now, grace=_ANY)
            is_later = time.monotonic() < self._later.get(job.source, 0)
            if due is None or due.at is None or is_later:
                continue
            if self._done.get(job.source) != due.at and job.source not in self._started:
                overdue.append((job, due.at))
        overdue = self._without_made(overdue)
        random.shuffle(overdue)
        return overdue

    def _without_made(
        self, overdue: list[tuple[Job, datetime]]
    ) -> list[tuple[Job, datetime]]:
        """Leave out what a store holds already; nothing is left if none answers."""
        if not overdue:
            return []
        try:
            listing = self._run.listing()
        except OpskitError as error:
            logger().error("no backup without the queue", reason=error.message)
            return []
        newest: dict[str, datetime] = {}
        for each in listing.sets:
            known = newest.get(each.source, each.started_at)
            newest[each.source] = max(known, each.started_at)
        missing = []
        for job, due in overdue:
            if job.source in newest and newest[job.source] >= due:
                self._done[job.source] = due
            else:
                missing.append((job, due))
        return missing

    def _start(self, job: Job, due: datetime) -> None:
        turn = {"due": due.isoformat(), "job": None, "attempt": 0, "worker": 0}
        try:
            wake = self._worker.wake.set
            running = self._worker.launch(job, due.isoformat(), turn, wake)
        except LockHeld:
            self._later[job.source] = time.monotonic() + _AGAIN_SECONDS
        else:
            self._started[job.source] = (due, running)

    def _report(self, error: OpskitError, overdue: int) -> None:
        what = f"overdue sources that are backed up without it: {overdue}"
        if self._obstacle:
            what = f"nothing is done without it: {self._obstacle}"
        self._worker.report(
            DatabaseError(
                f"the queue of the fleet is away; {what}",
                said=error.message,
                hint="Start the queue's database, or correct fleet.url.",
            )
        )
