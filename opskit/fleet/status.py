"""Status: how the fleet is, as its queue's database says it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from opskit.config import Settings
from opskit.errors import DatabaseError
from opskit.fleet import plan
from opskit.fleet.queue import require_schema, session
from opskit.fleet.slots import caps
from opskit.fleet.sources import confirm_gone, with_known
from opskit.fleet.tick import offset
from opskit.ledger import LedgerEntry
from opskit.operations.doctor import Examined, judge
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.operations.schedule import Key, jobs
from opskit.postgres.connect import Connection, query, query_value, records
from opskit.watch.fleet import Doing, Failing, FleetState, GoneSource, WorkerState
from opskit.watch.gathering import Fleet, Gathering
from opskit.watch.health import checks
from opskit.watch.state import State, losses

_Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FleetStatus(Examined):
    """Everything that is watched, and the fleet."""

    state: State

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        fleet = self.state.fleet or FleetState()
        sources = [
            {
                "source": each.source.name,
                "label": fleet.labels.get(each.source.name),
                "newest": each.newest and each.newest.backup_id,
                "proof": each.newest and each.newest.proof,
                "proven": each.proven and each.proven.backup_id,
                "lost_seconds": each.seconds,
            }
            for each in losses(self.state.sources, now=self.state.time)
        ]
        return super().as_json() | {"fleet": fleet.as_json(), "sources": sources}


def status(run: Run) -> Outcome[FleetStatus]:
    """Examine everything that is watched, and the fleet.

    Raises:
        ConfigurationError: there is no queue, or no fleet in it.
    """
    with run.recorded("fleet-status") as record:
        with suppress(DatabaseError), session(run.settings.fleet, "status") as queue:
            require_schema(queue)
        state = Gathering(run, watched(run.settings))()
        made = checks(state, run.settings)
        try:
            judge(record, made)
        finally:
            record.result = FleetStatus(checks=tuple(made), state=state)
    return record.outcome


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """A source of which somebody says that it is gone for good."""

    source: str

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"confirmed": self.source}


def confirm(run: Run, name: str) -> Outcome[Confirmed]:
    """Have a source that is gone reported no more; its sets stay.

    Raises:
        UsageError: it is none that is gone.
    """
    with run.recorded("fleet-status", name) as record:
        with session(run.settings.fleet, "status") as connection:
            require_schema(connection)
            with connection.transaction():
                confirm_gone(connection, name)
                record.begin(source=name)
        record.result = Confirmed(source=name)
    return record.outcome


def watched(settings: Settings) -> Fleet:
    """Return how a `Gathering` asks about the fleet."""

    def ask(entries: Sequence[LedgerEntry]) -> tuple[Settings, FleetState]:
        with session(settings.fleet, "status") as connection:
            require_schema(connection)
            known = with_known(connection, settings)
            return known, read(connection, known, entries)

    return ask


def read(
    connection: Connection, settings: Settings, entries: Sequence[LedgerEntry]
) -> FleetState:
    """Return how the fleet is; the settings have every source that it knows.

    The entries are of a ledger, for how long jobs take that the queue does not know.
    """
    said = _Said(connection, settings)
    state = said.state()
    if not state.at_work:
        return replace(state, due=said.due())
    return said.forecast(state, entries)


class _Said:
    """What the queue's database says at one time."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._settings = settings
        self._now: datetime = query_value(connection, "SELECT clock_timestamp()")
        self._timetable = {each.key: each for each in jobs(settings)}
        self._turns = records(connection, "SELECT * FROM turns")
        self._sources = records(connection, "SELECT * FROM sources ORDER BY name")
        rules = query(connection, "SELECT name, fault FROM rules ORDER BY name")
        self._rules: dict[str, str] = dict(rules)
        # How to reach what was found is not known here: one rule asks one server.
        self._servers = {
            each["name"]: each["rule"]
            if (rule := settings.discover.get(each["rule"])) and not rule.file
            else ""
            for each in self._sources
        }
        self._workers = records(
            connection,
            """
            SELECT id, name, host, version, labels, capacity, reason,
                   extract(epoch FROM clock_timestamp() - seen_at)::float8
                       AS seen_seconds,
                   CASE WHEN seen_at < clock_timestamp() - %s THEN 'dead'
                       ELSE state END AS state, clock_offset AS clock_offset_seconds
            FROM workers ORDER BY name, id""",
            settings.fleet.dead_after,
        )
        self._queued = records(
            connection,
            """
            SELECT status::text, queue_name AS label, priority, w.id AS worker,
                   w.name, args->>'operation' AS operation, args->>'source' AS source,
                   (args->>'due')::timestamptz AS due,
                   (SELECT max(at) FROM procrastinate_events e
                    WHERE e.job_id = j.id AND e.type = 'started') AS since
            FROM procrastinate_jobs j LEFT JOIN workers w ON w.engine = j.worker_id
            WHERE status IN ('todo', 'doing') ORDER BY priority DESC, j.id""",
        )

    def state(self) -> FleetState:
        """Return all but what is to come."""
        known = self._settings
        labels = {name: each.label for name, each in known.databases.items()}
        labels |= {name: each.label for name, each in known.files.items()}
        waiting = (e["label"] for e in self._queued if e["status"] == "todo")
        return FleetState(
            labels=labels,
            todo=Counter(waiting),
            doing=tuple(
                Doing(
                    name=_name(each),
                    label=each["label"],
                    worker=each["name"] or "",
                    since=each["since"],
                )
                for each in self._queued
                if each["status"] == "doing"
            ),
            failing=tuple(
                Failing(name=_name(each), failures=each["failures"])
                for each in self._turns
                if each["failures"] and _key(each) in self._timetable
            ),
            workers=tuple(
                WorkerState(**{key: each[key] for key in each if key != "id"})
                for each in self._workers
            ),
            rules=self._rules,
            gone=tuple(
                GoneSource(
                    name=each["name"], rule=each["rule"], since=each["gone_since"]
                )
                for each in self._sources
                if each["gone_since"]
            ),
        )

    def due(self) -> int:
        """Return how many jobs are due and not in the queue."""
        number = 0
        for each in self._turns:
            if (job := self._timetable.get(_key(each))) is not None:
                later = offset(job)
                since = max(filter(None, (each["known_since"], each["done_until"])))
                number += job.next_due(since - later) + later <= self._now
        return number

    def forecast(self, state: FleetState, entries: Sequence[LedgerEntry]) -> FleetState:
        """Return the state with when all that is due will have been done."""
        seconds = plan.expected(
            map(_key, self._queued),
            seconds={_key(e): e["seconds"] for e in self._turns if e["seconds"]},
            entries=entries,
        )
        alive = {each["id"] for each in self._workers if each["state"] != "dead"}
        running: defaultdict[object, list[plan.Work]] = defaultdict(list)
        todo: list[tuple[_Row, plan.Work]] = []
        for each in self._queued:
            work = self._work(each, seconds[_key(each)])
            if each["status"] == "doing" and each["worker"] in alive:
                running[each["worker"]].append(work)
            else:
                todo.append((each, work))
        ends = plan.forecast(
            [work for _row, work in todo],
            [
                plan.Worker(
                    labels=tuple(each["labels"]) if each["state"] == "working" else (),
                    capacity=each["capacity"],
                    running=tuple(running[each["id"]]),
                )
                for each in self._workers
            ],
            self._settings.fleet,
        )
        last = [work.seconds for works in running.values() for work in works]
        last += [end for end in ends if end is not None]
        late = (
            _name(each)
            for (each, _work), end in zip(todo, ends, strict=True)
            if end is not None and self._is_late(each, end)
        )
        ends_at = self._now + timedelta(seconds=max(last)) if last else None
        return replace(state, ends_at=ends_at, late=tuple(late))

    def _work(self, row: _Row, seconds: float) -> plan.Work:
        """Return a job of the queue as the plan sees it."""
        if row["status"] == "doing" and row["since"]:
            seconds = max(0.0, seconds - (self._now - row["since"]).total_seconds())
        job = self._timetable.get(_key(row))
        places = caps(self._settings, job) if job else {}
        server = next((each for each in places if each.startswith("server ")), "")
        return plan.Work(
            source=row["source"] or row["operation"],
            seconds=seconds,
            label=row["label"],
            server=server and self._servers.get(row["source"], server),
            stores=tuple(each for each in places if each.startswith("store ")),
            priority=row["priority"],
        )

    def _is_late(self, row: _Row, end: float) -> bool:
        """Return whether a job is due again before it will have ended."""
        job = self._timetable.get(_key(row))
        if job is None:
            return False
        later = offset(job)
        again = job.next_due(row["due"] - later) + later
        return self._now + timedelta(seconds=end) > again


def _key(row: _Row) -> Key:
    return (row["operation"], row["source"])


def _name(row: _Row) -> str:
    return f"{row['operation']} {row['source']}".strip()
