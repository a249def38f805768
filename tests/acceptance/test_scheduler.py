"""The scheduler as a process: what is due runs, whatever happened before."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from tests.acceptance.scheduling import QUIET, Scheduled, eventually, hourly


@pytest.fixture
def service(tmp_path: Path) -> Scheduled:
    """A folder of state with an hourly backup."""
    made = Scheduled(tmp_path)
    made.line = hourly()
    made.set_up(QUIET, of_state=f'schedule = "{made.line}"')
    made.fill(a="one")
    return made


def test_the_first_call_learns_the_timetable(service: Scheduled) -> None:
    """What was due before opskit knew of it was not missed."""
    assert "begins" not in service.run("scheduler", "--once")
    assert "begins" not in service.run("scheduler", "--once")

    (learnt,) = service.records("scheduler")
    assert learnt["details"] == {"lines": {"backup state": f"{service.line} UTC"}}
    assert service.records("backup") == []


def test_once_runs_what_is_due_and_records_what_was_missed(service: Scheduled) -> None:
    """Of three overdue runs one is made up for, and two were missed."""
    service.since(timedelta(hours=3), backup__state=service.line)

    assert "backup state, due at " in service.run("scheduler", "--once")

    (missed,) = service.records("backup", "missed")
    (made,) = service.records("backup", "ok")
    assert missed["details"]["due"]["number"] == 2
    assert missed["details"]["source"] == "state"
    assert missed["sequence"] < made["sequence"]
    assert "begins" not in service.run("scheduler", "--once")
    assert service.json("backups")["backups"][0]["source"] == "state"


def test_the_exit_code_of_once_is_that_of_the_worst_job(service: Scheduled) -> None:
    """A failed backup is the failure of the call, and it counts as a run."""
    service.since(timedelta(minutes=61), backup__state=service.line)
    (service.state / "a").unlink()
    service.state.rmdir()

    service.run("scheduler", "--once", code=40)

    assert "hint: " in service.errors
    assert len(service.records("backup", "failed")) == 1
    assert "begins" not in service.run("scheduler", "--once")


def test_a_job_that_cannot_be_started_is_a_failure_of_the_call(
    service: Scheduled,
) -> None:
    """There is no room for what it prints."""
    service.since(timedelta(minutes=61), backup__state=service.line)
    script = (
        "import tempfile\n"
        "def refuse(*_arguments, **_options): raise OSError(28, 'No space left')\n"
        "tempfile.TemporaryFile = refuse\n"
        "from opskit.__main__ import main\n"
        "main(['scheduler', '--once'])\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=service.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 40, ended.stderr
    assert len(service.records("backup", "failed")) == 1


def test_the_daemon_backs_up_what_is_due_and_ends_cleanly(service: Scheduled) -> None:
    """It leads at once, runs the overdue backup, and SIGTERM ends it with 0."""
    service.since(timedelta(minutes=61), backup__state=service.line)
    with ExitStack() as stack:
        daemon = service.daemon(stack)

        eventually(lambda: service.records("backup", "ok"), that="a backup")

        assert daemon.end() == 0


def test_what_another_host_has_run_is_not_run_again(
    service: Scheduled, tmp_path: Path
) -> None:
    """A scheduler that takes over knows the ledgers of all hosts by their copies."""
    service.since(timedelta(hours=3), backup__state=service.line)
    service.run("scheduler", "--once")
    other = Scheduled(tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "opskit.toml").write_text(
        (service.folder / "opskit.toml").read_text()
    )
    other.since(timedelta(hours=5), backup__state=service.line)

    assert "begins" not in other.run("scheduler", "--once")

    assert other.records("backup") == []
