"""Releases and game days of the example service: some of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gamedays import scenario
from tests.gamedays.registry import SCENARIOS
from tests.releases.__main__ import DOCUMENT, recorded
from tests.releases.campaign import act, cells, ground
from tests.releases.cases import CASES
from tests.releases.site import Ground


@pytest.fixture(scope="module")
def made() -> Iterator[Ground]:
    """What sites are copies of, on a server of their own."""
    with ground() as found:
        yield found


def test_a_release_killed_in_a_migration_is_taken_back(made: Ground) -> None:
    """The tool goes on with the migration: its end is waited for, and no row is lost."""
    case = CASES["SIGKILL in the step migrate, then rollback"]

    assert act(made, case).faults(case) == []


@pytest.mark.parametrize("name", ["scheduler-killed", "database-lost"])
def test_a_system_is_broken_and_its_runbook_mends_it(made: Ground, name: str) -> None:
    """It is steady, then the sign links the runbook, and then it is steady again."""
    seen = scenario.act(made, SCENARIOS[name], hurried=True)

    assert seen.row().startswith(f"| [{SCENARIOS[name].runbook}](")


def test_the_table_says_how_each_case_must_end() -> None:
    """What the campaign has recorded is what it would accept today."""
    rows = recorded(DOCUMENT.read_text(encoding="utf-8"))

    assert list(rows) == [name for name in CASES if name in rows]
    for name, row in rows.items():
        case = CASES[name]
        assert row.startswith(
            f"| {cells(case.name, case.codes, case.version, case.schema)} |"
        )
    assert {name for name in CASES if not name.startswith("SIG")} <= rows.keys()
