"""Tick: once a minute, one worker puts what is due into the queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from opskit.config import Settings
from opskit.config.cron import longest_interval
from opskit.fleet.plan import FIRST, drill_offset, expected, priority
from opskit.fleet.queue import LOCK_CLASS, TASK, VERSION
from opskit.fleet.slots import WITHOUT_CAPS
from opskit.fleet.sources import with_known
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import Job, Key, jobs
from opskit.postgres.connect import Connection, query, query_value
from opskit.scheduler.timetable import Missed, standing

_EVERY = timedelta(seconds=55)
# A source that is new has had its last night's run missed.
_NEW = timedelta(days=1)
# A line that was changed holds from now on, and for what was just due by it.
_CHANGED = timedelta(minutes=10)
# However late: a night without workers is made up for.
_GRACE = timedelta(days=10_000)
_KEPT_DAYS = 30
# A run that waits for longer was made up for, or the night is short.
_OVERDUE = timedelta(minutes=10)
# A run of a job, for a due time.
Turn = tuple[Job, datetime]


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
        self._next: dict[Key, tuple[str, datetime, datetime]] = {}
        self.has_ticked = False

    def tick(
        self, connection: Connection, settings: Settings
    ) -> list[tuple[Job, Missed]]:
        """Defer what is due; return the runs that will not be made up for.

        Nothing is done if another worker has just done so, except for the first time
        in each. What is deferred, and that it was, is one transaction.
        """
        with connection.transaction():
            is_mine = query_value(
                connection, "SELECT pg_try_advisory_xact_lock(%s, 1)", LOCK_CLASS
            )
            ((now, ticked),) = query(
                connection, "SELECT clock_timestamp(), ticked_at FROM fleet"
            )
            # A time that is ahead is of a clock that was set back since.
            is_fresh = ticked is not None and timedelta(0) <= now - ticked < _EVERY
            if not is_mine or (is_fresh and self.has_ticked):
                return []
            settings = with_known(connection, settings)
            wanted = jobs(settings)
            since, new = _since(connection, wanted, now)
            due, missed = self._due(wanted, since, now)
            missed = [each for each in missed if each[0].key not in new]
            missed += _replaced(connection, due)
            _advance(connection, due)
            defer(connection, settings, due)
            self._prioritize(connection, settings, now)
            connection.execute("UPDATE fleet SET ticked_at = %s", (now,))
            # All jobs of a month are looked at: once an hour is often enough.
            if ticked is None or ticked.hour != now.hour:
                _forget(connection)
        self.has_ticked = True
        return missed

    def _due(
        self, wanted: Sequence[Job], since: Mapping[Key, datetime], now: datetime
    ) -> tuple[list[Turn], list[tuple[Job, Missed]]]:
        turns, gone = [], []
        for job in wanted:
            done = since[job.key]
            line, dealt_with, next_due = self._next.get(job.key, ("", done, now))
            if (line, dealt_with) == (job.written, done) and next_due > now:
                continue
            later = offset(job)
            due = standing(job, since=done - later, now=now - later, grace=_GRACE)
            if due is None or due.at is None:
                next_due = job.next_due(now - later) + later
                self._next[job.key] = (job.written, done, next_due)
                continue
            turns.append((job, due.at + later))
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
            FIRST
            if operation in WITHOUT_CAPS
            else priority(
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
    """Return how long after its line a job is due: drills are spread out."""
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
) -> tuple[dict[Key, datetime], set[Key]]:
    """Return up to when each job is dealt with, and those that are new or changed."""
    rows = query(
        connection,
        "SELECT operation, source, line, greatest(known_since, done_until) FROM turns",
    )
    lines = {(operation, source): line for operation, source, line, _time in rows}
    since = {(operation, source): time for operation, source, _line, time in rows}
    new = [job for job in wanted if lines.get(job.key) != job.written]
    for job in new:
        if job.key in since:
            since[job.key] = max(since[job.key], now - _CHANGED)
        else:
            since[job.key] = now - _NEW if job.operation == "backup" else now
    connection.execute(
        "INSERT INTO turns (operation, source, line, known_since)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[])"
        " ON CONFLICT (operation, source) DO UPDATE SET line = excluded.line,"
        " known_since = excluded.known_since",
        (
            [job.operation for job in new],
            [job.source for job in new],
            [job.written for job in new],
            [since[job.key] for job in new],
        ),
    )
    return since, {job.key for job in new}


def _replaced(connection: Connection, due: Sequence[Turn]) -> list[tuple[Job, Missed]]:
    """Cancel runs that still wait when the next of the same job is due."""
    jobs_due = {job.key: job for job, _at in due}
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
        for operation, source, at, cancelled in rows
        if cancelled is not None  # or it has just begun
    ]


def _advance(connection: Connection, due: Sequence[Turn]) -> None:
    """Note up to when jobs are dealt with."""
    connection.execute(
        """
        UPDATE turns SET done_until = greatest(done_until, due), failures = 0
        FROM unnest(%s::text[], %s::text[], %s::timestamptz[]) AS d (o, s, due)
        WHERE operation = o AND source = s""",
        (
            [job.operation for job, _at in due],
            [job.source for job, _at in due],
            [at for _job, at in due],
        ),
    )


def defer(connection: Connection, settings: Settings, due: Sequence[Turn]) -> None:
    """Put runs into the queue, unless they wait there already, or go on.

    Of two jobs for one due time neither could begin: one that goes on could not be put
    back beside one that waits.
    """
    connection.execute(
        """
        INSERT INTO procrastinate_jobs
            (task_name, queue_name, lock, queueing_lock, args)
        SELECT %s, label, coalesce(nullif(source, ''), operation),
            concat_ws(' ', operation, source, due),
            jsonb_build_object('operation', operation, 'source', source, 'due', due,
                               'version', %s)
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
            AS turn (label, operation, source, due)
        WHERE NOT EXISTS (
            SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')
            AND queueing_lock = concat_ws(' ', operation, source, due))
        ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING""",
        (
            TASK,
            VERSION,
            [label(settings, job) for job, _at in due],
            [job.operation for job, _at in due],
            [job.source for job, _at in due],
            [at.isoformat() for _job, at in due],
        ),
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
