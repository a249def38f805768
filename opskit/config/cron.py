"""Cron lines: which are valid, and when they come due, by cronsim; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

# crontab(5) has these names; cronsim knows the five fields alone.
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = 5
# Enough to see the longest pause of a line that repeats by the week or the month.
_LOOK_AHEAD = timedelta(days=400)
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def cron_fields(line: str) -> str:
    """Return the five fields of a cron line, which may be a name such as @daily."""
    return _MACROS.get(line.strip().lower(), line.strip())


def due_times(line: str, zone: ZoneInfo, *, after: datetime) -> Iterator[datetime]:
    """Yield when a line comes due after a time, in UTC, the earliest first.

    Where clocks change it is as Debian's cron has it: what is due in the hour that is
    left out is due right after it; what is due at a fixed hour that comes twice is due
    once; a line for every hour or minute follows the real time.
    """
    # Every comparison is in UTC: in one zone Python compares what the clocks show.
    after = after.astimezone(UTC)
    for time in CronSim(cron_fields(line), after.astimezone(zone)):
        if (due := time.astimezone(UTC)) > after:
            yield due


def next_due(line: str, zone: ZoneInfo, *, after: datetime) -> datetime:
    """Return when a line comes due for the first time after a time, in UTC."""
    return next(due_times(line, zone, after=after))


@lru_cache(maxsize=256)
def longest_interval(line: str) -> timedelta:
    """Return the longest time between two runs of a line, without clock changes."""
    minute, hour, *day = cron_fields(line).split()
    zone, start = ZoneInfo("UTC"), _ANY_DAY - timedelta(seconds=1)
    every_day = due_times(f"{minute} {hour} * * *", zone, after=start)
    times = [*takewhile(lambda each: each.date() == _ANY_DAY.date(), every_day)]
    longest = max((b - a for a, b in pairwise(times)), default=timedelta(0))
    for before, due in pairwise(due_times(f"0 0 {' '.join(day)}", zone, after=start)):
        longest = max(longest, due - before - (times[-1] - times[0]))
        if due > _ANY_DAY + _LOOK_AHEAD:
            break
    return longest


def _comes_due(line: str) -> str:
    """Refuse a line that cron does not know, or that never comes due."""
    fields = cron_fields(line)
    if not fields:
        return line
    if len(fields.split()) != _FIELDS:
        raise ValueError(
            f"a cron line has five fields, as in '0 9 * * *', or is one of "
            f"{', '.join(_MACROS)}"
        )
    try:
        next(CronSim(fields, _ANY_DAY))
    except CronSimError as error:
        raise ValueError(f"not a cron line: {error}") from None
    except StopIteration:
        raise ValueError("a cron line that never comes due") from None
    return line


CronLine = Annotated[str, AfterValidator(_comes_due)]
