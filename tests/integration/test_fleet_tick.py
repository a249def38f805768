"""What a tick puts into the queue of a fleet, by the clock of its database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from opskit.config import Settings
from opskit.config.cron import longest_interval
from opskit.fleet.plan import drill_offset
from opskit.fleet.tick import Ticker, defer
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import jobs
from tests.conftest import MakeDatabase
from tests.fleets import Fleet, at_once

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def fleet(make_database: MakeDatabase) -> Fleet:
    """A fleet without workers."""
    made = Fleet(make_database(script="SELECT 1"))
    made.init()
    return made


def _ago(time: timedelta) -> datetime:
    """Return the minute that began some time ago."""
    return (datetime.now(UTC) - time).replace(second=0, microsecond=0)


def _daily(due: datetime) -> str:
    """Return a line that is due at the time of day of a moment."""
    return f"{due.minute} {due.hour} * * *"


def _tick(
    fleet: Fleet, settings: Settings, ticker: Ticker | None = None
) -> dict[str, int]:
    """Tick, and return how many runs of each job will not be made up for."""
    missed: dict[str, int] = {}
    with fleet.session() as connection:
        for job, each in (ticker or Ticker()).tick(connection, settings):
            missed[job.name] = missed.get(job.name, 0) + each.number
    return missed


def _passes(fleet: Fleet, time: timedelta) -> None:
    """Have the fleet's past be longer ago, as if so much time had passed."""
    fleet.ask(
        "UPDATE turns SET known_since = known_since - %s, done_until = done_until - %s",
        time,
        time,
    )
    fleet.ask("UPDATE fleet SET ticked_at = ticked_at - %s", time)
    fleet.ask(
        "UPDATE procrastinate_jobs SET queueing_lock = queueing_lock || ' before',"
        " args = args || jsonb_build_object('due', (args->>'due')::timestamptz - %s)",
        time,
    )


def test_a_new_source_is_backed_up_the_same_night(fleet: Fleet) -> None:
    """Its last due time is made up for, at once and once; nothing was missed."""
    at = _ago(HOUR)
    settings = fleet.settings(
        {
            "daily": {"schedule": _daily(at)},
            # Not due again while this runs.
            "hourly": {"schedule": f"{_ago(HOUR / 4).minute} * * * *"},
            "never": {"schedule": ""},
        }
    )

    assert _tick(fleet, settings) == {}

    made = fleet.jobs("args->>'source', args->>'operation', status::text")
    assert sorted(made) == [
        ("daily", "backup", "todo"),
        ("hourly", "backup", "todo"),
    ]
    (due,) = fleet.ask(
        "SELECT args->>'due' FROM procrastinate_jobs WHERE args->>'source' = 'daily'"
    )
    assert datetime.fromisoformat(due) == at
    assert _tick(fleet, settings) == {}
    assert len(fleet.jobs()) == 2


def test_a_drill_that_is_new_waits_for_its_first_turn(fleet: Fleet) -> None:
    """There is no set yet."""
    settings = fleet.settings({"shop": {"schedule": ""}}, drill=_daily(_ago(HOUR)))

    _tick(fleet, settings)

    assert fleet.jobs() == []
    assert fleet.ask("SELECT operation, source FROM turns") == [
        ("restore-drill", "shop")
    ]


def test_nights_without_workers_are_made_up_for_once_for_each_source(
    fleet: Fleet,
) -> None:
    """The last of the due times is made up for, the others are reported."""
    at = _ago(HOUR)
    names = ("a", "b", "c")
    settings = fleet.settings({each: {"schedule": _daily(at)} for each in names})
    _tick(fleet, settings)
    fleet.ask("UPDATE procrastinate_jobs SET status = 'succeeded'")
    _passes(fleet, 3 * DAY)

    missed = at_once([partial(_tick, fleet, settings) for _ in range(4)])

    waiting = fleet.ask(
        "SELECT lock, args->>'due' FROM procrastinate_jobs WHERE status = 'todo'"
    )
    assert sorted(name for name, _due in waiting) == [*names]
    assert {datetime.fromisoformat(due) for _name, due in waiting} == {at}
    assert sorted(missed, key=len) == [
        {},
        {},
        {},
        {f"backup {name}": 2 for name in names},
    ]


def test_a_run_that_nobody_does_gives_way_to_the_next(fleet: Fleet) -> None:
    """Nights without a worker of a label do not pile up; what runs goes on."""
    settings = fleet.settings(
        {each: {"schedule": _daily(_ago(HOUR))} for each in ("waits", "runs")}
    )
    _tick(fleet, settings)
    worker = fleet.engine()
    fleet.ask(
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s"
        " WHERE lock = 'runs'",
        worker,
    )
    _passes(fleet, DAY)

    assert _tick(fleet, settings) == {"backup waits": 1}

    assert sorted(fleet.jobs("lock, status::text")) == [
        ("runs", "doing"),
        ("runs", "todo"),
        ("waits", "cancelled"),
        ("waits", "todo"),
    ]


def test_what_is_due_is_deferred_once_a_minute(fleet: Fleet) -> None:
    """Of several workers one does it; a clock that was set back stops nobody."""
    settings = fleet.settings({"shop": {"schedule": _daily(_ago(HOUR))}})
    ticker = Ticker()
    _tick(fleet, settings, ticker)
    assert ticker.has_ticked
    fleet.ask("DELETE FROM turns")
    fleet.ask("DELETE FROM procrastinate_jobs")

    _tick(fleet, settings, ticker)
    too_early = fleet.jobs()
    fleet.ask("UPDATE fleet SET ticked_at = now() + interval '1 hour'")
    _tick(fleet, settings, ticker)

    assert too_early == []
    assert fleet.jobs() == ["shop"]


def test_a_worker_looks_once_before_it_calls_the_queue_empty(fleet: Fleet) -> None:
    """Somebody has just ticked, before its own sources were due."""
    _tick(fleet, fleet.settings({}))
    settings = fleet.settings({"shop": {"schedule": _daily(_ago(HOUR))}})

    _tick(fleet, settings)

    assert fleet.jobs() == ["shop"]


def test_the_clock_of_the_queue_counts(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose own clock is wrong defers what is due there."""
    at = _ago(HOUR)

    class Wrong(datetime):
        """A clock that is two hours behind."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            """Return the wrong time."""
            return datetime.now(tz) - timedelta(hours=2)

    settings = fleet.settings({"shop": {"schedule": _daily(at)}})
    for module in ("fleet.tick", "scheduler.timetable", "config.cron"):
        monkeypatch.setattr(f"opskit.{module}.datetime", Wrong)

    _tick(fleet, settings)

    (due,) = fleet.jobs("args->>'due'")
    assert datetime.fromisoformat(due) == at


def test_a_changed_line_holds_from_now_on(fleet: Fleet) -> None:
    """What it would have asked for before was not missed, nor is it made up for."""
    at = _ago(HOUR)
    before = fleet.settings({"shop": {"schedule": _daily(_ago(3 * HOUR))}})
    _tick(fleet, before)
    after = fleet.settings({"shop": {"schedule": _daily(at)}})

    assert _tick(fleet, after) == {}
    assert len(fleet.jobs()) == 1
    assert fleet.ask("SELECT line FROM turns") == [jobs(after)[0].written]
    _passes(fleet, DAY - timedelta(minutes=30))
    _tick(fleet, after)

    *_first, due = fleet.jobs("args->>'due'")
    assert datetime.fromisoformat(due) == at


def test_two_lines_of_one_job_lose_no_run(fleet: Fleet) -> None:
    """While workers get a new configuration one by one, both lines are in use."""
    at = _ago(timedelta(minutes=1))
    old = fleet.settings({"shop": {"schedule": "0 0 1 1 *"}})
    new = fleet.settings({"shop": {"schedule": _daily(at)}})
    _tick(fleet, new)
    fleet.ask("DELETE FROM procrastinate_jobs")
    fleet.ask(
        "UPDATE turns SET done_until = NULL, known_since = %s",
        at - timedelta(seconds=30),
    )

    _tick(fleet, old)
    _tick(fleet, new)

    (due,) = fleet.jobs("args->>'due'")
    assert datetime.fromisoformat(due) == at


def test_drills_have_their_turns_over_the_week(fleet: Fleet) -> None:
    """Each has one a week, at a time of its own."""
    names = [f"source-{number}" for number in range(20)]
    line = "0 3 * * 0"
    settings = fleet.settings({each: {"schedule": ""} for each in names}, drill=line)
    _tick(fleet, settings)
    _passes(fleet, timedelta(days=7))

    assert _tick(fleet, settings) == {}

    drilled = dict(fleet.jobs("lock, args->>'due'"))
    assert sorted(drilled) == sorted(names)
    times = [datetime.fromisoformat(each) for each in drilled.values()]
    now = datetime.now(UTC)
    assert all(now - timedelta(days=7) < each <= now for each in times)
    assert len({each.date() for each in times}) >= 5
    for name, due in drilled.items():
        own = datetime.fromisoformat(due) - drill_offset(name, longest_interval(line))
        assert (own.weekday(), own.hour, own.minute) == (6, 3, 0)


def test_a_job_has_the_label_and_the_lock_of_its_source(fleet: Fleet) -> None:
    """Workers listen to labels; what is about all sources is for the default one."""
    settings = fleet.settings(
        {
            "here": {"schedule": _daily(_ago(HOUR))},
            "far": {"schedule": _daily(_ago(HOUR)), "label": "asia"},
        },
        prune=_daily(_ago(HOUR)),
    )
    _tick(fleet, settings)
    _passes(fleet, DAY)
    _tick(fleet, settings)

    waiting = fleet.ask(
        "SELECT queue_name, lock, args->>'operation' FROM procrastinate_jobs"
        " WHERE status = 'todo'"
    )
    assert sorted(waiting) == [
        ("asia", "far", "backup"),
        ("default", "here", "backup"),
        ("default", "prune", "prune"),
    ]


def test_the_most_urgent_is_first(fleet: Fleet) -> None:
    """First what needs no slot, then what is overdue, what is at risk, what is long."""
    at_risk = {"schedule": _daily(_ago(timedelta(0))), "max_age": "2h"}
    sources = {
        "quick": at_risk,
        "long": at_risk,
        "safe": at_risk | {"max_age": "400d"},
        "overdue": {"schedule": _daily(_ago(HOUR)), "max_age": "400d"},
    }
    settings = fleet.settings(sources, report=_daily(_ago(timedelta(0))))
    _tick(fleet, settings)
    fleet.ask("DELETE FROM procrastinate_jobs")
    fleet.ask("UPDATE turns SET seconds = 10, succeeded_at = now() - interval '1 day'")
    fleet.ask("UPDATE turns SET seconds = 900 WHERE source = 'long'")
    _passes(fleet, DAY)
    _tick(fleet, settings)

    worker = fleet.engine()
    order = []
    for _ in ("report", *sources):
        order += fleet.ask(
            "SELECT lock FROM procrastinate_fetch_job_v2('{default}', %s)", worker
        )
    assert order == ["report", "overdue", "long", "quick", "safe"]


def test_the_durations_of_before_come_from_the_ledger(fleet: Fleet) -> None:
    """A fleet that is new knows nothing itself."""
    line = {"schedule": _daily(_ago(HOUR))}
    settings = fleet.settings({"quick": line, "long": line})
    entries = [
        LedgerEntry(
            sequence=0, time="2026-03-01T00:00:00+00:00", run_id="run", previous="",
            operation="backup", outcome="ok", seconds=seconds,
            details={"source": name}, started_at="2026-03-01T00:00:00+00:00",
        )
        for name, seconds in (("quick", 2), ("long", 4000))
    ]  # fmt: skip

    _tick(fleet, settings, Ticker(entries))

    priorities = dict(fleet.jobs("lock, priority"))
    assert priorities["long"] - priorities["quick"] == 3998


def test_a_run_that_waits_already_is_not_put_there_twice(fleet: Fleet) -> None:
    """Somebody asks for all twice within a second."""
    settings = fleet.settings(
        {"a": {"schedule": "@daily"}, "b": {"schedule": "@daily"}}
    )
    now = datetime.now(UTC).replace(microsecond=0)
    turns = [(each, now) for each in jobs(settings)]

    with fleet.session() as connection:
        defer(connection, settings, turns[:1])
        defer(connection, settings, turns)
        defer(connection, settings, [])

    assert fleet.jobs() == ["a", "b"]


def test_a_run_that_goes_on_gets_no_twin(fleet: Fleet) -> None:
    """One that is put back could not wait beside the other, and both would stand."""
    settings = fleet.settings({"a": {"schedule": "@daily"}})
    turns = [(jobs(settings)[0], datetime.now(UTC).replace(microsecond=0))]

    with fleet.session() as connection:
        defer(connection, settings, turns)
        (number,) = fleet.ask(
            "SELECT id FROM procrastinate_fetch_job_v2('{default}', %s)", fleet.engine()
        )
        defer(connection, settings, turns)
        fleet.ask(
            "SELECT procrastinate_retry_job_v2(%s, now(), NULL, NULL, NULL)", number
        )

    assert fleet.jobs("id, status::text") == [(number, "todo")]


def test_what_is_long_over_is_forgotten(fleet: Fleet) -> None:
    """What waits is not, however long; nor what has just ended."""
    kept = [fleet.job(lock="a"), fleet.job(lock="b", status="succeeded")]
    fleet.job(lock="c", status="failed")
    old = "UPDATE procrastinate_events SET at = now() - interval '31 days'"
    fleet.ask(f"{old} WHERE job_id <> %s", kept[1])
    fleet.ask(
        "INSERT INTO procrastinate_events (job_id, type) VALUES (%s, 'succeeded')",
        kept[1],
    )

    _tick(fleet, fleet.settings({}))

    assert fleet.jobs("id") == kept
