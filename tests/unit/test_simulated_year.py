"""A year of the scheduler with a clock of its own: no run is missed, none is double."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from random import Random
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from opskit.scheduler.timetable import wake_up
from tests.unit.scheduled import Scheduler, timetable


@pytest.mark.parametrize(
    ("zone", "line"),
    [
        ("Europe/Berlin", "@hourly"),
        ("Europe/Berlin", "30 2 * * *"),
        ("Australia/Sydney", "0 1-3 * * *"),
        ("Australia/Sydney", "30 2 * * *"),
        ("America/Santiago", "20,50 0-1 * * *"),
    ],
)
def test_a_year(zone: str, line: str) -> None:
    """Every due time of cronsim's has exactly one run, whenever the process wakes."""
    random = Random(2026)
    wanted = timetable(
        line,
        zone=zone,
        verify="0 3 * * 0",
        drill="30 2 * * 7",
        prune="30 9 * * *",
        report="0 0 1 * *",
    )
    begin, end = (
        datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )
    scheduler = Scheduler(wanted, begin)
    now = begin
    while now < end:
        scheduler.catch_up(now)
        if random.random() < 0.2:
            scheduler.restart()
        due = wake_up(wanted, now=now)
        assert due is not None
        # It wakes when something is due or a little later, and sometimes in between.
        late = timedelta(seconds=random.random() * 20)
        now = random.choice([due, due + late, due + late, now + (due - now) / 3])

    for job in wanted:
        fields = {"@hourly": "0 * * * *"}.get(job.line, job.line)
        times = CronSim(fields, begin.astimezone(ZoneInfo(zone)))
        expected = [
            *takewhile(
                lambda each: each < end, (each.astimezone(UTC) for each in times)
            )
        ]
        ran = [each.at for each in scheduler.started if each.job == job]
        assert expected == ran[: len(expected)]
        assert len(ran) - len(expected) in (0, 1)  # the one at the very end
    assert scheduler.reported == []
