"""Outcomes: what an operation gives back, and what the ledger learns of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import (
    BackupFailed,
    ConfigurationError,
    LockHeld,
    OpskitError,
    SmokeFailed,
    StoreError,
    UsageError,
)
from opskit.operations.outcome import Failure, Outcome, worst
from opskit.operations.run import Run
from tests.unit.conftest import LoadConfig


@dataclasses.dataclass(frozen=True)
class Counted:
    """A result with a status of its own, which the document does not take."""

    number: int

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return {"number": self.number, "status": "passed"}


@pytest.fixture
def run(load_config: LoadConfig, tmp_path: Path) -> Run:
    """A run with one store."""
    (tmp_path / "store").mkdir()
    url = (tmp_path / "store").as_uri()
    return Run(load_config(f'[stores.local]\nurl = "{url}"'))


def _raise(error: Exception) -> None:
    raise error


def _records(run: Run) -> list[dict[str, Any]]:
    path = run.state_dir / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_went_well_is_on_record(run: Run) -> None:
    """The outcome has the result, and the ledger what the operation told it."""
    with run.recorded("verify", "shop") as record:
        record.begin(sets=3)
        record.result = Counted(3)
    outcome = record.outcome

    assert (outcome.status, outcome.exit_code, outcome.errors) == ("ok", 0, ())
    assert (outcome.operation, outcome.subject) == ("verify", "shop")
    assert outcome.as_json() == {"status": "ok", "run_id": run.run_id, "number": 3}
    (entry,) = _records(run)
    assert (entry["operation"], entry["outcome"]) == ("verify", "ok")
    assert entry["details"] == {"sets": 3}
    assert entry["started_at"] == outcome.started_at.isoformat()
    assert entry["seconds"] == outcome.seconds


def test_an_error_is_a_value_beside_the_result(run: Run) -> None:
    """It ends the block, decides about the exit code, and stands in the ledger."""
    with run.recorded("backup") as record:
        record.begin(source="warehouse")
        record.result = Counted(1)
        record.report(LockHeld("earlier", hint="wait"))
        _raise(
            BackupFailed("pg_dump failed", said="row 42", hint="look", details={"a": 1})
        )
    outcome = record.outcome

    assert [each.exit_code for each in outcome.errors] == [40, 11]
    assert outcome.as_json() == {
        "status": "error",
        "run_id": run.run_id,
        "code": 40,
        "error": "pg_dump failed: row 42",
        "hint": "look",
        "a": 1,
        "number": 1,
    }
    (entry,) = _records(run)
    assert entry["outcome"] == "failed"
    assert entry["details"] == {
        "source": "warehouse",
        "error": "pg_dump failed",
        "code": 40,
    }


def test_what_is_reported_leaves_the_record_good(run: Run) -> None:
    """An operation that did its work may have an error to report."""
    with run.recorded("restore-drill") as record:
        record.begin()
        record.status = "failed"
        record.report(OpskitError("it did not pass"))

    assert (record.outcome.status, record.outcome.exit_code) == ("failed", 1)
    assert [each["outcome"] for each in _records(run)] == ["ok"]


def test_what_never_began_is_not_on_record(run: Run) -> None:
    """A wrong call touches nothing, and the ledger is what was touched."""
    with run.recorded("backup") as record:
        _raise(UsageError("no such source"))

    assert record.outcome.exit_code == 2
    assert not (run.state_dir / "ledger.jsonl").exists()


def test_an_interruption_goes_on_and_is_on_record(run: Run) -> None:
    """Who called decides what to do about it."""

    def prune() -> None:
        with run.recorded("prune") as record:
            record.begin(deleted=["a"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune()

    (entry,) = _records(run)
    assert (entry["outcome"], entry["details"]) == ("interrupted", {"deleted": ["a"]})


def test_a_fault_in_opskit_is_raised_and_on_record(run: Run) -> None:
    """It is no outcome: somebody has to mend it."""

    def prune() -> None:
        with run.recorded("prune") as record:
            record.begin()
            print(1 // 0)

    with pytest.raises(ZeroDivisionError):
        prune()

    assert [each["outcome"] for each in _records(run)] == ["failed"]


def test_what_the_machine_refuses_is_an_outcome(run: Run) -> None:
    """A full disk in a backup is a backup that failed."""
    with run.recorded("backup") as record:
        record.begin()
        _raise(OSError(28, "No space left on device", "/data"))

    assert record.outcome.exit_code == BackupFailed.exit_code
    assert "No space left" in record.outcome.errors[0].message


def test_nothing_is_done_where_the_ledger_cannot_be_written(
    load_config: LoadConfig, tmp_path: Path
) -> None:
    """The run ends as it begins, before anything is touched."""
    (tmp_path / "file").write_text("")
    run = Run(load_config('state_dir = "file"\n[stores.local]\nurl = "file:///none"'))
    done = False
    with run.recorded("backup") as record:
        record.begin()
        done = True

    assert not done
    assert record.outcome.exit_code == 2


def test_the_worst_of_several_errors_decides() -> None:
    """What is known about data comes before what could not be done."""
    errors = [Failure.of(LockHeld("a")), Failure.of(StoreError("b"))]

    assert worst(errors).message == "b"


def test_a_service_that_fails_comes_before_what_could_not_be_done() -> None:
    """The scheduler ends with the code of the worst of its jobs."""
    errors = [LockHeld("a"), UsageError("b"), SmokeFailed("c"), StoreError("d")]

    assert worst([Failure.of(each) for each in errors[:3]]).message == "c"
    assert worst([Failure.of(each) for each in errors]).message == "d"


def test_an_outcome_is_frozen(run: Run) -> None:
    """Nobody edits what became of an operation."""
    with run.recorded("verify") as record:
        pass
    outcome: Outcome[Any] = record.outcome

    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.status = "passed"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("error", "recorded"),
    [(StoreError("away"), True), (ConfigurationError("no key"), True),
     (UsageError("no such set"), False)],
)  # fmt: skip
def test_an_error_before_the_beginning_is_on_record_unless_the_call_was_wrong(
    error: OpskitError, recorded: bool, run: Run
) -> None:
    """Whoever watches learns of a drill that could not even choose its set."""
    with run.recorded("restore-drill", "shop", watched=True) as record:
        _raise(error)

    assert record.outcome.exit_code == error.exit_code
    assert (record.entry is not None) is recorded
    if record.entry is not None:
        assert (record.entry.outcome, record.entry.details["source"]) == (
            "failed",
            "shop",
        )
