"""Hooks: programs before and after operations, with the outcome on their input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opskit import log
from opskit.errors import BackupFailed, StoreError
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run, begin
from opskit.watch import runs
from tests.unit.conftest import LoadConfig

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(load_config: LoadConfig, tmp_path: Path) -> MakeRun:
    """Return a function that begins a run with hooks."""
    (tmp_path / "store").mkdir()
    url = (tmp_path / "store").as_uri()

    def make_run(timeout: str = "60s", **hooks: list[str]) -> Run:
        lines = [f"{name} = {json.dumps([each])}" for name, each in hooks.items()]
        return runs.observed(
            begin(
                load_config(
                    f'log_format = "json"\n[stores.local]\nurl = "{url}"\n'
                    f'[hooks]\ntimeout = "{timeout}"\n' + "\n".join(lines)
                )
            )
        )

    return make_run


def _keeping(path: Path) -> list[str]:
    """Return a program that appends what it gets to a file."""
    return ["sh", "-c", f"cat >>{path}; echo >>{path}"]


def _kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _backup(run: Run, *errors: Exception) -> Outcome[Any]:
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        record.result = None
        if errors:
            raise errors[0]
    return record.outcome


def test_the_outcome_is_on_the_input_of_what_runs_after(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Another program runs after a failure than after a success."""
    kept = {name: tmp_path / name for name in ("before", "after", "failed")}
    run = make_run(**{name: _keeping(path) for name, path in kept.items()})
    _backup(run)
    _backup(run, BackupFailed("no space", hint="Free some."))

    about = {"operation": "backup", "source": "shop", "run_id": run.run_id}
    assert _kept(kept["before"]) == [about | {"outcome": "started"}] * 2
    assert _kept(kept["after"]) == [about | {"outcome": "ok", "status": "ok"}]
    (failed,) = _kept(kept["failed"])
    assert failed == about | {
        "outcome": "failed",
        "status": "error",
        "code": 40,
        "error": "no space",
        "hint": "Free some.",
    }


def test_a_program_gets_no_secret(make_run: MakeRun, tmp_path: Path) -> None:
    """Neither in an error nor in a hint."""
    path = tmp_path / "failed"
    run = make_run(failed=_keeping(path))
    log.hide("hunter2-of-shop")
    _backup(run, BackupFailed("no hunter2-of-shop", hint="Not hunter2-of-shop."))

    assert "hunter2" not in path.read_text()
    assert _kept(path)[0]["hint"] == "Not ***."


def test_what_was_done_in_part_has_failed(make_run: MakeRun, tmp_path: Path) -> None:
    """A set that one store did not take."""
    path = tmp_path / "failed"
    run = make_run(failed=_keeping(path), after=["false"])
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        record.report(StoreError("offsite is away"))

    assert [each["outcome"] for each in _kept(path)] == ["failed"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["false"], "ended with 1"),
        (["./no-such-program"], "cannot be run: No such file or directory"),
        (["sh", "-c", "kill -9 $$"], "ended with -9"),
    ],
)
def test_a_program_that_fails_afterwards_is_a_warning(
    program: list[str],
    reason: str,
    make_run: MakeRun,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The backup has been taken."""
    outcome = _backup(make_run(after=program))

    assert outcome.exit_code == 0
    (warning,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (warning["event"], warning["reason"]) == ("a hook failed", reason)


def test_a_program_that_fails_before_keeps_the_operation_from_beginning(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """What it was to prepare is missing; this is on record, and runs `failed`."""
    path = tmp_path / "failed"
    run = make_run(before=["false"], failed=_keeping(path))
    outcome = _backup(run, AssertionError("it began"))

    assert outcome.exit_code == 2
    assert outcome.errors[0].message == "the hook false ended with 1"
    (entry,) = run.ledger.entries()
    assert (entry.outcome, entry.details["code"]) == ("failed", 2)
    assert [each["code"] for each in _kept(path)] == [2]


def test_a_program_that_takes_too_long_is_ended_with_its_children(
    make_run: MakeRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole process group is."""
    path = tmp_path / "pid"
    hanging = ["sh", "-c", f"sleep 600 & echo $! >{path}; wait"]
    for seconds in (5, 60):  # a busy machine may not have started it in five
        path.write_text("")
        _backup(make_run(timeout=f"{seconds}s", after=hanging))
        said = capfd.readouterr().err
        assert f"took longer than {seconds} s and was ended" in said
        if path.read_text():
            break

    child = int(path.read_text())
    deadline = time.monotonic() + 60
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_what_a_program_prints_is_not_mixed_with_the_result(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output is for the one JSON document."""
    _backup(make_run(after=["sh", "-c", "echo said; echo complained >&2"]))

    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["said", "complained"]


def test_a_program_has_the_environment_of_the_process_and_no_more(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """Secrets of the configuration do not get there, nor into a shell."""

    def dump(name: str) -> list[str]:
        code = (
            "import os, json, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
        )
        return [sys.executable, "-c", code, str(tmp_path / name)]

    _backup(make_run(after=dump("of-the-hook")))
    subprocess.run(dump("of-a-child"), check=True)

    of_the_hook, of_a_child = (
        json.loads((tmp_path / each).read_text())
        for each in ("of-the-hook", "of-a-child")
    )
    assert of_the_hook == of_a_child
