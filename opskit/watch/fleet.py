"""Fleet: what its queue's database says of workers, jobs and sources at one time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from opskit.checks import Check, count, duration, some

# A dead one gives no sign of life any more. It may do what is overdue by itself if it
# cannot reach the queue.
STATES = ("working", "draining", "clock-off", "dead")


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One worker, in one of the `STATES`."""

    name: str
    host: str
    version: str
    labels: Sequence[str]
    capacity: int
    seen_seconds: float
    clock_offset_seconds: float
    state: str
    reason: str = ""

    @property
    def is_well(self) -> bool:
        """Whether nobody has to look at it."""
        return self.state in ("working", "draining")


@dataclass(frozen=True, kw_only=True)
class Doing:
    """A job that runs now, called as people call it."""

    name: str
    label: str
    worker: str
    since: datetime | None


@dataclass(frozen=True, kw_only=True)
class Failing:
    """A job whose last runs failed, and how many did."""

    name: str
    failures: int


@dataclass(frozen=True, kw_only=True)
class GoneSource:
    """A source that its rule does not give any more; its sets stay."""

    name: str
    rule: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class FleetState:
    """What the queue's database says; without an answer, what it said last.

    `labels` has the label of each source, `todo` the jobs that wait by label, and `due`
    is how many more are due while no worker puts them into the queue. `ends_at` is when
    all work that is due will be done, `late` the jobs that will end after their next
    due time. `rules` says what is wrong with each of [discover], if anything is.
    """

    error: str = ""
    hint: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    todo: Mapping[str, int] = field(default_factory=dict)
    due: int = 0
    doing: tuple[Doing, ...] = ()
    failing: tuple[Failing, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    ends_at: datetime | None = None
    late: tuple[str, ...] = ()
    gone: tuple[GoneSource, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)

    @property
    def at_work(self) -> list[WorkerState]:
        """The workers that take jobs."""
        return [each for each in self.workers if each.state == "working"]

    @property
    def serving(self) -> dict[str, int]:
        """How many workers serve each label that a source or a job has."""
        wanted = sorted({*self.labels.values(), *self.todo})
        return {name: sum(name in e.labels for e in self.at_work) for name in wanted}

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `fleet-status --json`."""
        known = asdict(self) | {"serving": self.serving}
        known["ends_at"] = _text(self.ends_at)
        for each in (*known["doing"], *known["gone"]):
            each["since"] = _text(each["since"])
        return known


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def checks(fleet: FleetState) -> Iterator[Check]:
    """Yield how a fleet is; its workers and jobs only while the queue answers."""
    yield Check(
        name="fleet: queue",
        passed=not fleet.error,
        observed=fleet.error or "answers",
        hint=fleet.hint,
    )
    if not fleet.error or fleet.labels or fleet.gone:
        yield from _of_sources(fleet)
    if not fleet.error:
        yield from _of_workers(fleet)
        yield from _of_queue(fleet)


def _of_sources(fleet: FleetState) -> Iterator[Check]:
    gone = [f"{e.name} (rule {e.rule}, {e.since:%Y-%m-%d})" for e in fleet.gone]
    yield Check(
        name="fleet: gone sources",
        passed=not gone,
        observed=some(gone),
        hint="See who removed the databases. If that is right, confirm each: "
        "`inv fleet-status --confirm-gone NAME`. Their sets stay.",
        advisory=True,
    )
    failing = [fault for fault in fleet.rules.values() if fault]
    yield Check(
        name="fleet: rules",
        passed=not failing,
        observed=some(failing, "; ") if failing else "nothing is wrong with them",
        hint="Databases that are new are not found. `inv doctor` asks each rule of "
        "[discover].",
        advisory=True,
    )


def _of_workers(fleet: FleetState) -> Iterator[Check]:
    waiting = fleet.due + sum(fleet.todo.values())
    yield Check(
        name="fleet: workers",
        passed=bool(fleet.at_work) or not waiting,
        observed=f"{count(len(fleet.at_work), 'worker')} at work, "
        f"{count(waiting, 'job waits', 'jobs wait')}",
        hint="Start a worker: `inv fleet-worker`.",
    )
    left = [
        f"{label} ({count(fleet.todo[label], 'job waits', 'jobs wait')})"
        for label, workers in fleet.serving.items()
        if fleet.at_work and not workers and fleet.todo.get(label)
    ]
    yield Check(
        name="fleet: labels without a worker",
        passed=not left,
        observed=some(left),
        hint="Start a worker for each: `inv fleet-worker --label NAME`.",
    )
    bad = [
        f"{each.name}: {each.state}{', ' if each.reason else ''}{each.reason}, seen "
        f"{duration(each.seen_seconds)} ago"
        for each in fleet.workers
        if not each.is_well
    ]
    yield Check(
        name="fleet: state of workers",
        passed=not bad,
        observed=some(bad, "; ") if bad else "none needs attention",
        hint="Look at their logs; other workers with their labels do their jobs "
        "meanwhile. One that is dead for a day is no longer shown.",
        advisory=True,
    )


def _of_queue(fleet: FleetState) -> Iterator[Check]:
    failing = [
        f"{each.name} ({count(each.failures, 'time')})" for each in fleet.failing
    ]
    yield Check(
        name="fleet: failing jobs",
        passed=not failing,
        observed=some(failing),
        hint="The log of the worker says why, as does `inv ledger` on its host. Or try "
        "it here: `inv backup --database NAME`.",
        advisory=True,
    )
    ends = f"{fleet.ends_at:%Y-%m-%d %H:%M} UTC" if fleet.ends_at else "nothing is due"
    late = f"; due again before: {some(fleet.late)}" if fleet.late else ""
    yield Check(
        name="fleet: end of the work",
        passed=not fleet.late,
        observed=f"{ends}{late}",
        expected="before a job is due again",
        hint="Start more workers, or raise their --capacity, and per_server and "
        "per_store of [fleet].",
        advisory=True,
    )
