"""The plan of a fleet: which job first, how long each takes, when all have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.nights import lower_bound
from opskit.config.cron import longest_interval
from opskit.config.fleet import FleetSettings
from opskit.fleet.plan import (
    UNKNOWN_SECONDS,
    Work,
    Worker,
    drill_offset,
    expected,
    forecast,
    priority,
)
from opskit.operations.schedule import Job
from opskit.scheduler.timetable import standing
from tests.unit.scheduled import moment, record

NO_CAPS = FleetSettings(per_server=1_000, per_store=1_000)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
WEEK = 7 * DAY

seconds = st.integers(0, 100)
works = st.builds(
    Work,
    source=st.sampled_from("abcdefgh"),
    seconds=seconds,
    label=st.sampled_from(["default", "eu", "us"]),
    server=st.sampled_from(["", "one", "two"]),
    stores=st.sampled_from([(), ("near",), ("near", "far")]),
    priority=st.integers(0, 5),
)
workers = st.builds(
    Worker,
    labels=st.sampled_from([(), ("default",), ("eu",), ("default", "eu", "us")]),
    capacity=st.integers(1, 3),
    running=st.lists(works, max_size=4).map(tuple),
)
caps = st.builds(
    FleetSettings, per_server=st.integers(1, 3), per_store=st.integers(1, 3)
)
EU, BOTH = Worker(labels=("eu",)), Worker(labels=("default", "eu"))


def of(source: str, seconds: float, priority: int = 0, **more: Any) -> Work:
    """Return a job."""
    return Work(source=source, seconds=seconds, priority=priority, **more)


def last(todo: Sequence[Work], some: Sequence[Worker], caps: FleetSettings) -> float:
    """Return when the last job ends that a worker takes."""
    return max(filter(None, forecast(todo, some, caps)), default=0.0)


def test_a_job_takes_as_long_as_its_last_good_run() -> None:
    """The fleet's own figures go before ledgers; a failed run says nothing."""
    night = moment("2026-03-10T02:00")
    ran = record("backup", night, source="shop")
    entries = [
        replace(ran, seconds=10.0),
        replace(ran, seconds=20.0),
        replace(ran, seconds=1.0, outcome="failed"),
        replace(record("backup", night, source="blog"), seconds=30.0),
        replace(record("backup", night, source="old"), seconds=None),
    ]
    wanted = [("backup", each) for each in ("shop", "blog", "old", "new")]

    assert expected(
        [*wanted, ("restore-drill", "shop")],
        seconds={("backup", "blog"): 40.0},
        entries=entries,
    ) == {
        ("backup", "shop"): 20.0,
        ("backup", "blog"): 40.0,
        ("backup", "old"): 30.0,  # the median of the two that are known
        ("backup", "new"): 30.0,
        ("restore-drill", "shop"): UNKNOWN_SECONDS,
    }


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 8), st.integers(0, 3), st.integers(0, 59)
        ),
        min_size=2,
        max_size=2,
    )
)
def test_the_order_of_priorities(pair: list[tuple[bool, int, int, int]]) -> None:
    """Overdue goes before risk, risk before length, in quarters of the objective."""
    of_each = [
        priority(
            overdue=overdue,
            age=quarters * HOUR + minutes * timedelta(minutes=1),
            max_age=4 * HOUR,
            seconds=taken,
        )
        for overdue, quarters, taken, minutes in pair
    ]
    ranks = [(overdue, quarters, taken) for overdue, quarters, taken, _ in pair]

    assert (of_each[0] > of_each[1]) == (ranks[0] > ranks[1])
    assert (of_each[0] == of_each[1]) == (ranks[0] == ranks[1])


@given(
    overdue=st.booleans(),
    age=st.none() | st.timedeltas(),
    max_age=st.none() | st.timedeltas(min_value=timedelta(0)),
    seconds=st.floats(-1e9, 1e12),
)
def test_every_priority_fits_into_an_integer_of_the_queue(
    overdue: bool, age: timedelta | None, max_age: timedelta | None, seconds: float
) -> None:
    """Whatever clocks and ledgers say."""
    found = priority(overdue=overdue, age=age, max_age=max_age, seconds=seconds)

    assert 0 <= found < 2**31
    assert (found >= 1_000_000) == overdue


def test_what_was_never_backed_up_is_most_at_risk() -> None:
    """It goes before the oldest set there may be; what has no objective goes last."""
    by_age = [
        priority(overdue=False, age=age, max_age=DAY, seconds=seconds)
        for age, seconds in ((None, 1), (999 * DAY, 0), (DAY, 5), (timedelta(0), 5))
    ]
    without = priority(overdue=False, age=None, max_age=None, seconds=4)

    assert [*by_age, without] == sorted([*by_age, without], reverse=True)


@pytest.mark.parametrize("line", ["0 4 * * 0", "0 4 * * *", "30 * * * *"])
@given(source=st.text(min_size=1), start=st.integers(0, 7 * 24 * 60))
def test_every_source_is_drilled_once_an_interval(
    line: str, source: str, start: int
) -> None:
    """With a clock that is behind by the offset, the timetable says when."""
    interval = longest_interval(line)
    job = Job(operation="restore-drill", source=source, line=line, zone=ZoneInfo("UTC"))
    offset = drill_offset(source, interval)
    began = job.next_due(moment("2026-03-01T00:00") + timedelta(minutes=start))
    since, drills = began - timedelta(minutes=1), []
    for step in range(8 * 5):
        now = began + step * interval / 8
        due = standing(job, since=since, now=now - offset, grace=interval)
        if due is not None:
            assert due.missed is None
            since = due.at or since
            drills.append(int((now - began) / interval))

    assert timedelta(0) <= offset < interval
    # The last eighth is cut off, as the clock was read at steps alone.
    assert drills in ([0, 1, 2, 3, 4], [1, 2, 3, 4])


def test_drills_are_spread_over_the_week() -> None:
    """Each day gets its share of many sources, and the offset stays the same."""
    offsets = [drill_offset(f"db{number}", WEEK) for number in range(1_400)]
    days = Counter(each // DAY for each in offsets)

    assert drill_offset("db0", WEEK) == timedelta(hours=7, minutes=5)
    assert sorted(days) == list(range(7))
    assert max(days.values()) < 1.25 * 200
    assert min(days.values()) > 0.75 * 200


@given(st.lists(works, max_size=30), st.lists(workers, max_size=5), caps)
def test_no_forecast_is_below_the_lower_bound(
    todo: list[Work], some: list[Worker], caps: FleetSettings
) -> None:
    """With every cap, label and job that runs already."""
    assert last(todo, some, caps) >= lower_bound(todo, some, caps)


@given(st.lists(seconds, max_size=60), st.lists(st.integers(1, 4), min_size=1))
def test_a_forecast_without_caps_is_at_most_twice_the_lower_bound(
    taken: list[int], capacities: list[int]
) -> None:
    """As list scheduling is, in whatever order."""
    todo = [Work(source=f"db{n}", seconds=each) for n, each in enumerate(taken)]
    some = [Worker(capacity=each) for each in capacities]

    assert last(todo, some, NO_CAPS) <= 2 * lower_bound(todo, some, NO_CAPS)


@pytest.mark.parametrize(
    ("todo", "some", "ends"),
    [
        ([], [Worker()], []),
        ([of("a", 5), of("b", 7)], [Worker(capacity=2)], [5, 7]),
        ([of("a", 5), of("a", 7)], [Worker(capacity=2)], [5, 12]),
        # The longest first, as its priority says: 8 beside 4 and 4.
        ([of("a", 4), of("b", 4), of("c", 8, 8)], [Worker(capacity=2)], [4, 8, 8]),
        ([of("a", 4, 1), of("b", 4, 1), of("c", 8)], [Worker(capacity=2)], [4, 4, 12]),
        # Two at a time for one server, two for one store.
        ([of(e, 5, server="s") for e in "abc"], [Worker(capacity=3)], [5, 5, 10]),
        ([of(e, 5, stores=("s",)) for e in "abc"], [Worker(capacity=3)], [5, 5, 10]),
        ([of(e, 5, server=e) for e in "abc"], [Worker(capacity=3)], [5, 5, 5]),
        # Jobs that wait for their server leave the third slot to the others.
        (
            [*(of(e, 5, 1, server="s") for e in "abcd"), of("e", 10)],
            [Worker(capacity=3)],
            [5, 5, 10, 10, 10],
        ),
        # Labels: one worker alone may do it, none may, or several.
        ([of("a", 5, label="eu"), of("b", 5, label="eu")], [EU, Worker()], [5, 10]),
        ([of("a", 5), of("b", 5, label="us")], [EU, Worker()], [5, None]),
        ([of("a", 5), of("b", 5)], [BOTH, Worker()], [5, 5]),
        # What runs: on a worker that takes more, and on one that drains.
        ([of("a", 5)], [Worker(running=(of("b", 3),))], [8]),
        ([of("a", 5)], [Worker(capacity=2, running=(of("a", 3),))], [8]),
        ([of("a", 5)], [Worker(labels=(), running=(of("b", 30),)), Worker()], [5]),
        ([of("a", 5)], [Worker(labels=(), running=(of("a", 30),)), Worker()], [35]),
        ([of("a", 5)], [Worker(running=(of("b", 3), of("c", 4)))], [8]),
    ],
)
def test_when_each_job_ends(
    todo: list[Work], some: list[Worker], ends: list[float | None]
) -> None:
    """Each job starts as soon as it may, in the order of priorities."""
    assert forecast(todo, some, FleetSettings(per_server=2, per_store=2)) == ends


@pytest.mark.parametrize(
    ("todo", "some", "bound"),
    [
        ([], [], 0),
        ([of("a", 9), of("b", 3), of("c", 3)], [Worker(capacity=2)], 9),
        ([of("a", 5), of("b", 5), of("c", 5)], [Worker(capacity=2)], 7.5),
        ([of("a", 5), of("a", 5)], [Worker(capacity=2)], 10),
        ([of(each, 6, server="s") for each in "abc"], [Worker(capacity=3)], 9),
        ([of(each, 6, stores=("s",)) for each in "abc"], [Worker(capacity=3)], 9),
        ([of("a", 5, label="eu"), of("b", 6, label="eu")], [EU, Worker()], 11),
        ([of("a", 5), of("b", 9, label="us")], [EU, Worker()], 5),
        ([of("a", 4), of("b", 4, label="eu")], [BOTH, Worker(labels=())], 8),
    ],
)
def test_the_lower_bound(todo: list[Work], some: list[Worker], bound: float) -> None:
    """The busiest source, server, store or label, or all workers together."""
    assert lower_bound(todo, some, FleetSettings(per_server=2, per_store=2)) == bound
