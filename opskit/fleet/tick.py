"""Tick: once a minute, one worker puts what is due into the queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from procrastinate import SyncPsycopgConnector
from procrastinate.jobs import Job as QueuedJob
from procrastinate.manager import JobManager

from opskit.config import Settings
from opskit.config.cron import longest_interval
from opskit.fleet.plan import drill_offset, expected, priority
from opskit.fleet.queue import LOCK_CLASS, TASK, VERSION
from opskit.fleet.sources import with_known
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import Job, Key, jobs
from opskit.postgres.connect import Connection, query, query_value
from opskit.scheduler.timetable import Missed, standing

_EVERY = timedelta(seconds=55)
# A source that is new has had its last night's run missed.
_NEW = timedelta(days=1)
# However late: a night without workers is made up for.
_GRACE = timedelta(days=10_000)
_KEPT_DAYS = 30
# A run that waits for longer was made up for, or the night is short.
_OVERDUE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A run of a job for a due time."""

    job: Job
    at: datetime


def label(settings: Settings, job: Job) -> str:
    """Return the label of the workers that do a job."""
    source = settings.databases.get(job.source) or settings.files.get(job.source)
    return source.label if source is not None else "default"


class Ticker:
    """Computes what is due by the queue's clock, and defers it once."""

    def __init__(self, entries: Sequence[LedgerEntry] = ()) -> None:
        """Take the records of a ledger, for how long jobs take that are new here."""
        self._entries = entries
        # When each job is due next, after the time up to which it is dealt with.
        self._next: dict[tuple[Key, str, datetime], datetime] = {}

    def tick(
        self, connection: Connection, settings: Settings
    ) -> list[tuple[Job, Missed]]:
        """Defer what is due; return the runs that will not be made up for.

        Nothing is done if another worker has just done so. What is deferred, and that
        it was, is one transaction.
        """
        with connection.transaction():
            is_mine = query_value(
                connection, "SELECT pg_try_advisory_xact_lock(%s, 1)", LOCK_CLASS
            )
            ((now, ticked),) = query(
                connection, "SELECT clock_timestamp(), ticked_at FROM fleet"
            )
            if not is_mine or (ticked is not None and now - ticked < _EVERY):
                return []
            settings = with_known(connection, settings)
            wanted = jobs(settings)
            since = _since(connection, wanted, now)
            due, missed = self._due(wanted, since, now)
            missed += _replaced(connection, due)
            _advance(connection, due)
            defer(connection, settings, due)
            self._prioritize(connection, settings, now)
            connection.execute("UPDATE fleet SET ticked_at = %s", (now,))
            _forget(connection)
        return missed

    def _due(
        self, wanted: Sequence[Job], since: Mapping[Key, datetime], now: datetime
    ) -> tuple[list[Turn], list[tuple[Job, Missed]]]:
        turns, gone = [], []
        for job in wanted:
            done = since[job.key]
            known = (job.key, job.written, done)
            if known in self._next and self._next[known] > now:
                continue
            later = offset(job)
            due = standing(job, since=done - later, now=now - later, grace=_GRACE)
            if due is None or due.at is None:
                self._next[known] = job.next_due(now - later) + later
                continue
            self._next.pop(known, None)
            turns.append(Turn(job=job, at=due.at + later))
            if due.missed is not None:
                gone.append((job, due.missed))
        return turns, gone

    def _prioritize(
        self, connection: Connection, settings: Settings, now: datetime
    ) -> None:
        """Give each job that waits its priority as things stand now."""
        waiting = query(
            connection,
            """
            SELECT id, args->>'operation', args->>'source', (args->>'due')::timestamptz
            FROM procrastinate_jobs WHERE status = 'todo'""",
        )
        rows = query(
            connection, "SELECT operation, source, seconds, succeeded_at FROM turns"
        )
        seconds = expected(
            ((operation, source) for _id, operation, source, _due in waiting),
            seconds={(o, s): each for o, s, each, _at in rows if each is not None},
            entries=self._entries,
        )
        ages = {(o, s): now - at for o, s, _seconds, at in rows if at is not None}
        priorities = [
            priority(
                overdue=now - due > _OVERDUE,
                age=ages.get((operation, source)),
                max_age=_max_age(settings, operation, source),
                seconds=seconds[operation, source],
            )
            for _id, operation, source, due in waiting
        ]
        connection.execute(
            "UPDATE procrastinate_jobs j SET priority = p.priority"
            " FROM unnest(%s::bigint[], %s::int[]) AS p (id, priority)"
            " WHERE j.id = p.id AND j.status = 'todo' AND j.priority <> p.priority",
            ([each[0] for each in waiting], priorities),
        )


def offset(job: Job) -> timedelta:
    """Return how long after its line a job is due: drills are spread over a week."""
    if job.operation != "restore-drill":
        return timedelta(0)
    return drill_offset(job.source, longest_interval(job.line))


def _max_age(settings: Settings, operation: str, source: str) -> timedelta | None:
    """Return how old what a job renews may be."""
    if operation == "restore-drill":
        return settings.drill.max_age
    own = settings.databases.get(source) or settings.files.get(source)
    return own.max_age if own is not None and operation == "backup" else None


def _since(
    connection: Connection, wanted: Iterable[Job], now: datetime
) -> dict[Key, datetime]:
    """Return up to when each job is dealt with; note those that are new."""
    rows = query(
        connection,
        "SELECT operation, source, greatest(known_since, done_until) FROM turns",
    )
    since = {(operation, source): time for operation, source, time in rows}
    new = [job for job in wanted if job.key not in since]
    for job in new:
        since[job.key] = now - _NEW if job.operation == "backup" else now
    connection.execute(
        "INSERT INTO turns (operation, source, known_since)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[])",
        (
            [job.operation for job in new],
            [job.source for job in new],
            [since[job.key] for job in new],
        ),
    )
    return since


def _replaced(connection: Connection, due: Sequence[Turn]) -> list[tuple[Job, Missed]]:
    """Cancel runs that still wait when the next of the same job is due."""
    jobs_due = {each.job.key: each.job for each in due}
    rows = query(
        connection,
        """
        SELECT o, s, (args->>'due')::timestamptz,
               procrastinate_cancel_job_v1(id, false, false)
        FROM procrastinate_jobs, unnest(%s::text[], %s::text[]) AS d (o, s)
        WHERE status = 'todo' AND args->>'operation' = o AND args->>'source' = s""",
        [operation for operation, _source in jobs_due],
        [source for _operation, source in jobs_due],
    )
    return [
        (jobs_due[operation, source], Missed(first=at, last=at, number=1))
        for operation, source, at, _id in rows
    ]


def _advance(connection: Connection, due: Sequence[Turn]) -> None:
    """Note up to when jobs are dealt with."""
    connection.execute(
        """
        UPDATE turns SET done_until = greatest(done_until, due), failures = 0
        FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS d (o, s, due)
        WHERE operation = o AND source = s""",
        (
            [each.job.operation for each in due],
            [each.job.source for each in due],
            [each.at for each in due],
        ),
    )


def defer(connection: Connection, settings: Settings, due: Sequence[Turn]) -> None:
    """Put runs into the queue, in the transaction of the connection."""
    if due:
        manager = JobManager(SyncPsycopgConnector())
        manager.batch_defer_jobs(
            [_queued(each, label(settings, each.job)) for each in due], connection
        )


def _queued(turn: Turn, queue: str) -> QueuedJob:
    job, due = turn.job, turn.at.isoformat()
    arguments: dict[str, Any] = {
        "operation": job.operation,
        "source": job.source,
        "due": due,
        "version": VERSION,
    }
    return QueuedJob(
        queue=queue,
        # What is about all sources runs one after the other.
        lock=job.source or job.operation,
        queueing_lock=f"{job.operation} {job.source} {due}",
        task_name=TASK,
        task_kwargs=arguments,
    )


def _forget(connection: Connection) -> None:
    """Delete what is over for long."""
    connection.execute(
        "DELETE FROM procrastinate_jobs j WHERE status NOT IN ('todo', 'doing')"
        " AND NOT EXISTS (SELECT FROM procrastinate_events e WHERE e.job_id = j.id"
        " AND e.at > now() - make_interval(days => %s))",
        (_KEPT_DAYS,),
    )
    connection.execute("DELETE FROM workers WHERE seen_at < now() - interval '1 day'")
