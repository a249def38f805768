"""Report: what a drill proved, whatever the tables and values are called."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.catalog.manifest import Manifest
from opskit.checks import Check, not_checked
from opskit.drill.report import DrillEvidence, DrillFigures, render
from opskit.evidence import set_subject
from tests.unit import builders

MANIFEST = builders.manifest()
GOOD = Check(name="table public.t", passed=True, expected="3 rows", observed="3 rows")
BAD = Check(
    name="sequence public.s",
    passed=False,
    expected="5, handed out",
    observed="4, handed out",
    detail="one less",
)


def _evidence(*checks: Check, **figures: Any) -> DrillEvidence:
    measured: dict[str, Any] = {
        "phases": {"restore": 1.5, "compare": 0.25},
        "rto_seconds": 4000.4,
        "rpo_seconds": 12.34,
        "drill_server": "PostgreSQL 16.4, embedded",
    }
    return DrillEvidence(
        kind="drill",
        run_id="abc123",
        subject=set_subject(MANIFEST, "0" * 64),
        started_at=MANIFEST.finished_at,
        finished_at=MANIFEST.finished_at + timedelta(minutes=2),
        checks=checks,
        figures=DrillFigures(**(measured | figures)),
    )


def _rendered(*checks: Check, manifest: Manifest | None = None, **figures: Any) -> str:
    return render(_evidence(*checks, **figures), manifest or MANIFEST)


def _cells(line: str) -> list[str]:
    """Split a row of a table as Markdown does: at bars that are not escaped."""
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)


def test_a_passed_drill_says_what_was_compared() -> None:
    """Verdict, set, times and measures stand in the report."""
    text = _rendered(GOOD, tables=2, rows=7)

    assert text.startswith("# Restore drill of shop-20260310T030000Z-a1b2c3: PASSED\n")
    assert (
        "equals what was dumped: 2 tables with 7 rows, compared exactly; 1 check, all passed."
        in text
    )
    assert "## What differed\n\nNothing.\n" in text
    assert "| measured RTO | 1:06:40 " in text
    assert "| measured RPO | 12.3 s " in text
    assert "| drill server | PostgreSQL 16.4, embedded |" in text
    assert "| restore | 1.50 |\n| compare | 0.25 |" in text
    assert "| started | 2026-03-10T03:05:00Z |" in text


def test_a_failed_drill_shows_what_differed_first() -> None:
    """The checks that failed stand alone before all of them are listed."""
    text = _rendered(GOOD, BAD, rto_seconds=None)
    row = (
        "| **failed** | sequence public.s | 5, handed out | 4, handed out | one less |"
    )
    differed = text[text.index("## What differed") : text.index("## Phases")]

    assert text.startswith("# Restore drill of ")
    assert text.splitlines()[0].endswith(": DID NOT PASS")
    assert "1 of 2 checks did not pass. Do not rely on this set" in text
    assert row in differed
    assert "table public.t" not in differed
    assert text.count(row) == 2
    assert "| measured RTO | not measured " in text


def test_a_drill_that_checked_nothing_did_not_pass() -> None:
    """A comparison that compared nothing has failed."""
    text = _rendered(drill_server="")

    assert text.splitlines()[0].endswith(": DID NOT PASS")
    assert "0 of 0 checks did not pass" in text
    assert "| drill server | not started |" in text


def test_warnings_of_the_backup_are_told_again() -> None:
    """What was noted when the backup was taken stands at the end, if anything was."""
    noted = builders.manifest(warnings=["roles are stored without passwords"])
    text = _rendered(GOOD, manifest=noted)

    assert text.endswith(
        "\n## Noted when the backup was taken\n\n- roles are stored without passwords\n"
    )
    assert "Noted" not in _rendered(GOOD)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a|b", r"a\|b"),
        ("a\\|b", r"a\\\|b"),
        ("a\nb\r\n| c |", r"a b \| c \|"),
        ("<script>", "&lt;script>"),
        ("`x`", r"\`x\`"),
        ("  a  \t b ", "a b"),
    ],
)
def test_special_characters_are_escaped(name: str, written: str) -> None:
    """What means something in Markdown stands as what it is."""
    text = _rendered(Check(name=name, passed=True))

    assert f"| passed | {written} |  |  |  |\n" in text


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(_texts, _texts, _texts, _texts)
def test_no_name_breaks_the_table(
    name: str, expected: str, observed: str, detail: str
) -> None:
    """Whatever a check says, its row has five cells and stays on its line."""
    check = Check(
        name=name, passed=True, expected=expected, observed=observed, detail=detail
    )
    usual = _rendered(GOOD)
    odd = _rendered(check)
    (row,) = [line for line in odd.splitlines() if line.startswith("| passed")]

    assert len(odd.splitlines()) == len(usual.splitlines())
    assert len(_cells(row)) == 7


@pytest.mark.parametrize(
    "text",
    [
        _rendered(Check(name="[a](https://x.example)", passed=True)),
        _rendered(GOOD, drill_server="a | <b>"),
        _rendered(GOOD, manifest=builders.manifest(warnings=["<b>\n## PASSED"])),
        _rendered(Check(name="a\x1b[2Jb", passed=True)),
        _rendered(GOOD, not_checked("[a](b)", "<b>\n## PASSED")),
    ],
    ids=["link", "server", "warning", "terminal", "unmade"],
)
def test_nothing_in_the_report_is_taken_for_markup(text: str) -> None:
    """Neither links nor tags, headings or control characters come from a name."""
    assert re.search(r"(?<!\\)\[a\]\(|<b>|^## PASSED|\x1b", text, re.MULTILINE) is None


def _section(text: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_what_was_not_checked_has_its_own_section() -> None:
    """Each with its reason, beside a verdict that may be a pass all the same."""
    unmade = (
        not_checked("extension pg_cron", "the server has none"),
        not_checked("mutants", "none were asked for"),
    )
    text = _rendered(GOOD, *unmade)

    assert _section(text, "What was not checked").split("\n") == [
        "",
        "- **extension pg_cron**: the server has none",
        "- **mutants**: none were asked for",
        "",
    ]
    assert text.index("## What was not checked") < text.index("## Phases")
    assert "not checked" not in _rendered(GOOD)


def _mutants(*noticed: bool) -> dict[str, Any]:
    planted = [
        {
            "kind": "drop a row",
            "target": f"public.t, row {number}",
            "noticed": each,
            "noticed_by": "table public.t" if each else "",
        }
        for number, each in enumerate(noticed)
    ]
    killed = sum(noticed)
    return {
        "seed": "abc123",
        "planted": len(planted),
        "killed": killed,
        "kill_rate": killed / len(planted) if planted else 0.0,
        "survivors": [],
        "refused": [],
        "mutants": planted,
    }


def test_mutants_are_told_one_by_one() -> None:
    """Which damage was planted where, and by which check it was noticed, if it was."""
    text = _rendered(GOOD, mutants=_mutants(True, False, True, True))
    section = _section(text, "Whether the drill can fail")
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]

    assert "4 mutants were planted" in section
    assert "3 were noticed (kill rate\n75 %, seed `abc123`)" in section
    assert rows == [
        "| noticed | drop a row | public.t, row 0 | table public.t |",
        "| **not noticed** | drop a row | public.t, row 1 |  |",
        "| noticed | drop a row | public.t, row 2 | table public.t |",
        "| noticed | drop a row | public.t, row 3 | table public.t |",
    ]


def test_mutants_that_were_not_planted_are_not_boasted_of() -> None:
    """Without any there is no section, or it says that there were none."""
    none = _rendered(GOOD, mutants=_mutants())

    assert "Whether the drill can fail" not in _rendered(GOOD)
    assert "0 mutants were planted" in none
    assert "kill rate\n0 %" in none


@pytest.mark.parametrize(
    ("rate", "written"),
    [
        (1.0, "100 %"),
        (0.9999, "99.9 %"),
        (0.9996, "99.9 %"),
        (0.995, "99.5 %"),
        (2 / 3, "66.6 %"),
        (0.29, "29 %"),
        (0.0009, "0 %"),
    ],
)
def test_only_all_of_them_are_all_of_them(rate: float, written: str) -> None:
    """A rate is rounded down: one that survived is never rounded away."""
    text = _rendered(GOOD, mutants=_mutants() | {"kill_rate": rate})

    assert f"(kill rate\n{written}, seed" in text


def test_a_pass_says_that_something_was_not_checked() -> None:
    """In the first sentence, which is all that many read."""
    some = not_checked("mutants", "none were asked for")

    assert "dumped, but for what was not checked: 1 table with 2 rows" in (
        _rendered(GOOD, some, tables=1, rows=2)
    )
    assert "but for" not in _rendered(GOOD)


@given(_texts, _texts, _texts)
def test_no_name_breaks_the_other_sections(one: str, two: str, three: str) -> None:
    """What was not checked and what was planted stay on their lines, in their cells."""
    mutants = _mutants(True)
    mutants["mutants"][0] |= {"kind": one, "target": two, "noticed_by": three}
    odd = _rendered(GOOD, not_checked(one, two), mutants=mutants)
    usual = _rendered(GOOD, not_checked("a", "b"), mutants=_mutants(True))
    (row,) = [line for line in odd.splitlines() if line.startswith("| noticed")]

    assert len(odd.splitlines()) == len(usual.splitlines())
    assert len(_cells(row)) == 6
