"""The report: its period, what it measures, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from opskit.checks import Check
from opskit.config import Settings
from opskit.log import MASK, hide
from opskit.watch import health, page, report
from opskit.watch.figures import Backup, largest_age
from opskit.watch.state import State
from tests.unit import states
from tests.unit.states import NOW, Records, source_state, state_of

BERLIN = ZoneInfo("Europe/Berlin")
HOSTILE = "</table><script>hit()</script>|`*[x](javascript:hit())\n# heading"


def facts(state: State, service: Sequence[Check] = (), **drill: Any) -> report.Facts:
    """Return the facts of the month before a state."""
    given: Any = {"drill": drill}
    settings = Settings(**given)
    period = report.period_until("month", NOW)
    return report.Facts(
        run_id="0123456789ab",
        ledger_id="db1-1a2b3c4d",
        period=period,
        state=state,
        checks=health.checks(state, settings),
        service=service,
        sources=tuple(report.of_source(e, period, settings) for e in state.sources),
    )


def rendered(known: report.Facts) -> dict[str, str]:
    """Return the report in both forms."""
    return report.render(known, ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("until", "name", "since"),
    [
        ("2026-12-01T06:00", "month", "2026-11-01"),
        ("2026-11-30T10:12", "month", "2026-10-30"),
        ("2026-03-31T10:00", "month", "2026-02-28"),
        ("2024-03-31T10:00", "month", "2024-02-29"),
        ("2027-01-15T00:00", "month", "2026-12-15"),
        ("2026-11-30T10:12", "week", "2026-11-23"),
        ("2026-03-31T10:00", "week", "2026-03-24"),
    ],
)
def test_a_period_begins_with_a_day(until: str, name: Any, since: str) -> None:
    """A week or a month before its end, in the zone of the timetable."""
    end = datetime.fromisoformat(until).replace(tzinfo=BERLIN)

    period = report.period_until(name, end)

    assert period.since == datetime.fromisoformat(since).replace(tzinfo=BERLIN)
    assert period.until == end


def test_monthly_reports_leave_nothing_out() -> None:
    """Each begins before the last one has ended, whatever the day of the month."""
    for day in range(1, 29):
        ends = [datetime(2026, month, day, 6, tzinfo=UTC) for month in range(1, 13)]
        for before, end in pairwise(ends):
            since = report.period_until("month", end).since
            assert before - timedelta(days=1) < since <= before


def _made(*hours: float, seconds: float = 0) -> list[Backup]:
    return [Backup(at=NOW - timedelta(hours=each), seconds=seconds) for each in hours]


@pytest.mark.parametrize(
    ("made", "hours"),
    [
        (_made(30, 20, 12, 2), 10),
        (_made(40, 38, 2), 36),  # one from before the period is the newest for long
        (_made(20, 18, 10), 10),  # nothing came since
        (_made(23, 22, 2, seconds=3600), 21),  # until the next one was done
        (_made(1), 1),
        (_made(100, 90), 90),
        ([], None),
        (_made(-5), None),
    ],
)
def test_rpo_is_the_age_of_the_newest_backup_at_the_worst_moment(
    made: list[Backup], hours: float | None
) -> None:
    """Of the last day: between two backups, at its beginning, or until its end."""
    age = largest_age(made, since=NOW - timedelta(hours=24), until=NOW)

    assert age == (None if hours is None else hours * 3600)


def test_objectives_are_met_or_not() -> None:
    """RPO against the greatest age of the source, RTO against that of drills."""
    (shop, uploads) = facts(states.well(), rto="50s").sources

    assert shop.rpo.limit == 26 * 3600
    assert (shop.rpo.verdict, shop.rto.verdict) == ("met", "not met")
    assert (uploads.rpo.verdict, uploads.rto.verdict) == ("met", "met")
    assert facts(states.sick()).sources[0].rpo.verdict == "not met"
    assert facts(states.well()).sources[0].rto.verdict == "no objective"
    empty = facts(state_of([source_state("shop", ())]), rto="50s").sources[0]
    assert (empty.rpo.verdict, empty.rto.verdict) == ("not measured", "not measured")


def test_the_document_holds_what_auditors_ask_for() -> None:
    """Frequency, outcome, objectives, and which records of the ledger it rests on."""
    known = facts(states.sick(), rto="2m")
    document = known.as_json()

    (shop,) = document["sources"]
    assert shop["backups"] == {"ok": 28, "failed": 2, "missed": 2}
    assert shop["drills"] == {"passed": 4, "failed": 1}
    assert shop["rpo"]["met"] is False
    assert shop["rto"] == {
        "measured_seconds": pytest.approx(57.2, abs=0.5),
        "objective_seconds": 120.0,
        "met": True,
    }
    assert document["ledger"]["last"] - document["ledger"]["first"] == 36
    assert document["ledger"]["id"] == "db1-1a2b3c4d"
    assert document["since"] == "2026-10-30T00:00:00+00:00"
    assert {each["status"] for each in document["checks"]} == {
        "healthy",
        "degraded",
        "unhealthy",
    }


def test_both_forms_say_the_same() -> None:
    """Each run, each failure and each drill of the period, and lines to fill in."""
    service = [
        Check(name="availability", passed=True, expected="99.9 %", observed="99.97 %"),
        Check(name="p95", passed=None, expected="1.2 s"),
    ]
    known = facts(states.sick(), service, rto="2m")
    for text in rendered(known).values():
        for run in known.log:
            assert run.run_id in text
        for drill in known.sources[0].drills:
            assert f"{drill.finished_at:%Y-%m-%d %H:%M}" in text
        for words in ("reviewed by", "not met", "missed", "99.97 %", "not measured"):
            assert words in text.lower()
        assert "the drill did not pass" in text
        assert len(re.findall("pg_dump could not lock", text)) >= 4


def test_markdown_shows_weeks_and_lines_of_blocks() -> None:
    """Markdown has no drawings that every program shows."""
    text = rendered(facts(states.sick()))["md"]

    week = "| 2026-11-23 | ok | ok | ok | ok | missed | missed | failed |"
    assert week in text.splitlines()
    assert re.search(
        r"^Size [▁▂▃▄▅▆▇█]{28} 603.8 MiB to 703.2 MiB$", text, re.MULTILINE
    )


def test_a_report_without_anything_says_so() -> None:
    """The first month has just begun."""
    for text in rendered(facts(state_of([]))).values():
        assert "Nothing." in text
        assert "polyline" not in text


def test_what_a_report_shows_is_text() -> None:
    """A name or an error makes neither markup nor another cell."""
    records = Records()
    records.add(NOW, HOSTILE, "failed", source="shop", error=HOSTILE, backup_id=HOSTILE)
    state = state_of([source_state("shop", ())], entries=tuple(records.entries))
    state = replace(state, ledger_faults=(HOSTILE,))

    forms = rendered(facts(state, [Check(name=HOSTILE, passed=True)]))

    for text in forms.values():
        assert "<script" not in text
        assert "hit()" in text
    rows = [line for line in forms["md"].splitlines() if "heading" in line]
    assert all(line.startswith("| ") for line in rows)
    assert not any(re.search(r"(?<!\\)\[x\]", line) for line in rows)
    of_runs = [line for line in rows if "000000000000" in line]
    # Once among the failures, once in the log, which has a column more.
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in of_runs] == [7, 8]


def test_no_secret_is_shown_in_any_form() -> None:
    """Also one with characters that HTML and Markdown write otherwise."""
    hide('hunter2&"<|`[two')
    records = Records()
    error = 'no entry for hunter2&"<|`[two'
    records.add(NOW, "backup", "failed", source="shop", error=error)
    entries = tuple(records.entries)
    state = state_of([source_state("shop", entries)], entries=entries)
    check = Check(name="x", passed=False, observed=error, hint=error)

    forms = rendered(facts(state, [check]))
    forms["page"] = page.render(state, [check], Settings(), {})

    for text in forms.values():
        assert f"no entry for {MASK}" in text.replace("\\*", "*")
        assert "hunter2" not in text
        assert "two" not in re.findall("no entry for [^\n]*", text)[0]
