"""Releases of the example service beside a client that writes: one of the campaign."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import MajorServer
from tests.releases.__main__ import DOCUMENT, recorded
from tests.releases.campaign import act, cells
from tests.releases.cases import CASES
from tests.releases.site import make_ground


def test_a_release_killed_in_a_migration_is_taken_back(
    server_of: MajorServer, tmp_path: Path
) -> None:
    """The tool goes on with the migration: its end is waited for, and no row is lost."""
    case = CASES["SIGKILL in the step migrate, then rollback"]

    assert act(make_ground(tmp_path, server_of(16)), case).faults(case) == []


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
