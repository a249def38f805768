"""Errors of the operating system at any call: an exit code, a hint, nothing half-done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import injections
from tests.conftest import MakeDatabase
from tests.unit import stock

_MOST = 2


@pytest.mark.parametrize("task", ["backup", "drill-folder", "restore-folder"])
def test_no_error_of_the_system_is_a_fault_in_opskit(
    tmp_path: Path, make_database: MakeDatabase, task: str
) -> None:
    """Whatever fails, no task ends with 1, and every listed set is whole."""
    stock.program("strace")
    ground = injections.make_ground(tmp_path / "ground", make_database(16))
    cases = injections.cases(ground, task, most=_MOST)
    ended = [injections.inject(ground, case) for case in cases]

    assert len(cases) > 10
    assert [each for each in ended if each.faults] == []
    assert {each.code for each in ended} > {0}
