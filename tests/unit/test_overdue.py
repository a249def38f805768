"""Which jobs are overdue, by what the ledger says of the scheduler and its runs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from opskit.config import Settings
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import overdue
from tests.unit.scheduled import moment, record

KNOWN = moment("2026-11-01T00:00")
DUE = moment("2026-11-30T09:00")
OFF = dict.fromkeys(("verify", "drill", "prune", "report"), "")
LIMIT = timedelta(hours=18)  # the grace and the job's time


def settings(line: str = "0 9 * * *", **scheduler: object) -> Settings:
    """Return settings with one source, and no other job that is not named."""
    return Settings.model_validate(
        {
            "databases": {"shop": {"url": "postgresql://db/shop", "schedule": line}},
            "scheduler": OFF | scheduler,
        }
    )


def timetable(since: datetime = KNOWN, **lines: str) -> LedgerEntry:
    """Return what a scheduler records of its lines, the backup's unless it is named."""
    named = {name.replace("_", " "): line for name, line in lines.items()}
    lines = named or {"backup shop": "0 9 * * * UTC"}
    return record("scheduler", since, lines=lines)


def backup(at: datetime, **more: object) -> LedgerEntry:
    """Return the record of a backup that began at a time."""
    return record("backup", at, source="shop", **more)  # type: ignore[arg-type]


def late(entries: list[LedgerEntry], at: datetime, **more: object) -> bool:
    """Return whether the backup is overdue at a time."""
    found = overdue(entries, settings(**more), now=at)  # type: ignore[arg-type]
    assert [*found] == ["backup shop"]
    return found["backup shop"] is not None


def test_where_no_scheduler_ever_ran_nothing_is_overdue() -> None:
    """Cron may run opskit: then the ages of the sets count."""
    assert overdue([], settings(), now=DUE) == {}
    assert overdue([backup(KNOWN)], settings(), now=DUE) == {}


def test_a_run_may_begin_within_the_grace_and_take_its_time() -> None:
    """After both it is overdue, and the time at which it was due is said."""
    ran = [timetable(), backup(DUE - timedelta(days=1))]
    after = DUE + LIMIT + timedelta(minutes=1)

    assert not late(ran, DUE + LIMIT)
    assert late(ran, after)
    assert overdue(ran, settings(), now=after) == {"backup shop": DUE}


def test_a_line_for_every_minute_is_overdue_within_minutes() -> None:
    """The next runs would have begun: nobody waits for the grace."""
    ran = [timetable(backup_shop="* * * * * UTC"), backup(DUE)]

    assert not late(ran, DUE + timedelta(minutes=3), line="* * * * *")
    assert late(ran, DUE + timedelta(minutes=4), line="* * * * *")


def test_a_scheduler_that_never_ran_anything_is_noticed() -> None:
    """Also by the jobs that are about every source."""
    lines = {"verify": "0 3 * * 0 UTC", "prune": "30 9 * * * UTC"}
    entries = [timetable(), timetable(KNOWN, backup_shop="0 9 * * * UTC", **lines)]
    found = overdue(entries, settings(verify="0 3 * * 0", prune="30 9 * * *"), now=DUE)

    assert found == {
        "backup shop": moment("2026-11-01T09:00"),
        "prune": moment("2026-11-01T09:30"),
        "verify": moment("2026-11-01T03:00"),
    }


@pytest.mark.parametrize(
    ("entry", "is_late"),
    [
        (backup(DUE), False),
        (backup(DUE, outcome="failed", code=40), False),
        (backup(DUE, outcome="failed", code=11), True),
        (backup(DUE, outcome="interrupted"), True),
        (backup(DUE, outcome="missed", due={"last": DUE.isoformat()}), False),
        (
            backup(DUE, outcome="missed", due={"last": KNOWN.isoformat()}),
            True,
        ),
        (backup(DUE, outcome="missed", due={"last": 3}), True),
        (backup(DUE + timedelta(days=9)), True),
        (record("backup", DUE, source="other"), True),
        (record("verify", DUE), True),
    ],
)
def test_what_counts_as_a_run(entry: LedgerEntry, is_late: bool) -> None:
    """One that failed has run; one that was interrupted is still due."""
    assert late([timetable(), entry], DUE + timedelta(hours=23)) is is_late


def test_a_job_that_is_switched_off_is_not_due() -> None:
    """Nor is one whose source is gone, although the scheduler has had both."""
    entries = [timetable(verify="0 3 * * 0 UTC", backup_gone="0 9 * * * UTC")]

    assert overdue(entries, settings(), now=DUE) == {}


def test_a_line_that_changed_counts_since_its_change() -> None:
    """One that stayed the same counts since it was there first."""
    changed = DUE - timedelta(hours=2)
    old = timetable(backup_shop="0 5 * * * UTC")

    assert not late([old, timetable(changed)], DUE + timedelta(hours=1))
    assert late([timetable(), timetable(changed)], DUE + timedelta(hours=1))


@pytest.mark.parametrize(
    "line", ["x UTC", "0 9 * * * Nowhere/At", "0 9 30 2 * UTC", ""]
)
def test_lines_that_are_none_are_passed_over(line: str) -> None:
    """The ledger may have been written by hand."""
    assert overdue([timetable(backup_shop=line)], settings(), now=DUE) == {}
