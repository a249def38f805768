"""Plan: in which order jobs run, how long they take, when all have ended; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from statistics import median

from opskit.config.fleet import FleetSettings
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import Key

# What a job is expected to take if no job of its kind has ever run.
UNKNOWN_SECONDS = 60.0
_RISK_MAX, _SECONDS_MAX = 9, 99_999
# Above all other priorities: of what is short, and waits for no slot.
FIRST = 2 * (_RISK_MAX + 1) * (_SECONDS_MAX + 1)
_MINUTE = timedelta(minutes=1)
# What has slots: a label, a source, a server or a store, and its name.
_Place = tuple[str, str]


def expected(
    wanted: Iterable[Key],
    *,
    seconds: Mapping[Key, float],
    entries: Iterable[LedgerEntry] = (),
) -> dict[Key, float]:
    """Return how many seconds each job is expected to take.

    It takes as long as its last run that went well: by `seconds`, or else by the
    records of ledgers, the oldest first. A job that has none takes the median of its
    operation.
    """
    known = {
        (each.operation, each.source): each.seconds
        for each in entries
        if each.outcome == "ok" and each.seconds is not None
    } | dict(seconds)
    by_operation: defaultdict[str, list[float]] = defaultdict(list)
    for (operation, _source), each in known.items():
        by_operation[operation].append(each)
    usual = {operation: median(each) for operation, each in by_operation.items()}
    return {
        key: known.get(key, usual.get(key[0], UNKNOWN_SECONDS)) for key in set(wanted)
    }


def priority(
    *,
    overdue: bool,
    age: timedelta | None,
    max_age: timedelta | None,
    seconds: float,
) -> int:
    """Return the priority of a job; the queue takes the highest first.

    Jobs that are overdue come first, then those whose objective is at risk, then those
    that take longest. The risk is the age of what the job renews, in quarters of what
    it may be: no `age` means that there is nothing yet, no `max_age` that the job has
    no objective.
    """
    if max_age is None:
        risk = 0
    elif age is None:
        risk = _RISK_MAX
    else:
        risk = min(max(age // max(max_age / 4, _MINUTE), 0), _RISK_MAX)
    length = min(max(int(seconds), 0), _SECONDS_MAX)
    return (overdue * (_RISK_MAX + 1) + risk) * (_SECONDS_MAX + 1) + length


def drill_offset(source: str, interval: timedelta) -> timedelta:
    """Return how long after the common due time of all drills a source has its own.

    It is always the same and shorter than the interval, so that each source is drilled
    once in each interval and the drills of many sources are spread over it.
    """
    number = int.from_bytes(sha256(source.encode()).digest()[:4])
    return timedelta(minutes=number * (interval // _MINUTE) >> 32)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job as the plan sees it: how long it takes, and what it occupies meanwhile.

    The seconds of a job that runs already are those that are left.
    """

    source: str
    seconds: float
    label: str = "default"
    server: str = ""
    stores: tuple[str, ...] = ()
    priority: int = 0

    @property
    def places(self) -> list[_Place]:
        """What it occupies a slot of, beside the worker's."""
        servers = [("server", self.server)] if self.server else []
        stores = [("store", each) for each in self.stores]
        return [("source", self.source), *servers, *stores]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker; one that takes no more jobs has no labels, but ends those it runs."""

    labels: tuple[str, ...] = ("default",)
    capacity: int = 1
    running: tuple[Work, ...] = ()


def forecast(
    todo: Sequence[Work], workers: Iterable[Worker], caps: FleetSettings
) -> list[float | None]:
    """Return in how many seconds each job ends if each starts as soon as it may.

    A job waits for a slot of a worker that has its label, for the other jobs of its
    source, and for a slot of its server and of each of its stores. None if no worker
    has its label.
    """
    pools = _Pools(workers, caps)
    ends: list[float | None] = [None] * len(todo)
    by_priority = sorted(enumerate(todo), key=lambda each: -each[1].priority)
    for number, work in by_priority:
        if own := pools["label", work.label]:
            ends[number] = pools.occupy(own, work)
    return ends


class _Slot:
    free_at = 0.0


class _Pools(dict[_Place, list[_Slot]]):
    """The slots of each place; a slot of a worker belongs to each of its labels."""

    def __init__(self, workers: Iterable[Worker], caps: FleetSettings) -> None:
        super().__init__()
        self._sizes = {"source": 1, "server": caps.per_server, "store": caps.per_store}
        for worker in workers:
            own = [_Slot() for _ in range(max(worker.capacity, len(worker.running)))]
            for label in worker.labels:
                self["label", label] += own
            for each in worker.running:
                self.occupy(own, each)

    def __missing__(self, place: _Place) -> list[_Slot]:
        self[place] = [_Slot() for _ in range(self._sizes.get(place[0], 0))]
        return self[place]

    def occupy(self, own: list[_Slot], work: Work) -> float:
        """Take a slot of a worker and of each place, as soon as there is one of all.

        Of those that are free then it is the one that was free last: another job may
        begin earlier in the others.
        """
        pools = [own, *(self[place] for place in work.places)]
        start = max(min(slot.free_at for slot in pool) for pool in pools)
        end = start + work.seconds
        for pool in pools:
            free = [slot for slot in pool if slot.free_at <= start]
            max(free, key=lambda slot: slot.free_at).free_at = end
        return end
