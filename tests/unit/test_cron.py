"""Cron lines: what they mean, and when they come due where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from opskit.config.cron import due_times, longest_interval
from opskit.config.watch import SchedulerSettings

BERLIN, SYDNEY = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Sydney")


def local(line: str, zone: ZoneInfo, after: str, number: int) -> list[str]:
    """Return the next due times as the clocks of the zone show them, with offset."""
    start = datetime.fromisoformat(after).replace(tzinfo=zone)
    return [
        f"{each.astimezone(zone):%a %m-%dT%H:%M%z}"
        for each in islice(due_times(line, zone, after=start), number)
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 9 * * 0", ["Sun 01-04T09:00+0000", "Sun 01-11T09:00+0000"]),
        ("0 9 * * 7", ["Sun 01-04T09:00+0000", "Sun 01-11T09:00+0000"]),
        ("0 9 * * 1", ["Mon 01-05T09:00+0000", "Mon 01-12T09:00+0000"]),
        ("0 9 * * sun", ["Sun 01-04T09:00+0000", "Sun 01-11T09:00+0000"]),
        # Either of the two is enough: the 3rd, or a Monday.
        ("0 9 3 * 1", ["Sat 01-03T09:00+0000", "Mon 01-05T09:00+0000"]),
        ("0 9 3 * *", ["Sat 01-03T09:00+0000", "Tue 02-03T09:00+0000"]),
        ("*/20 9 * * *", ["Thu 01-01T09:00+0000", "Thu 01-01T09:20+0000"]),
        ("@hourly", ["Thu 01-01T09:00+0000", "Thu 01-01T10:00+0000"]),
        ("@daily", ["Fri 01-02T00:00+0000", "Sat 01-03T00:00+0000"]),
        ("@midnight", ["Fri 01-02T00:00+0000", "Sat 01-03T00:00+0000"]),
        (" @Weekly ", ["Sun 01-04T00:00+0000", "Sun 01-11T00:00+0000"]),
        ("@monthly", ["Sun 02-01T00:00+0000", "Sun 03-01T00:00+0000"]),
        ("@yearly", ["Fri 01-01T00:00+0000", "Sat 01-01T00:00+0000"]),
        ("@annually", ["Fri 01-01T00:00+0000", "Sat 01-01T00:00+0000"]),
    ],
)
def test_what_a_line_means(line: str, expected: list[str]) -> None:
    """Days, weekdays and names are those of crontab(5)."""
    SchedulerSettings(drill=line)

    assert expected == local(line, ZoneInfo("UTC"), "2026-01-01T08:59", 2)


@pytest.mark.parametrize(
    ("zone", "line", "after", "expected"),
    [
        # Berlin leaves out 02:00 to 03:00 on 29 March 2026.
        (BERLIN, "30 2 * * *", "2026-03-28T12:00",
         ["Sun 03-29T03:00+0200", "Mon 03-30T02:30+0200"]),
        (BERLIN, "15,45 2 * * *", "2026-03-28T12:00",
         ["Sun 03-29T03:00+0200", "Mon 03-30T02:15+0200"]),
        (BERLIN, "@hourly", "2026-03-29T00:30",
         ["Sun 03-29T01:00+0100", "Sun 03-29T03:00+0200", "Sun 03-29T04:00+0200"]),
        # 02:00 to 03:00 comes twice on 25 October.
        (BERLIN, "30 2 * * *", "2026-10-24T12:00",
         ["Sun 10-25T02:30+0200", "Mon 10-26T02:30+0100"]),
        (BERLIN, "@hourly", "2026-10-25T01:30",
         ["Sun 10-25T02:00+0200", "Sun 10-25T02:00+0100", "Sun 10-25T03:00+0100"]),
        # Sydney leaves out 02:00 to 03:00 on 4 October, and repeats it on 5 April.
        (SYDNEY, "30 2 * * *", "2026-10-03T12:00",
         ["Sun 10-04T03:00+1100", "Mon 10-05T02:30+1100"]),
        (SYDNEY, "30 2 * * *", "2026-04-04T12:00",
         ["Sun 04-05T02:30+1100", "Mon 04-06T02:30+1000"]),
        (SYDNEY, "@hourly", "2026-04-05T01:30",
         ["Sun 04-05T02:00+1100", "Sun 04-05T02:00+1000", "Sun 04-05T03:00+1000"]),
    ],
)  # fmt: skip
def test_due_times_where_clocks_change(
    zone: ZoneInfo, line: str, after: str, expected: list[str]
) -> None:
    """A fixed time is due once a day; a line for every hour follows the real time."""
    assert expected == local(line, zone, after, len(expected))


def test_nothing_is_due_before_the_time_that_is_asked_for() -> None:
    """In an hour that comes twice, the second time does not bring back the first."""
    second = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time

    assert [datetime(2026, 10, 26, 1, 30, tzinfo=UTC)] == list(
        islice(due_times("30 2 * * *", BERLIN, after=second), 1)
    )


@pytest.mark.parametrize(
    ("line", "hours"),
    [
        ("* * * * *", 1 / 60),
        ("@hourly", 1),
        ("0 9 * * *", 24),
        ("0 9 * * 1-5", 72),
        ("*/5 8-17 * * 1-5", 62 + 1 / 12),
        ("* 9-17 * * 1-5", 63 + 1 / 60),
        ("*/10 * 1 * *", 30 * 24 + 1 / 6),
        ("0,30 0 * * *", 23.5),
        ("0 6 1 * *", 31 * 24),
        ("0 0 29 2 *", (4 * 365 + 1) * 24),
    ],
)
def test_the_longest_interval_of_a_line(line: str, hours: float) -> None:
    """It is the longest pause between two runs, as over a weekend."""
    assert timedelta(hours=hours) == longest_interval(line)
