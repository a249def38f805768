"""Figures: a calendar of days, curves, and how long a restore will take.

Pure: of ledger records and numbers alone.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import groupby, pairwise
from typing import ClassVar, Literal

from opskit.catalog.sets import ListedSet
from opskit.checks import count
from opskit.ledger import LedgerEntry
from opskit.watch.state import SourceState, figure, missed_runs

DAYS = 90
DayState = Literal["ok", "failed", "missed", "none"]
# The worst of several runs on one day decides.
_WORST_FIRST: tuple[DayState, ...] = ("failed", "missed", "ok")
_DRILLS_MIN = 5
_CONFIDENCE = 0.95
_BLOCKS = "▁▂▃▄▅▆▇█"
_BLOCKS_MAX = 60
_CLOSE = 2.0


def outcome_of(entry: LedgerEntry) -> DayState:
    """Return whether a run did all that it was for.

    A set that a store lacks, or a drill that did not pass, is no success.
    """
    if entry.outcome == "missed":
        return "missed"
    incomplete = entry.details.get("failed_stores") or (
        entry.details.get("passed") is False
    )
    return "ok" if entry.outcome == "ok" and not incomplete else "failed"


def tally(entries: Iterable[LedgerEntry]) -> Counter[DayState]:
    """Count runs by how they ended; a record may be of several missed ones."""
    counts: Counter[DayState] = Counter()
    for each in entries:
        counts[outcome_of(each)] += missed_runs(each)
    return counts


def in_words(counts: Mapping[DayState, int]) -> str:
    """Return how many runs there were and what share succeeded."""
    total = sum(counts.values())
    if not total:
        return "no runs"
    # Rounded down: only all of them are 100 %.
    percent = math.floor(1000 * counts.get("ok", 0) / total) / 10
    return f"{percent:g} % of {count(total, 'run')} succeeded"


@dataclass(frozen=True, kw_only=True)
class Day:
    """One day of a calendar, with how many runs ended how."""

    date: date
    counts: Counter[DayState]

    @property
    def state(self) -> DayState:
        """How the worst run of the day ended."""
        return next((each for each in _WORST_FIRST if self.counts.get(each)), "none")

    @property
    def label(self) -> str:
        """What the day was like, in words."""
        parts = [
            f"{self.counts[each]} {each}"
            for each in _WORST_FIRST
            if self.counts.get(each)
        ]
        return f"{self.date:%-d %B %Y}: {', '.join(parts) or 'no run'}"


def calendar(
    runs: Iterable[LedgerEntry],
    sets: Iterable[ListedSet] = (),
    *,
    until: date,
    zone: tzinfo | None,
    days: int = DAYS,
) -> tuple[Day, ...]:
    """Return the days up to one, the oldest first, with the runs of each.

    Sets that no record tells of were made by other hosts.
    """
    first = until - timedelta(days=days - 1)
    counts: dict[date, Counter[DayState]] = {
        first + timedelta(days=number): Counter() for number in range(days)
    }
    on_record = set()
    for run in runs:
        on_record.add(str(run.details.get("backup_id")))
        theirs = _days_of(run, zone)
        for day in theirs & counts.keys():
            counts[day][outcome_of(run)] += missed_runs(run) // len(theirs) or 1
    for each in sets:
        day = each.started_at.astimezone(zone).date()
        if each.backup_id not in on_record and day in counts:
            counts[day]["ok"] += 1
    return tuple(Day(date=day, counts=ended) for day, ended in counts.items())


def began(entry: LedgerEntry) -> datetime:
    """Return when a run began; version 0.1 recorded only when it ended."""
    return _time(entry.started_at) or datetime.fromisoformat(entry.time)


def _time(text: object) -> datetime | None:
    """Return a time that a record holds, if it is one."""
    with suppress(TypeError, ValueError):
        at = datetime.fromisoformat(text)  # type: ignore[arg-type]
        return at if at.tzinfo else None
    return None


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What one backup came to; the set may be gone by now."""

    at: datetime
    size_bytes: float = 0.0
    seconds: float = 0.0


def backups(runs: Iterable[LedgerEntry], sets: Iterable[ListedSet]) -> list[Backup]:
    """Return the backups of a source that were stored, the oldest first.

    From the sets that exist, also of other hosts, and from records of those that do
    not any more.
    """
    made: dict[str, Backup] = {}
    for run in runs:
        if run.details.get("backup_id"):
            made[str(run.details["backup_id"])] = Backup(
                at=began(run),
                size_bytes=number(run, "size_bytes"),
                seconds=figure(run.seconds) or 0.0,
            )
    for each in sets:
        made[each.backup_id] = Backup(
            at=each.started_at,
            size_bytes=each.size_bytes,
            seconds=(each.finished_at - each.started_at).total_seconds(),
        )
    return sorted(made.values(), key=lambda each: each.at)


def largest_age(
    made: Sequence[Backup], *, since: datetime, until: datetime
) -> float | None:
    """Return how many seconds of data could have been lost at the worst moment.

    That is the age of the newest backup right before the next one was done, or at the
    end. None where the first backup came later.
    """
    ages = [
        (min(after.at + timedelta(seconds=after.seconds), until) - before.at)
        for before, after in pairwise([*made, Backup(at=until)])
        if after.at >= since and before.at <= until
    ]
    return max(ages).total_seconds() if ages else None


def drilled(runs: Iterable[LedgerEntry]) -> list[tuple[float, float]]:
    """Return the size and the restore's seconds of each drill that passed."""
    passed = [
        (number(run, "size_bytes"), number(run, "rto_seconds"))
        for run in runs
        if run.operation == "restore-drill" and run.details.get("passed") is True
    ]
    return [(size, seconds) for size, seconds in passed if size and seconds]


def number(entry: LedgerEntry, key: str) -> float:
    """Return a figure of a record, 0 where it has none."""
    return figure(entry.details.get(key)) or 0.0


def _days_of(entry: LedgerEntry, zone: tzinfo | None) -> set[date]:
    """Return the day of a run, or the days on which missed ones were due."""
    due = entry.details.get("due")
    bounds = [due.get("first"), due.get("last")] if isinstance(due, dict) else []
    times = [at for at in map(_time, bounds) if at] or [began(entry)]
    first, last = (at.astimezone(zone).date() for at in (min(times), max(times)))
    number_of_days = min((last - first).days, DAYS)
    return {last - timedelta(days=each) for each in range(number_of_days + 1)}


Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values over time, scaled to a drawing of this size, and what they lie between."""

    width: ClassVar[float] = 320
    height: ClassVar[float] = 56
    points: tuple[Point, ...]
    newest: float
    lowest: float
    highest: float

    @property
    def line(self) -> str:
        """The points as SVG writes them."""
        return _points(self.points)

    @property
    def blocks(self) -> str:
        """The same as a line of text."""
        heights = [1 - y / self.height for _, y in self.points]
        step = max(1, math.ceil(len(heights) / _BLOCKS_MAX))
        return "".join(_BLOCKS[int(each * 7.999)] for each in heights[::step])

    @property
    def area(self) -> str:
        """The same, closed along the base."""
        (first, _), (last, _) = self.points[0], self.points[-1]
        base = f"{self.height:.1f}"
        return f"{first:.1f},{base} {self.line} {last:.1f},{base}"


def curve(
    values: Iterable[tuple[datetime, float]], *, since: datetime, until: datetime
) -> Curve | None:
    """Return a curve of at least two values, known ones; the oldest come first."""
    shown = [(at, value) for at, value in values if since <= at <= until and value]
    if len(shown) < 2:
        return None
    lowest, highest = (find(value for _, value in shown) for find in (min, max))
    # A small change looks small: the drawing begins below the lowest value.
    base = max(0.0, lowest - (highest - lowest))
    # Between two times of one zone, Python would leave out a change of the clocks.
    span = until.timestamp() - since.timestamp()
    points = tuple(
        (
            Curve.width * (at - since).total_seconds() / span,
            Curve.height - (Curve.height - 3) * _share(value, base, highest) - 1.5,
        )
        for at, value in shown
    )
    return Curve(
        points=tuple(_visible(points)),
        newest=shown[-1][1],
        lowest=lowest,
        highest=highest,
    )


@dataclass(frozen=True, kw_only=True)
class BackupHistory:
    """The backups of a source in a period, by day and as curves.

    `backups` are all that were stored, also before the period.
    """

    backups: Sequence[Backup]
    days: Sequence[Day]
    sizes: Curve | None
    durations: Curve | None

    @property
    def counts(self) -> Counter[DayState]:
        """How many backups of the period there are, by how they ended."""
        return sum((each.counts for each in self.days), Counter())


def backup_history(
    source: SourceState, *, since: datetime, until: datetime
) -> BackupHistory:
    """Return the backups of a source; the days are those of the times' zone."""
    runs = [each for each in source.runs if each.operation == "backup"]
    made = backups(runs, source.sets)
    sizes = [(each.at, each.size_bytes) for each in made]
    durations = [(each.at, each.seconds) for each in made]
    return BackupHistory(
        backups=made,
        days=calendar(
            runs,
            source.sets,
            until=until.date(),
            zone=until.tzinfo,
            days=(until.date() - since.date()).days + 1,
        ),
        sizes=curve(sizes, since=since, until=until),
        durations=curve(durations, since=since, until=until),
    )


def _visible(points: Iterable[Point]) -> Iterator[Point]:
    """Yield the highest and the lowest of the points that would lie on each other."""
    for _, close in groupby(points, key=lambda point: point[0] // _CLOSE):
        several = list(close)
        extremes = {find(several, key=lambda point: point[1]) for find in (min, max)}
        yield from sorted(extremes)


def _share(value: float, lowest: float, highest: float) -> float:
    return (value - lowest) / (highest - lowest) if highest > lowest else 0.5


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How long a restore will take at some size, with the range it will lie in."""

    size_bytes: float
    seconds: float
    low: float
    high: float
    drills: int


def forecast(
    drills: Sequence[tuple[float, float]], size_bytes: float
) -> Forecast | None:
    """Return what drills, each a size and its seconds, say of another size.

    The range is that of a single restore (95 %), by a straight line through the drills.
    None where there are too few drills, or all are of sets of one size.
    """
    number = len(drills)
    sizes = [size for size, _ in drills]
    if number < _DRILLS_MIN or len(set(sizes)) < 3:
        return None
    slope, intercept = statistics.linear_regression(sizes, [s for _, s in drills])
    mean = statistics.fmean(sizes)
    spread = sum((size - mean) ** 2 for size in sizes)
    residue = sum((s - intercept - slope * size) ** 2 for size, s in drills)
    error = math.sqrt(residue / (number - 2))
    margin = (
        _student(number - 2)
        * error
        * math.sqrt(1 + 1 / number + (size_bytes - mean) ** 2 / spread)
    )
    seconds = max(0.0, intercept + slope * size_bytes)
    return Forecast(
        size_bytes=size_bytes,
        seconds=seconds,
        low=max(0.0, seconds - margin),
        high=seconds + margin,
        drills=number,
    )


def _student(freedom: int) -> float:
    """Return the quantile of Student's t for the range, from that of the normal one.

    By the first terms of Cornish and Fisher: within one percent from 3 on.
    """
    z = statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Drills as points by size and seconds, the line through them, and its range."""

    width: ClassVar[float] = 320
    height: ClassVar[float] = 84
    points: tuple[Point, ...]
    line: str
    band: str
    limit: float | None
    smallest: float
    largest: float


def scatter(
    drills: Sequence[tuple[float, float]], expected: Forecast, *, limit: float | None
) -> Scatter:
    """Return a drawing of what a forecast rests on, up to its size."""
    sizes = [size for size, _ in drills] + [expected.size_bytes]
    smallest, largest = min(sizes), max(sizes)
    steps = [smallest + (largest - smallest) * step / 16 for step in range(17)]
    along = [each for size in steps if (each := forecast(drills, size))]
    top = max(each.high for each in along)

    def place(size: float, seconds: float) -> Point:
        x = 4 + (Scatter.width - 8) * _share(size, smallest, largest)
        height = (Scatter.height - 6) * min(1.0, seconds / top)
        return x, Scatter.height - 3 - height

    low = [place(each.size_bytes, each.low) for each in reversed(along)]
    return Scatter(
        points=tuple(place(*each) for each in drills),
        line=_points(place(each.size_bytes, each.seconds) for each in along),
        band=_points([*(place(each.size_bytes, each.high) for each in along), *low]),
        limit=place(smallest, limit)[1] if limit and limit <= top else None,
        smallest=smallest,
        largest=largest,
    )


def _points(points: Iterable[Point]) -> str:
    """Return points as SVG writes them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def growth(sizes: Sequence[tuple[datetime, float]], *, at: datetime) -> float | None:
    """Return the size at a later time, by a straight line through the sizes so far.

    None where they cover less than a week.
    """
    if len(sizes) < _DRILLS_MIN or sizes[-1][0] - sizes[0][0] < timedelta(days=7):
        return None
    start = sizes[0][0]
    days = [(time - start).total_seconds() for time, _ in sizes]
    slope, intercept = statistics.linear_regression(days, [size for _, size in sizes])
    return max(0.0, intercept + slope * (at - start).total_seconds())
