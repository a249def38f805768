"""Simulated nights: when the work of a fleet ends, beside a lower bound."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from itertools import pairwise, product
from random import Random
from statistics import median

from benchmarks.options import Options, Part
from benchmarks.picture import curves
from benchmarks.report import RESULTS
from benchmarks.rounds import say
from benchmarks.tables import markdown
from opskit.config.fleet import FleetSettings
from opskit.fleet.plan import Work, Worker, forecast, priority

DATABASES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
WORKERS = (1, 3, 10, 30, 100)
_TABLE = set(product((10, 100, 1_000, 10_000), (1, 10, 100)))
# One worker does one job at a time; the store may serve all of them.
CAPS = FleetSettings(per_server=2, per_store=max(WORKERS))
_A_SERVER = 10
_MB_MEDIAN, _MB_MAX, _SIGMA = 500.0, 1_000_000.0, 2.0
_FROM_NIGHT_TO_NIGHT = 0.2
_DAY = timedelta(days=1)
_HOUR = 3600.0
_ANY = ("any", "label")
_Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Night:
    """One night of so many databases and workers, in seconds.

    `longest_first` is what a fleet does; `by_name` is the same night without a plan.
    """

    databases: int
    workers: int
    at_least: float
    forecast: float
    longest_first: float
    by_name: float
    planning: float


def recorded() -> _Curve:
    """Return the seconds of a backup by MB in the dump, as the results hold them."""
    grown = json.loads((RESULTS / "curves.json").read_text())["curves"]["size"]
    large = json.loads((RESULTS / "backup.json").read_text())
    size_mb = float(large["machine"].partition(": ")[2].partition(" MB")[0])
    (ours,) = (e for e in large["backup"]["results"] if e["name"] == "opskit")
    seconds = median(each["seconds"] for each in ours["rounds"])
    return [*((x, y) for x, y in grown["opskit"]), (size_mb, seconds)]


def seconds_of(size_mb: float, curve: _Curve) -> float:
    """Return how long a backup takes, on straight lines between what was recorded."""
    found = curve[0][1]
    for (x1, y1), (x2, y2) in pairwise(curve):
        if size_mb > x1:
            found = y1 + (y2 - y1) / (x2 - x1) * (size_mb - x1)
    return found


def night(databases: int, workers: int, curve: _Curve, random: Random) -> Night:
    """Simulate one night; jobs are ordered by what the night before took."""
    sizes = [random.lognormvariate(0, _SIGMA) for _ in range(databases)]
    before = [seconds_of(min(_MB_MEDIAN * each, _MB_MAX), curve) for each in sizes]
    todo = [
        Work(
            source=f"db{number}",
            seconds=seconds,
            server=f"server{number // _A_SERVER}",
            stores=("store",),
            priority=priority(overdue=False, age=_DAY, max_age=_DAY, seconds=seconds),
        )
        for number, seconds in enumerate(before)
    ]
    fleet = [Worker()] * workers
    real = [
        replace(
            each, seconds=each.seconds * random.lognormvariate(0, _FROM_NIGHT_TO_NIGHT)
        )
        for each in todo
    ]
    began = time.perf_counter()
    expected = _end(todo, fleet)
    planning = time.perf_counter() - began
    return Night(
        databases=databases,
        workers=workers,
        at_least=lower_bound(real, fleet, CAPS),
        forecast=expected,
        longest_first=_end(real, fleet),
        by_name=_end([replace(each, priority=0) for each in real], fleet),
        planning=planning,
    )


def _end(todo: Sequence[Work], fleet: Sequence[Worker]) -> float:
    return max(filter(None, forecast(todo, fleet, CAPS)))


def lower_bound(
    todo: Iterable[Work], workers: Iterable[Worker], caps: FleetSettings
) -> float:
    """Return how many seconds the same work takes at least, in whatever order.

    Each label, source, server and store has its slots, and all workers together theirs.
    """
    slots: Counter[tuple[str, str]] = Counter()
    for worker in workers:
        places = [("label", each) for each in worker.labels]
        for place in [*places, _ANY] if places else []:
            slots[place] += max(worker.capacity, len(worker.running))
    sizes = {"source": 1, "server": caps.per_server, "store": caps.per_store}
    loads: defaultdict[tuple[str, str], float] = defaultdict(float)
    for each in todo:
        if slots["label", each.label]:
            for place in (_ANY, ("label", each.label), *each.places):
                loads[place] += each.seconds
    return max(
        (load / (slots[p] or sizes[p[0]]) for p, load in loads.items()), default=0.0
    )


def measure_nights(options: Options) -> Part:
    """Simulate nights of every number of databases and workers."""
    curve, found = recorded(), []
    for databases, workers in product(DATABASES, WORKERS):
        say(f"{databases:,} databases, {workers} workers")
        for number in range(options.rounds):
            random = Random(f"{databases} {number}")
            found.append(night(databases, workers, curve, random))
    return Part(
        name="nights",
        text=f"## Nights\n\n{_table(found)}",
        pictures={"nights": _picture(found)},
        data=[asdict(each) for each in found],
    )


def _of(found: Sequence[Night], databases: int, workers: int) -> list[Night]:
    return [e for e in found if (e.databases, e.workers) == (databases, workers)]


def _table(found: Sequence[Night]) -> str:
    head = [
        "databases", "workers", "hours, at least", "longest first", "by name",
        "of the forecast", "ms to forecast",
    ]  # fmt: skip
    rows = []
    for place in product(DATABASES, WORKERS):
        if place not in _TABLE:
            continue
        nights = _of(found, *place)
        rows.append(
            [
                *(f"{each:,}" for each in place),
                f"{median(each.at_least for each in nights) / _HOUR:.2f}",
                f"**{median(e.longest_first / e.at_least for e in nights):.2f}**",
                f"{median(e.by_name / e.at_least for e in nights):.2f}",
                f"{median(e.longest_first / e.forecast for e in nights):.2f}",
                f"{1000 * median(e.planning for e in nights):.0f}",
            ]
        )
    return markdown(head, rows)


def _picture(found: Sequence[Night]) -> str:
    lines, dashed = {}, {}
    for workers in WORKERS:
        nights = {each: _of(found, each, workers) for each in DATABASES}
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        lines[name] = [
            (x, median(each.longest_first for each in some) / _HOUR)
            for x, some in nights.items()
        ]
        dashed[name] = [
            (x, median(each.at_least for each in some) / _HOUR)
            for x, some in nights.items()
        ]
    title = "Hours until all databases are backed up; dashed: the lower bound"
    return curves(title, "databases", lines, dashed, unit=" h")
