"""Journal: what the scheduler reads from the ledger, and what it records itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from opskit.errors import OpskitError
from opskit.ledger import LedgerEntry
from opskit.log import logger
from opskit.operations.outcome import Failure, Record
from opskit.operations.run import Run
from opskit.operations.schedule import (
    MISSED,
    REMEMBERED,
    SCHEDULER,
    History,
    Job,
    history,
)
from opskit.scheduler.jobs import Ended
from opskit.scheduler.timetable import Missed
from opskit.store import Store
from opskit.threads import Thread

# How long jobs wait for what stores say of other hosts, and when a store that could
# not be read is asked again.
_ANSWER_SECONDS = 60.0
_AGAIN_SECONDS = 60.0
DISCOVER = "discover"


class Journal:
    """The ledger, as the timetable needs it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seen: tuple[object, ...] = ()
        # What each store says of other hosts, and which have not been asked yet.
        self._others: dict[str, list[LedgerEntry]] = {}
        self._unasked: set[str] = set()
        self._patience = 0.0
        self._history = History(done={}, known={})
        self._threads: list[Thread] = []

    def history(self) -> History:
        """Return what the ledger knows.

        It is read again when it has changed, and when the clock was set: which records
        are credible depends on the time.
        """
        now = self.run.now()
        others = [*self._others.values()]
        seen = (self.run.ledger.state, len(others), now.date(), now.hour)
        if seen != self._seen:
            entries, _faults = self.run.ledger.readable()
            self._history = history(chain(*others, entries), now=now)
            self._seen = seen
        return self._history

    def learn(self, jobs: Sequence[Job]) -> None:
        """Record the timetable if it is new: what is new in it is due from now on."""
        lines = {each.name: each.written for each in jobs}
        known = {name: line for name, (line, _) in self.history().known.items()}
        if lines != known:
            self._add(SCHEDULER, "ok", lines=lines)

    def take_over(self, jobs: Sequence[Job]) -> None:
        """Learn what other hosts have run while this one did not lead.

        They are asked only if something is due by what this host knows, and each store
        in a thread until it answers.
        """
        now = self.run.now()
        times = [self.history().since(each) for each in jobs]
        overdue = [
            since
            for job, since in zip(jobs, times, strict=True)
            if since is not None and job.next_due(since) <= now
        ]
        self._others, self._unasked, self._seen = {}, set(), ()
        if overdue:
            since = max(min(overdue), now - REMEMBERED)
            self._unasked = {each.name for each in self.run.stores}
            self._patience = time.monotonic() + _ANSWER_SECONDS
            for store in self.run.stores:
                Thread(
                    self._ask, store, since, self._others, self._unasked,
                    name=f"others in {store.name}",
                )  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether it knows what other hosts have run, as far as stores answer."""
        return not self._unasked or time.monotonic() > self._patience

    def _ask(
        self,
        store: Store,
        since: datetime,
        others: dict[str, list[LedgerEntry]],
        unasked: set[str],
    ) -> None:
        while others is self._others:  # nobody has taken over since
            records = self.run.ledger.records_of_others(store, since)
            if records is not None:
                others[store.name] = records
            unasked.discard(store.name)
            if records is not None:
                return
            time.sleep(_AGAIN_SECONDS)

    def missed(self, job: Job, missed: Missed) -> None:
        """Record runs that will not be made up for, and notify the observers."""
        runs_missed = f"{missed.number} runs were missed, the last"
        if missed.number == 1:
            runs_missed = "a run was missed,"
        failure = Failure(
            exit_code=OpskitError.exit_code,
            message=f"{job.name}: {runs_missed} due at "
            f"{missed.last:%Y-%m-%d %H:%M} UTC",
            hint="See when the scheduler ran, and whether jobs take longer than the "
            "time between them.",
        )
        logger().error(failure.message, job=job.name)
        self._add(job.operation, MISSED, failure, **_details(job, missed))

    def ended(self, job: Job, at: datetime, ended: Ended) -> None:
        """Record the end of a job that has not recorded it itself."""
        details = _details(job, Missed(first=at, last=at, number=1))
        failure = ended.failure(job) if ended.code else None
        if failure is not None:
            logger().error(failure.message, job=job.name)
        outcome = "failed" if failure else "ok"
        self._add(job.operation, outcome, failure, run_id=ended.run_id, **details)

    def discovered(self, source: str, failure: Failure | None = None) -> None:
        """Record that a database was found, or what failed, and notify observers."""
        if failure is not None:
            logger().error(failure.message, hint=failure.hint)
        ended = "failed" if failure else "ok"
        self._add(DISCOVER, ended, failure, source=source)

    def _add(
        self,
        operation: str,
        ended: str,
        failure: Failure | None = None,
        *,
        run_id: str = "",
        **details: Any,
    ) -> None:
        """Append a record; what follows from it is done in a thread.

        Stores get their copy, then observers learn of a failure. The next job does not
        wait for either.
        """
        record = Record(
            operation=operation,
            run_id=run_id or self.run.run_id,
            started_at=self.run.now(),
            subject=str(details.get("source", "")),
            details=details,
            on_record=True,
            ended=ended,
            failures=[failure] if failure else [],
        )
        record.end()
        self.run.ledger.append(record)
        thread = Thread(_follow_up, self.run, record, name=f"{operation} {ended}")
        self._threads = [thread, *(e for e in self._threads if e.is_alive())]

    def close(self, deadline: float) -> None:
        """Wait for copies and notifications, until a time of the monotonic clock."""
        for each in self._threads:
            each.join(max(0.0, deadline - time.monotonic()))


def _details(job: Job, due: Missed) -> dict[str, Any]:
    """Return what a record about a job says of it."""
    return {"due": due.as_json()} | ({"source": job.source} if job.source else {})


def _follow_up(run: Run, record: Record) -> None:
    # First: a store that hangs would hold the news up.
    if record.failures or record.operation == DISCOVER:
        run.notify(record)
    run.ledger.copy(record)
