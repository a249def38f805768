"""The timetable: what is due, what was missed, and what may run beside what."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from opskit.config import Settings
from opskit.errors import OutOfTime
from opskit.ledger import Ledger
from opskit.operations.run import Run
from opskit.operations.schedule import SCHEDULER, history, jobs
from opskit.scheduler.jobs import Ended
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import standing
from tests.unit.scheduled import GRACE, Scheduler, moment, record, timetable

NOON = moment("2026-03-10T12:00")
HOUR = timedelta(hours=1)


def test_the_jobs_of_a_configuration() -> None:
    """Each source has its backup and its drill; an empty line switches a job off."""
    wanted = timetable("0 2 * * *", drill="0 4 * * 0", report="0 6 1 * *")

    assert [(each.name, each.arguments) for each in wanted] == [
        ("backup shop", ("--database", "shop")),
        ("restore-drill shop", ("--database", "shop")),
        ("report", ("--month",)),
    ]


@pytest.mark.parametrize(
    ("url", "line", "due"),
    [
        ("https://app.example", None, "12:00"),
        ("https://app.example", "15 * * * *", "11:15"),
        ("https://app.example", "", ""),
        ("", None, ""),
    ],
)
def test_a_service_is_asked_every_hour(url: str, line: str | None, due: str) -> None:
    """Unless there is none, or its line is empty."""
    scheduler = {} if line is None else {"smoke": line}
    settings = Settings.model_validate({"smoke": {"url": url}, "scheduler": scheduler})
    times = [
        f"{each.next_due(moment('2026-03-10T11:00')):%H:%M}"
        for each in jobs(settings)
        if each.operation == "smoke"
    ]

    assert times == ([due] if due else [])


@pytest.mark.parametrize(
    ("now", "at", "missed"),
    [
        ("2026-03-10T01:59", None, None),
        ("2026-03-10T02:00", "2026-03-10T02:00", None),
        ("2026-03-10T14:00", "2026-03-10T02:00", None),
        # Too late: it will not be made up for.
        ("2026-03-10T14:01", None, ("2026-03-10T02:00", "2026-03-10T02:00", 1)),
        # Of several the last one is made up for.
        ("2026-03-13T02:10", "2026-03-13T02:00",
         ("2026-03-10T02:00", "2026-03-12T02:00", 3)),
        ("2026-03-13T20:00", None, ("2026-03-10T02:00", "2026-03-13T02:00", 4)),
    ],
)  # fmt: skip
def test_what_is_due_of_a_job(
    now: str, at: str | None, missed: tuple[str, str, int] | None
) -> None:
    """An overdue job runs once, up to the grace; every other run was missed."""
    (job,) = timetable("0 2 * * *")

    due = standing(job, since=moment("2026-03-09T02:00"), now=moment(now), grace=GRACE)

    assert (at and moment(at)) == (due and due.at)
    if missed is None:
        assert due is None or due.missed is None
    else:
        assert due is not None
        assert due.missed is not None
        assert (moment(missed[0]), moment(missed[1]), missed[2]) == (
            due.missed.first,
            due.missed.last,
            due.missed.number,
        )


@pytest.mark.parametrize(
    ("entry", "counts"),
    [
        (record("backup", NOON, source="shop"), True),
        (record("backup", NOON, source="shop", outcome="failed", code=40), True),
        (record("backup", NOON, source="shop", outcome="failed", code=11), False),
        (record("backup", NOON, source="shop", outcome="interrupted"), False),
        (record("backup", NOON, source="other"), False),
        (record("restore-drill", NOON, source="shop"), False),
        # A clock that was a month ahead must not switch a job off for that time.
        (record("backup", NOON + timedelta(days=30), source="shop"), False),
        (replace(record("backup", NOON, source="shop"), started_at="?"), False),
        (record("backup", NOON, source="shop", outcome="missed"), False),
        (record("backup", NOON, source="shop", outcome="missed",
                due={"last": NOON.isoformat()}), True),
    ],
)  # fmt: skip
def test_what_counts_as_a_run(entry: object, counts: bool) -> None:
    """A failure is a run; what was interrupted or found a lock held is still due."""
    (job,) = timetable("0 2 * * *")
    learnt = record(
        SCHEDULER, moment("2026-03-01T00:00"), lines={job.name: job.written}
    )

    known = history([learnt, entry], now=NOON + HOUR)  # type: ignore[list-item]

    assert known.since(job) == (NOON if counts else moment("2026-03-01T00:00:01"))


def test_a_line_counts_from_when_it_was_first_seen() -> None:
    """A new line, a changed one and one that was off begin anew; others go on."""
    (daily,) = timetable("0 2 * * *")
    (later,) = timetable("0 5 * * *")
    learnt = [
        record(SCHEDULER, moment(f"2026-03-0{day}T00:00"), lines=lines)
        for day, lines in (
            (1, {daily.name: daily.written}),
            (2, {daily.name: daily.written, "prune": "@daily UTC"}),
            (3, {daily.name: later.written}),
        )
    ]

    def since(number: int) -> object:
        known = history(learnt[:number], now=NOON)
        return known.since(daily), known.since(later)

    begun = moment("2026-03-01T00:00:01")
    assert (begun, None) == since(1)
    assert (begun, None) == since(2)
    assert (None, moment("2026-03-03T00:00:01")) == since(3)
    assert since(0) == (None, None)


def test_a_clock_that_is_set() -> None:
    """Set back by an hour it repeats no run, set forward it leaves out none."""
    wanted = timetable("@hourly", prune="15 10 * * *")
    scheduler = Scheduler(wanted, moment("2026-03-10T09:30"))

    ran = []
    for now in (
        "10:00:05", "10:20", "11:00:05",
        "10:00:10", "10:15:10", "10:59",  # back by an hour
        "11:00:00", "12:00:02",
        "14:00:30",  # forward by more than an hour
        "15:00",
    ):  # fmt: skip
        ran.append((now, scheduler.catch_up(moment(f"2026-03-10T{now}"))))
        scheduler.restart()

    assert [each for each in ran if each[1]] == [
        ("10:00:05", ["backup shop"]),
        ("10:20", ["prune"]),
        ("11:00:05", ["backup shop"]),
        ("12:00:02", ["backup shop"]),
        ("14:00:30", ["backup shop"]),
        ("15:00", ["backup shop"]),
    ]
    # 13:00 never was, by this clock; the run of 14:00 took its place.
    ((name, missed),) = scheduler.reported
    assert (name, missed.number) == ("backup shop", 1)
    assert missed.first == moment("2026-03-10T13:00")


def test_a_clock_that_was_a_month_ahead() -> None:
    """When it is set right, what it left in the ledger and in memory is passed over."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    assert scheduler.catch_up(moment("2026-03-11T02:00")) == ["backup shop"]

    assert scheduler.catch_up(moment("2026-04-11T02:00")) == ["backup shop"]
    assert scheduler.catch_up(moment("2026-03-12T02:00")) == ["backup shop"]
    assert scheduler.catch_up(moment("2026-03-12T02:30")) == []
    scheduler.restart()
    assert scheduler.catch_up(moment("2026-03-12T03:00")) == []


def test_a_clock_that_was_long_behind(tmp_path: Path) -> None:
    """Records that were ahead of it count as soon as it is set right."""

    class Clocked(Run):
        time = moment("1970-01-01T00:00")

        def now(self) -> datetime:
            return Clocked.time

    run = Clocked(Settings.model_validate({"state_dir": tmp_path, "stores": {
        "local": {"url": tmp_path.as_uri()}}}))  # fmt: skip
    (job,) = timetable("0 2 * * *")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    records: list[tuple[str, datetime, dict[str, object]]] = [
        (SCHEDULER, moment("2026-01-01T00:00"), {"lines": {job.name: job.written}}),
        ("backup", NOON, {"source": "shop"}),
    ]
    for operation, time, details in records:
        ledger.append(
            now=time, run_id="run", operation=operation, outcome="ok",
            details=details, started_at=time,
        )  # fmt: skip
    journal = Journal(run)

    assert journal.history().since(job) == moment("2026-01-01T00:00")
    Clocked.time = NOON + HOUR
    assert journal.history().since(job) == NOON


def test_a_clock_that_began_in_1970() -> None:
    """What was missed is counted for somewhat more than a year, and soon."""
    (job,) = timetable("@hourly")

    due = standing(job, since=moment("1970-01-01T00:00"), now=NOON, grace=GRACE)

    assert due is not None
    assert due.at == NOON
    assert due.missed is not None
    assert due.missed.number < 500 * 24


def test_what_may_run_beside_what() -> None:
    """Backups run side by side, the rest in turn, and prune never beside a backup."""
    wanted = timetable(
        "0 2 * * *", verify="0 2 * * *", drill="0 2 * * *", prune="0 2 * * *"
    )
    scheduler = Scheduler(wanted, NOON)

    assert scheduler.tick(moment("2026-03-11T02:00")) == [
        "backup shop",
        "restore-drill shop",
    ]
    assert scheduler.tick() == []
    scheduler.end("restore-drill shop")
    assert scheduler.tick() == ["verify"]
    scheduler.end("verify")
    assert scheduler.tick() == []
    scheduler.end("backup shop")
    assert scheduler.tick() == ["prune"]
    # The next backup waits for prune, and runs once it has ended.
    assert scheduler.tick(moment("2026-03-12T02:00")) == []
    scheduler.end("prune")
    assert "backup shop" in scheduler.tick()


def test_a_live_service_is_asked_beside_everything() -> None:
    """A drill of many hours is no reason to miss it, and waits for it no more."""
    settings = Settings.model_validate(
        {
            "databases": {
                f"shop{number}": {
                    "url": "postgresql://db/shop",
                    "schedule": "0 2 * * *",
                }
                for number in range(4)
            },
            "smoke": {"url": "https://app.example"},
            "scheduler": dict.fromkeys(("verify", "prune", "report"), "")
            | {"drill": "30 2 * * *"},
        }
    )
    scheduler = Scheduler(jobs(settings), moment("2026-03-11T01:30"))

    assert scheduler.tick(moment("2026-03-11T02:00")) == [
        *(f"backup shop{number}" for number in range(4)),
        "smoke",
    ]
    scheduler.end("backup shop0")
    assert scheduler.tick(moment("2026-03-11T02:30")) == ["restore-drill shop0"]
    scheduler.end("smoke")
    assert scheduler.tick(moment("2026-03-11T03:00")) == ["smoke"]
    assert scheduler.reported == []


def test_a_held_lock_is_tried_again_less_and_less_often() -> None:
    """The run is still due; when its grace is over it was missed."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    tries = []
    due = moment("2026-03-11T02:00")
    for second in range(0, 13 * 3600, 5):
        scheduler.uptime = second
        if scheduler.tick(due + timedelta(seconds=second)):
            tries.append(second)
            scheduler.end("backup shop", code=11, outcome="failed")

    assert tries[:4] == [0, 35, 100, 225]
    assert 40 < len(tries) < 60
    ((_name, missed),) = scheduler.reported
    assert missed.last == due


def test_failures_do_not_pile_up() -> None:
    """A daemon that runs for years remembers the last one of each job."""
    scheduler = Scheduler(timetable("@hourly"), NOON)
    for hour in range(1, 4):
        scheduler.tick(NOON + hour * HOUR)
        scheduler.end("backup shop", code=40, outcome="failed")
    scheduler.tick()

    (failure,) = scheduler.dispatcher.failures
    assert failure.exit_code == 40


def test_a_job_that_somebody_else_has_run_waits_no_more() -> None:
    """The run that held the lock was that of a person."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    scheduler.tick(moment("2026-03-11T02:00"))
    scheduler.end("backup shop", code=11, outcome="failed")
    scheduler.tick()
    assert len(scheduler.dispatcher.failures) == 1

    scheduler.write(record("backup", moment("2026-03-11T02:01"), source="shop"))
    scheduler.tick(moment("2026-03-11T02:02"))

    assert scheduler.dispatcher.failures == []


def test_what_is_stopped_is_still_due_and_what_failed_is_not() -> None:
    """A run that ended with its scheduler is made up for by the next one."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    now = moment("2026-03-11T02:00")

    assert scheduler.tick(now) == ["backup shop"]
    scheduler.dispatcher.stop()
    scheduler.end("backup shop", code=130, outcome="interrupted")
    scheduler.dispatcher.collect()
    scheduler.restart()
    assert scheduler.tick(now + HOUR) == ["backup shop"]
    # It says nothing, as a process that was killed: the scheduler records it.
    scheduler.end("backup shop", code=-9, outcome="")
    assert scheduler.tick(now + 2 * HOUR) == []
    scheduler.restart()
    assert scheduler.tick(now + 2 * HOUR) == []


def test_nothing_is_started_without_the_lead() -> None:
    """It is asked for right before each start and each record of a missed run."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    scheduler.may_start = lambda: False

    assert scheduler.tick(moment("2026-03-13T02:00")) == []
    assert scheduler.reported == []

    # It is lost while the missed run is recorded, which may ask slow stores.
    scheduler.may_start = lambda: not scheduler.reported
    assert scheduler.tick() == []
    assert len(scheduler.reported) == 1
    scheduler.may_start = lambda: True
    assert scheduler.tick() == ["backup shop"]
    assert len(scheduler.reported) == 1


def test_a_ledger_that_cannot_be_written_starts_no_job_twice() -> None:
    """What ran is remembered while the process lives."""
    scheduler = Scheduler(timetable("0 2 * * *"), NOON)
    scheduler.is_full = True

    assert scheduler.tick(moment("2026-03-13T02:00")) == ["backup shop"]
    scheduler.end("backup shop")
    assert scheduler.tick() == []
    assert len(scheduler.reported) == 1
    for _ in range(2):
        assert scheduler.tick(moment("2026-03-14T20:00")) == []
    assert len(scheduler.reported) == 2


@pytest.mark.parametrize(
    ("ended", "code", "words"),
    [
        (Ended(code=10, document={"error": "the store is away"}), 10, "the store is"),
        # Its words are a server's, which may hold rows.
        (Ended(code=40, document={"error": "COPY: 'secret'"}), 40, "exit code 40"),
        (Ended(code=-9), 40, "ended by signal 9"),
        (Ended(code=130, cause="late"), 40, "longer than scheduler.job_timeout"),
        (Ended(code=1), 1, "exit code 1"),
    ],
)
def test_what_is_recorded_of_a_job_that_did_not_record_its_end(
    ended: Ended, code: int, words: str
) -> None:
    """Why it failed, as far as that may stand in the ledger, and where to read more."""
    (job,) = timetable("0 2 * * *")

    failure = ended.failure(job)

    assert code == failure.exit_code
    assert words in failure.message
    assert "secret" not in failure.message
    assert failure.hint


@pytest.mark.parametrize(
    ("operation", "code"),
    [("backup", 40), ("restore-drill", 50), ("smoke", 61), ("verify", 1)],
)
def test_a_job_that_was_ended_has_failed_at_what_it_does(
    operation: str, code: int
) -> None:
    """Killed, late, or late and able to say so: the exit code is that of its failure."""
    (any_job,) = timetable("0 2 * * *")
    job = replace(any_job, operation=operation)

    assert Ended(code=-9).failure(job).exit_code == code
    assert Ended(code=130, cause="late").failure(job).exit_code == code
    assert OutOfTime().failure(operation).exit_code == code
