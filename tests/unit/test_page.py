"""The page as text: which records it shows, and that nothing breaks it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from opskit.checks import Check
from opskit.config import Settings
from opskit.config.runbooks import RunbooksSettings
from opskit.runbook.text import read
from opskit.watch import health, page
from opskit.watch.state import State, drills_of
from tests.unit.states import NOW, Records, sick, source_state, state_of, well

ROOT = Path(__file__).resolve().parents[2]


def rendered(state: State, **query: str) -> str:
    """Return the page of a state."""
    settings = Settings()
    return page.render(state, health.checks(state, settings), settings, query)


def ledger(state: State, **query: str) -> dict[str, Any]:
    """Return what the page shows of the ledger."""
    return page._ledger(state.entries, query)


def test_what_is_wrong_stands_first_with_its_runbook() -> None:
    """The worst checks come first, each with what to do."""
    text = rendered(sick())

    assert "<title>Unhealthy (" in text
    assert '<a href="runbooks/backup-failing.md">' in text
    assert '<a href="runbooks/store-failing.md">' in text
    assert "<code>opskit backup --database shop</code>" in text
    assert text.index('class="unhealthy"') < text.index('class="degraded"')
    assert text.rindex('class="unhealthy"') < text.index('class="degraded"')


def test_each_runbook_that_the_page_links_exists() -> None:
    """In this repository, and in what is installed from it."""
    names = {name for _what, name in page._RUNBOOKS}

    assert names <= {each.name for each in RunbooksSettings().place.iterdir()}
    assert names <= {each.name for each in (ROOT / "runbooks").iterdir()}


@pytest.mark.parametrize(
    ("name", "observed", "runbook"),
    [
        ("database shop: newest set in local", "3 d old", "backup-failing"),
        ("database shop: connection", "refused", "database-lost"),
        ("last backup shop", "failed, 2026", "backup-failing"),
        ("last backup shop", "failed, 2026: signing key /k is away", "keys-lost"),
        ("last restore-drill shop", "failed: no identity in /i opens", "keys-lost"),
        ("missed runs", "backup shop, 2026", "backup-failing"),
        ("timetable: backup shop", "due at 2026", "backup-failing"),
        ("last restore-drill shop", "failed, 2026", "backup-failing"),
        ("last verify", "failed, 2026: 1 object damaged", "store-failing"),
        ("last backup shop", "failed, 2026: store local: full", "store-failing"),
        ("last prune", "failed, 2026", "backup-failing"),
        ("last smoke", "failed, 2026: 1 probe failed", "bad-release"),
        ("database shop: newest drill that passed", "9 d old", "backup-failing"),
        ("database shop: time of a restore", "2 h 0 min", "backup-failing"),
        ("database shop: sudden change", "public.t", "backup-failing"),
        ("database shop: duration", "1 s", "backup-failing"),
        ("files state: proof", "state-1 is failed", "store-failing"),
        ("store local", "refused", "store-failing"),
        ("store local: clock", "differs", "store-failing"),
        ("store local: room", "1 MiB free", "store-failing"),
        ("store local: manifests", "1 set: m: it is not signed", "keys-lost"),
        ("store local: manifests", "1 set: m: it is missing", "store-failing"),
        ("disk /", "1 MiB free", "store-failing"),
        ("ledger", "record 3", "ransomware"),
        ("notification mail", "failed", "backup-failing"),
        ("scheduler", "gathered 1 h ago", "backup-failing"),
        ("memory", "1 MiB", ""),
    ],
)
def test_each_fault_has_its_runbook(name: str, observed: str, runbook: str) -> None:
    """By what was examined and what was observed."""
    found = page._runbook(Check(name=name, passed=False, observed=observed))

    assert found == (f"{runbook}.md" if runbook else "")


@pytest.mark.parametrize("state", [well(), sick()], ids=["well", "sick"])
def test_a_runbook_names_the_checks_that_link_it(state: State) -> None:
    """Whoever comes from the page finds the name of the check under its symptoms."""
    missing = []
    for check in health.checks(state, Settings()):
        if not (name := page._runbook(check)):
            continue
        symptom = read(ROOT / "runbooks" / name).sections["Symptom"]
        words = [
            each for each in re.findall("`([^`]+)`", symptom) if each in check.name
        ]
        if not words:
            missing.append(f"{check.name}: {name}")

    assert missing == []


@pytest.mark.parametrize(
    "state",
    [
        state_of([]),
        state_of([source_state("shop", ())]),
        state_of([], stores=(), disks=(), memory=None),
    ],
)
def test_there_is_a_page_before_the_first_backup(state: State) -> None:
    """Nothing is drawn where there is nothing to draw."""
    text = rendered(state)

    assert "no runs" in text
    assert "<polyline" not in text


def test_records_are_shown_newest_first_and_in_pages() -> None:
    """Each record is on one page; the last page links no older ones."""
    state = well()
    seen: list[str] = []
    query: dict[str, str] = {}
    while True:
        shown = ledger(state, **query)
        seen += [each.run_id for each in shown["rows"]]
        if not shown["older"]:
            break
        query = {key: value[0] for key, value in parse_qs(shown["older"]).items()}

    assert seen == [each.run_id for each in reversed(state.entries)]


def test_records_are_shown_by_source_operation_and_outcome() -> None:
    """The rate is that of the records chosen."""
    state = well()

    drills = ledger(state, source="shop", operation="restore-drill")
    failed = ledger(state, outcome="failed")
    missed = ledger(state, outcome="missed", source="shop")

    assert {(e.source, e.operation) for e in drills["rows"]} == {
        ("shop", "restore-drill")
    }
    assert drills["rate"] == f"100 % of {len(drills['rows'])} runs succeeded"
    assert [e.details["error"] for e in failed["rows"]] == ["pg_dump ended with 1"]
    assert failed["rate"] == "0 % of 1 run succeeded"
    assert [each.outcome for each in missed["rows"]] == ["missed"]
    assert drills["choices"]["source"] == ["shop", "uploads"]
    assert drills["choices"]["outcome"] == ["failed", "missed", "ok"]


@pytest.mark.parametrize(
    "query",
    [
        {"before": "-1"},
        {"before": "²"},
        {"before": "9" * 400},
        {"before": "0"},
        {"source": "<b>"},
        {"outcome": "\0\r\n"},
        {"unknown": "x"},
    ],
)
def test_any_query_has_an_answer(query: dict[str, str]) -> None:
    """People and programs ask for anything."""
    assert "</html>" in rendered(well(), **query)


def test_older_records_are_linked_with_the_filter() -> None:
    """Going on keeps what was chosen."""
    link = ledger(well(), source="shop")["older"]

    query = parse_qs(urlsplit(f"/?{link}").query)

    assert query["source"] == ["shop"]
    assert int(query["before"][0]) > 0


def test_the_page_says_where_a_set_is_missing() -> None:
    """A backup that one store did not take is no success."""
    records = Records()
    records.add(
        NOW - timedelta(hours=1),
        "backup",
        source="shop",
        backup_id="shop-1",
        stores=["local"],
        failed_stores=["offsite"],
        size_bytes=5,
    )
    text = rendered(state_of([source_state("shop", records.entries)]))

    assert "shop-1; not stored in offsite" in text
    assert "0 % of 1 run succeeded" in text
    assert "no set" in text


HOSTILE = (
    "</title></script><script>window.hit=1</script><img src=x onerror=hit()>\"'{{7*7}}"
)


def test_what_comes_from_stores_and_ledgers_is_text() -> None:
    """Names and errors are shown as they are, and do nothing."""
    records = Records()
    records.add(NOW, "backup", "failed", source="shop", error=HOSTILE, code=40)
    records.add(NOW, HOSTILE, HOSTILE, source=HOSTILE, backup_id=HOSTILE)
    state = state_of([source_state("shop", records.entries)], entries=records.entries)
    state = replace(
        state,
        ledger_faults=(HOSTILE,),
        stores=tuple(replace(e, error=HOSTILE, hint=HOSTILE) for e in state.stores),
    )
    text = rendered(state, source=HOSTILE)

    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;window.hit=1" in text
    assert "{{7*7}}" in text


ODD: list[dict[str, Any]] = [
    {"source": ["shop"]},
    {"source": "shop", "due": {"first": None}},
    {"source": "shop", "failed_stores": 7},
    {"source": "shop", "failed_stores": [None]},
    {"source": "shop", "backup_id": {"a": 1}, "size_bytes": 4},
    {"source": "shop", "error": ["x"], "size_bytes": float("nan")},
]


@pytest.mark.parametrize("details", ODD, ids=json.dumps)
def test_records_of_any_form_are_shown(details: dict[str, Any]) -> None:
    """Somebody may have changed the ledger: the page is needed then, above all."""
    records = Records()
    for outcome, seconds in (("ok", "x"), ("missed", -1.0), ("odd", float("nan"))):
        made = records.add(NOW, "backup", outcome, **details)
        odd: Any = {"started_at": 5, "seconds": seconds, "run_id": 7}
        records.entries[-1] = replace(made, **odd)
    runs = tuple(records.entries)
    state = state_of([replace(source_state("shop", ()), runs=runs)], entries=runs)

    assert "</html>" in page.render(state, [], Settings(), {})


def test_backups_of_which_only_the_size_is_known_have_a_page() -> None:
    """Version 0.1 recorded no durations, and the sets are gone by now."""
    records = Records()
    for day in (9, 8):
        made = records.add(NOW - timedelta(days=day), "backup", source="shop",
                           backup_id=f"shop-{day}", size_bytes=5)  # fmt: skip
        records.entries[-1] = replace(made, started_at=None, seconds=None)
    source = replace(source_state("shop", ()), runs=tuple(records.entries), sets=())

    text = rendered(state_of([source], entries=records.entries))

    assert text.count("<polyline") == 1


@pytest.mark.parametrize(
    ("figures", "rto", "phases"),
    [
        ({"rto_seconds": "soon", "phases": [1]}, None, {}),
        (
            {"rto_seconds": -1, "phases": {"fetch": "x", "restore": 2}},
            None,
            {"restore": 2},
        ),
        ({"rto_seconds": float("inf"), "phases": {"": None}}, None, {}),
        (
            {"rto_seconds": 7, "rpo_seconds": {}, "phases": {"fetch": 1.5}},
            7,
            {"fetch": 1.5},
        ),
    ],
)
def test_drills_of_any_form_are_shown(
    figures: dict[str, Any], rto: float | None, phases: dict[str, float]
) -> None:
    """What is no figure in a record is none on the page."""
    records = Records()
    entry = records.add(NOW, "restore-drill", source="shop", passed=True, **figures)
    drills = drills_of((), [entry], now=NOW)
    source = replace(source_state("shop", ()), runs=(entry,), drills=drills)

    text = rendered(state_of([source], entries=(entry,)))

    assert (drills[0].rto_seconds, drills[0].phases) == (rto, phases)
    assert "Newest drill" in text
