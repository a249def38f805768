"""Figures of the page and the reports: days, curves, and the forecast of a restore."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.watch import figures
from tests.unit.states import NOW, Records, source_state

BERLIN = ZoneInfo("Europe/Berlin")


def test_the_worst_run_of_a_day_decides() -> None:
    """A failure is not hidden by the success that followed."""
    records = Records()
    records.add(NOW, "backup", "failed", source="shop")
    records.add(NOW, "backup", "missed", source="shop")
    records.add(NOW, "backup", source="shop")
    records.add(NOW - timedelta(days=1), "backup", "missed", source="shop")
    records.add(NOW - timedelta(days=1), "backup", source="shop")
    records.add(NOW - timedelta(days=2), "backup", source="shop")

    days = figures.calendar(records.entries, until=NOW.date(), zone=UTC)

    assert len(days) == figures.DAYS
    assert [each.state for each in days[-4:]] == ["none", "ok", "missed", "failed"]
    assert days[-1].label == "30 November 2026: 1 failed, 1 missed, 1 ok"
    assert days[-4].label == "27 November 2026: no run"


def test_a_day_is_one_of_the_timetable_s_zone() -> None:
    """What runs at half past midnight in Berlin is not of the day before."""
    records = Records()
    records.add(datetime(2026, 7, 1, 22, 30, tzinfo=UTC), "backup")

    days = figures.calendar(records.entries, until=date(2026, 7, 2), zone=BERLIN)

    assert [each.state for each in days[-2:]] == ["none", "ok"]


def test_runs_that_were_missed_count_on_the_days_when_they_were_due() -> None:
    """They are put on record together, when the scheduler is back."""
    records = Records()
    due = {
        "first": (NOW - timedelta(days=3)).isoformat(),
        "last": (NOW - timedelta(days=1)).isoformat(),
        "number": 3,
    }
    records.add(NOW, "backup", "missed", due=due)

    days = figures.calendar(records.entries, until=NOW.date(), zone=UTC)

    states = [each.state for each in days[-5:]]
    assert states == ["none", "missed", "missed", "missed", "none"]


@pytest.mark.parametrize(
    "due", [None, [], "yesterday", {"first": 3}, {"first": "x"}, {"last": "2026-11-30"}]
)
def test_a_missed_run_without_due_times_counts_when_it_was_recorded(
    due: object,
) -> None:
    """Whatever a record holds, the page is shown."""
    records = Records()
    records.add(NOW, "backup", "missed", due=due)

    days = figures.calendar(records.entries, until=NOW.date(), zone=UTC)

    assert days[-1].state == "missed"


@pytest.mark.parametrize(
    ("outcome", "details", "state"),
    [
        ("ok", {}, "ok"),
        ("ok", {"failed_stores": []}, "ok"),
        ("ok", {"failed_stores": ["offsite"]}, "failed"),
        ("ok", {"passed": False}, "failed"),
        ("ok", {"passed": True}, "ok"),
        ("interrupted", {}, "failed"),
        ("missed", {}, "missed"),
    ],
)
def test_success_is_everything_that_was_asked_for(
    outcome: str, details: dict[str, Any], state: str
) -> None:
    """A set that is missing in one store, or a drill that did not pass, is none."""
    entry = Records().add(NOW, "backup", outcome, **details)

    assert figures.outcome_of(entry) == state


def test_a_success_rate_is_never_rounded_up_to_all() -> None:
    """Of 2,000 runs one that failed is one that failed."""
    records = Records()
    for number in range(2000):
        records.add(NOW, "backup", "ok" if number else "missed")

    assert (
        figures.in_words(figures.tally(records.entries))
        == "99.9 % of 2000 runs succeeded"
    )
    assert (
        figures.in_words(figures.tally(records.entries[1:]))
        == "100 % of 1999 runs succeeded"
    )
    assert figures.in_words({}) == "no runs"


def test_sizes_of_deleted_sets_come_from_the_ledger() -> None:
    """Retention keeps few sets; the curve shows every backup, each once."""
    records = Records()
    for number in (40, 20, 1):
        records.add(
            NOW - timedelta(days=number),
            "backup",
            seconds=10.0 + number,
            source="shop",
            backup_id=f"shop-{number}",
            stores=["local"],
            size_bytes=1000 * number,
        )
    source = source_state("shop", records.entries)
    assert len(source.sets) == 2

    made = figures.backups(source.runs, source.sets)

    assert [each.size_bytes for each in made] == [40_000, 20_000, 1000]
    assert [each.seconds for each in made] == [50, 30, 11]


@given(
    st.lists(
        st.tuples(st.floats(0, 90), st.floats(1, 1e15)),
        min_size=2,
        max_size=40,
    )
)
def test_a_curve_stays_inside_its_drawing(values: list[tuple[float, float]]) -> None:
    """Whatever the values: flat ones, one of them far above the others."""
    since = NOW - timedelta(days=90)
    times = [(since + timedelta(days=at), value) for at, value in sorted(values)]

    drawn = figures.curve(times, since=since, until=NOW)

    assert drawn is not None
    assert all(0 <= x <= drawn.width for x, _ in drawn.points)
    assert all(0 <= y <= drawn.height for _, y in drawn.points)


def test_a_curve_ends_where_its_time_does_when_clocks_change() -> None:
    """A month with an hour more is no wider."""
    since = datetime(2026, 10, 1, tzinfo=BERLIN)
    until = datetime(2026, 10, 31, tzinfo=BERLIN)
    values = [(since.astimezone(UTC), 1.0), (until.astimezone(UTC), 2.0)]

    drawn = figures.curve(values, since=since, until=until)

    assert drawn is not None
    assert [x for x, _ in drawn.points] == [0, drawn.width]


def test_a_curve_of_very_many_values_shows_each_extreme() -> None:
    """Of an hourly backup over ninety days: few points, and no spike is lost."""
    since = NOW - timedelta(days=90)
    values = [(since + timedelta(hours=each), 100.0) for each in range(2160)]
    values[777], values[1500] = (values[777][0], 200.0), (values[1500][0], 1.0)

    drawn = figures.curve(values, since=since, until=NOW)

    assert drawn is not None
    assert len(drawn.points) <= 330
    assert [x for x, _ in drawn.points] == sorted(x for x, _ in drawn.points)
    heights = [round(y, 1) for _, y in drawn.points]
    assert (heights.count(min(heights)), heights.count(max(heights))) == (1, 1)


def test_one_value_makes_no_curve() -> None:
    """Neither do values that are older than what is shown."""
    old = [(NOW - timedelta(days=91), 1.0), (NOW, 2.0)]

    assert figures.curve(old, since=NOW - timedelta(days=90), until=NOW) is None


def test_a_forecast_of_drills_on_a_line_is_on_that_line() -> None:
    """Ten seconds, and two for each gigabyte."""
    drills = [(size * 1e9, 10 + 2.0 * size) for size in range(1, 7)]

    expected = figures.forecast(drills, 20e9)

    assert expected is not None
    assert expected.seconds == pytest.approx(50)
    assert expected.low == pytest.approx(50)
    assert expected.high == pytest.approx(50)
    assert expected.drills == 6


def test_a_forecast_needs_enough_drills_of_different_sizes() -> None:
    """Nothing is shown rather than a guess."""
    few = [(size * 1e9, 10.0 + size) for size in range(4)]
    alike = [(1e9, 10.0 + number) for number in range(9)]

    assert figures.forecast(few, 9e9) is None
    assert figures.forecast(alike, 9e9) is None
    assert figures.forecast([], 9e9) is None


def test_the_range_of_a_forecast_holds_as_often_as_it_says() -> None:
    """Of restores that scatter around a line, 95 % take what was said of them."""
    chance = random.Random(7)
    inside = 0
    for _ in range(2000):
        drills = [
            (size * 1e9, 20 + 5 * size + chance.gauss(0, 3)) for size in range(1, 9)
        ]
        expected = figures.forecast(drills, 14e9)
        assert expected is not None
        measured = 20 + 5 * 14 + chance.gauss(0, 3)
        inside += expected.low <= measured <= expected.high

    assert 0.935 < inside / 2000 < 0.965


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (100, 1.984)]
)
def test_the_quantile_is_that_of_student_s_t(freedom: int, quantile: float) -> None:
    """As the tables have it."""
    assert figures._student(freedom) == pytest.approx(quantile, rel=0.01)


def test_sizes_go_on_growing_as_they_did() -> None:
    """By a line through the sizes; sizes of one week at least."""
    sizes = [
        (NOW - timedelta(days=each), 1e9 - each * 1e6) for each in (40, 30, 20, 10, 0)
    ]

    later = figures.growth(sizes, at=NOW + timedelta(days=90))

    assert later == pytest.approx(1e9 + 90e6)
    assert figures.growth(sizes[-1:] * 9, at=NOW) is None
    assert figures.growth(sizes[:4], at=NOW) is None


def test_the_drawing_of_a_forecast_holds_every_drill_and_the_range() -> None:
    """Inside the drawing; the line goes to the size of the forecast."""
    drills = [(1e9 + size * 1e8, 30 + size + (-1.0) ** size) for size in range(8)]
    expected = figures.forecast(drills, 3e9)
    assert expected is not None

    drawn = figures.scatter(drills, expected, limit=35.0)

    assert len(drawn.points) == 8
    assert all(
        0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in drawn.points
    )
    assert (drawn.smallest, drawn.largest) == (1e9, 3e9)
    assert drawn.limit is not None
    assert figures.scatter(drills, expected, limit=1e6).limit is None


@pytest.mark.parametrize("value", [None, "7", float("nan"), float("inf"), -1, [1]])
def test_what_is_no_figure_counts_as_none(value: object) -> None:
    """A record may hold anything."""
    records = Records()
    records.add(NOW, "restore-drill", passed=True, size_bytes=value, rto_seconds=5.0)
    records.add(NOW, "restore-drill", passed=True, size_bytes=5, rto_seconds=value)

    assert figures.drilled(records.entries) == []
