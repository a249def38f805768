"""Runbooks, walked through as processes, with a real ledger."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Project

SAMPLE = Path(__file__).parents[1] / "fixtures" / "runbooks" / "table-emptied.md"
STEPS = [
    "1. Stop the writers",
    "2. Remove what is left",
    "3. Bring the rows back",
    "4. Tell the users",
    "Proof that it worked",
]


class Desk(Project):
    """A folder with runbooks, a store, and no database."""

    def configure(self, more: str = "", *, url: str | None = None) -> None:
        """Write the configuration, and put the sample beside it."""
        (self.folder / "opskit.toml").write_text(
            f'[stores.local]\nurl = "{self.store.as_uri()}"\n{more}\n'
        )

    def rehearse(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Walk through the sample unattended."""
        given = ("--yes", "--destroys", "orders", *arguments)
        return self.json("runbook", "table-emptied", *given, code=code)

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the ledger."""
        lines = (self.folder / ".opskit" / "ledger.jsonl").read_text().splitlines()
        return [json.loads(each) for each in lines]

    def states(self) -> list[tuple[int, str]]:
        """Return the steps on record, each with its state."""
        return [
            (each["details"]["step"], each["details"]["state"])
            for each in self.records()
            if each["operation"] == "runbook-step"
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder with the sample runbook."""
    made = Desk(folder=tmp_path / "desk", url="")
    made.store.mkdir(parents=True)
    (made.folder / "runbooks").mkdir()
    shutil.copy(SAMPLE, made.folder / "runbooks")
    made.configure()
    return made


def test_a_rehearsal_does_every_step_and_is_listed(desk: Desk) -> None:
    """Each step is on record before and after, and the list names who and when."""
    before = desk.json("runbook", "--list")["runbooks"]

    done = desk.rehearse("--input", f"folder={desk.folder}", "--second", "ruth")

    assert [(each["last"], each["overdue"]) for each in before] == [(None, True)]
    assert done["status"] == "passed"
    assert (done["runbook"], done["rehearsal"]) == ("table-emptied", True)
    assert [each["name"] for each in done["steps"]] == STEPS
    ends = [each["status"] for each in done["steps"]]
    assert ends == ["ok", "ok", "ok", "by hand", "ok"]
    assert (desk.folder / "orders").read_text() == "rows\n"
    assert desk.states() == [(0, "begun")] + [
        (number, state) for number in range(1, 6) for state in ("begun", "done")
    ]
    (listed,) = desk.json("runbook")["runbooks"]
    assert listed["overdue"] is False
    assert listed["last"]["result"] == "passed"
    assert listed["last"]["rehearsal"] is True
    assert listed["last"]["second"] == "ruth"
    assert listed["last"]["operator"] == done["operator"] != ""
    assert "passed, rehearsal" in desk.run("runbook")
