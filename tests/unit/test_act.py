"""What is taken out of a workflow for act, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.act.machine import without_unknown
from tests.processes import ROOT

WORKFLOWS = [*ROOT.glob("workflows/*.yml"), *ROOT.glob(".github/workflows/*.yml")]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_act_knows_all_of_a_workflow_but_two_keys(
    workflow: Path, tmp_path: Path
) -> None:
    """What it gets lacks only lines with these two, and is what it takes for valid."""
    before = workflow.read_text().splitlines()
    path = tmp_path / workflow.name
    path.write_text(without_unknown(workflow.read_text()))
    after = path.read_text().splitlines()

    taken = [line.strip() for line in before if line not in after]
    assert set(taken) <= {"queue: max", "deployment: false"}
    assert after == [line for line in before if line.strip() not in taken]
    assert _refusals(path, tmp_path) == ""


def test_act_refuses_what_nobody_knows(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    path = tmp_path / "workflow.yml"
    path.write_text("on: push\njobs: {}\nqueue: max\n")

    assert "Unknown Property queue" in _refusals(path, tmp_path)


def _refusals(workflow: Path, home: Path) -> str:
    done = subprocess.run(
        [Path(sys.executable).parent / "act", "--validate", "--strict", "-W", workflow],
        cwd=home,
        env={"HOME": str(home), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr if done.returncode else ""
