"""Alerts: each fault is reported once, its end too, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from opskit.operations.outcome import Record
from opskit.watch.alerts import Ending, Kind, decide, doubts


def _ending(ended: str = "ok", source: str = "shop", **details: Any) -> Ending:
    return Ending(operation="backup", source=source, ended=ended, details=details)


GOOD = _ending()
AWAY = _ending("failed", code=10, error="store offsite is away")
FULL = _ending("failed", code=40, error="no space on /var")
PARTLY = _ending(code=10, error="store offsite is away")
MISSED = _ending("missed", code=40, error="it did not run")
INTERRUPTED = _ending("interrupted")


def _fast_and_slow(*seconds: float) -> list[bool]:
    """Return of each of the good backups whether it is suspicious."""
    endings = [
        Ending(operation="backup", source="shop", ended="ok", details={}, seconds=each)
        for each in seconds
    ]
    return [bool(doubts(endings[:number], each)) for number, each in enumerate(endings)]


def _reported(
    *endings: Ending, recovery_after: int = 1, lost: Collection[int] = ()
) -> list[Kind | None]:
    """Return what is reported of each of the operations, one after the other."""
    numbered = [replace(each, number=number) for number, each in enumerate(endings)]
    return [
        decide(numbered[:number], each, recovery_after=recovery_after, lost=lost)
        for number, each in enumerate(numbered)
    ]


@pytest.mark.parametrize(
    ("endings", "reported"),
    [
        ([GOOD, GOOD], [None, None]),
        ([AWAY], ["failed"]),
        ([AWAY, AWAY, AWAY], ["failed", None, None]),
        ([AWAY, FULL, AWAY, FULL], ["failed", "failed", None, None]),
        ([AWAY, GOOD, GOOD], ["failed", "recovered", None]),
        ([AWAY, GOOD, AWAY], ["failed", "recovered", "failed"]),
        ([PARTLY, PARTLY, GOOD], ["failed", None, "recovered"]),
        ([MISSED, MISSED, GOOD], ["missed", None, "recovered"]),
        ([MISSED, AWAY, GOOD], ["missed", "failed", "recovered"]),
        ([INTERRUPTED, GOOD], [None, None]),
        ([AWAY, INTERRUPTED, AWAY, GOOD], ["failed", None, None, "recovered"]),
    ],
)
def test_each_fault_is_reported_once_and_so_is_its_end(
    endings: list[Ending], reported: list[Kind | None]
) -> None:
    """A repeat is not reported, another fault is, an interrupt is not a fault."""
    assert _reported(*endings) == reported


def test_a_fault_has_ended_after_so_many_good_runs() -> None:
    """A fault that comes and goes is reported once."""
    reported = _reported(AWAY, GOOD, AWAY, GOOD, GOOD, GOOD, recovery_after=3)

    assert reported == ["failed", None, None, None, None, "recovered"]


@pytest.mark.parametrize(
    ("endings", "lost", "reported"),
    [
        ([AWAY, AWAY, AWAY], {0}, ["failed", "failed", None]),
        ([AWAY, AWAY, AWAY], {0, 1}, ["failed"] * 3),
        ([AWAY, GOOD, AWAY], {0}, ["failed", None, "failed"]),
        ([AWAY, GOOD, GOOD, GOOD], {1}, ["failed", "recovered", "recovered", None]),
        ([AWAY, GOOD, AWAY, GOOD], {1}, ["failed", "recovered", None, "recovered"]),
        ([MISSED, AWAY, MISSED, AWAY], {0}, ["missed", "failed", "missed", None]),
    ],
)
def test_what_was_not_delivered_is_reported_by_the_next_run(
    endings: list[Ending], lost: set[int], reported: list[Kind | None]
) -> None:
    """Nobody has read it, so it does not count as reported."""
    assert _reported(*endings, lost=lost) == reported


def test_a_fault_is_the_same_whatever_numbers_its_words_hold() -> None:
    """Times, ids and ports differ from run to run."""
    first = _ending("failed", code=11, error="run a1b2 holds the lock since 09:00:01Z")
    again = _ending("failed", code=11, error="run 77fe holds the lock since 10:00:02Z")

    assert _reported(first, again) == ["failed", None]


def test_sources_and_operations_are_separate() -> None:
    """A good backup of one source ends nothing of another, nor of a drill."""
    drill = Ending(operation="restore-drill", source="shop", ended="ok", details={})
    other = _ending("failed", source="crm", code=10, error="store offsite is away")

    assert _reported(AWAY, other, drill, GOOD) == [
        "failed",
        "failed",
        None,
        "recovered",
    ]


def test_a_fault_without_a_source_ends_for_each_source() -> None:
    """No store was reached: the sources were not known."""
    every = _ending("failed", source="", code=10, error="no store can be reached")

    assert _reported(every, every, GOOD, GOOD, AWAY) == [
        "failed", None, "recovered", None, "failed",
    ]  # fmt: skip


def test_a_backup_that_is_far_faster_than_usual_is_suspicious_once() -> None:
    """Not before anything is usual, and not where all are fast."""
    usual = [100.0] * 5

    assert _fast_and_slow(*usual[:4], 1.0) == [False] * 5
    assert _fast_and_slow(*usual, 9.0) == [False] * 5 + [True]
    assert _fast_and_slow(*usual, 11.0) == [False] * 6
    assert _fast_and_slow(*usual, 9.0, 8.0, 90.0, 7.0) == [False] * 5 + [
        True, False, False, True,
    ]  # fmt: skip
    assert _fast_and_slow(*[5.0] * 5, 0.1) == [False] * 6


def test_a_backup_that_holds_far_less_is_suspicious() -> None:
    """In the words of the set; a backup that failed is reported as a failure."""
    changes = ["table public.orders: 3 rows, before 90000"]
    shrunk = _ending(sudden_changes=changes)

    assert doubts([GOOD], shrunk) == changes
    assert doubts([GOOD], _ending(sudden_changes=changes, code=10)) == []
    assert doubts([GOOD], GOOD) == []


def test_runbooks_are_told_apart():
    """One that passes says nothing of another that failed."""
    failed, other, again = (
        Ending.of(
            Record(
                operation="runbook",
                run_id="r",
                started_at=datetime(2026, 11, 30, tzinfo=UTC),
                ended=ended,
                details={"runbook": name},
            )
        )
        for name, ended in (("a", "failed"), ("b", "ok"), ("a", "ok"))
    )

    assert _reported(failed, other, again) == ["failed", None, "recovered"]
    assert failed.subject == "runbook of a"
