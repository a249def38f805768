"""Journal: what the scheduler reads from the ledger, and what it records itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from opskit.config.section import format_duration
from opskit.errors import BackupFailed, DrillFailed, OpskitError
from opskit.ledger import LedgerEntry
from opskit.log import logger
from opskit.operations.outcome import Failure, Record
from opskit.operations.run import Run
from opskit.scheduler.jobs import Ended
from opskit.scheduler.timetable import MISSED, SCHEDULER, History, Job, Missed, history
from opskit.watch import runs

_HINT = "The log of the scheduler has what the job said."
# What a job without an exit code of the contract counts as.
_CODES = {"backup": BackupFailed.exit_code, "restore-drill": DrillFailed.exit_code}


class Journal:
    """The ledger, as the timetable needs it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seen: tuple[int, int] | None = None
        self._entries: list[LedgerEntry] = []

    def history(self) -> History:
        """Return what the ledger knows of the timetable by now."""
        return history(self._read(), now=self.run.now())

    def _read(self) -> list[LedgerEntry]:
        """Return the records; they are read again when the file has changed."""
        seen = self.run.ledger.state
        if seen != self._seen:
            self._entries, _faults = self.run.ledger.readable()
            self._seen = seen
        return self._entries

    def learn(self, jobs: Sequence[Job]) -> History:
        """Record the timetable if it is new, and return the history with it.

        A job that is new is due from now on.
        """
        lines = {each.name: each.written for each in jobs}
        known = {name: line for name, (line, _) in self.history().known.items()}
        if lines != known or not self._entries:
            record = Record(
                operation=SCHEDULER,
                run_id=self.run.run_id,
                started_at=self.run.now(),
                details={"lines": lines},
                ended="ok",
                require_ledger=lambda: self.run.ledger,
            )
            self.run.ledger.add(record)
        return self.history()

    def missed(self, job: Job, missed: Missed) -> None:
        """Record runs that will not be made up for, and tell whoever watches."""
        times = f"{missed.number} runs" if missed.number > 1 else "a run"
        failure = Failure(
            exit_code=_CODES.get(job.operation, OpskitError.exit_code),
            message=f"{times} of {job.name} missed, the last one due at "
            f"{missed.last.isoformat()}",
            hint="See when the scheduler ran, and whether jobs take longer than the "
            "time between them.",
        )
        self._event(job, MISSED, failure, due=missed.as_json())

    def ended(self, job: Job, at: datetime, ended: Ended) -> None:
        """Record the end of a job that has not recorded it itself."""
        due = Missed(first=at, last=at, number=1).as_json()
        if not ended.code:
            record = Record(
                operation=job.operation,
                run_id=ended.run_id or self.run.run_id,
                started_at=self.run.now(),
                details={"due": due} | ({"source": job.source} if job.source else {}),
                ended="ok",
                require_ledger=lambda: self.run.ledger,
            )
            self.run.ledger.add(record)
            return
        failure = _failure(job, ended, self.run.settings.scheduler.job_timeout)
        self._event(job, "failed", failure, run_id=ended.run_id, due=due)

    def _event(
        self,
        job: Job,
        outcome: str,
        failure: Failure,
        *,
        due: dict[str, object],
        run_id: str = "",
    ) -> None:
        logger().error(failure.message, job=job.name)
        details = {"due": due} | ({"source": job.source} if job.source else {})
        runs.record_event(
            self.run, job.operation, outcome, failure, run_id=run_id, **details
        )


def _failure(job: Job, ended: Ended, limit: timedelta) -> Failure:
    """Return what is said of a job that could not say it in the ledger."""
    code = ended.code if ended.code > 0 else _CODES.get(job.operation, 1)
    message = str(ended.document.get("error", ""))
    if ended.cause == "late":
        code = _CODES.get(job.operation, 1)
        message = (
            f"{job.name} was ended: it took longer than scheduler.job_timeout, "
            f"{format_duration(limit)}"
        )
    elif not message and ended.code < 0:
        message = f"{job.name} was ended by signal {-ended.code}"
    return Failure(
        exit_code=code,
        message=message or f"{job.name} ended with exit code {ended.code}",
        hint=str(ended.document.get("hint", "")) or _HINT,
    )
