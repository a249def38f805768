"""Programs of the user: what they print, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from opskit import process_group

_LEAVES_A_CHILD = "sleep 300 & echo $! >new && mv new child; exec sleep 300"
_ENDS_WELL = "trap 'echo ended >told; exit' TERM; echo >ready; sleep 300 & wait"


def _is_gone(number: int) -> bool:
    try:
        os.kill(number, 0)
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"


def test_its_output_its_errors_and_its_code_come_back(tmp_path: Path) -> None:
    """Each for itself; it runs in its folder, in the environment that is given."""
    script = 'pwd; echo "$WORD" >&2; exit 3'

    outcome = process_group.captured(
        ["/bin/sh", "-c", script], seconds=60, folder=tmp_path,
        environment={"WORD": "so"},
    )  # fmt: skip

    assert outcome == (3, f"{tmp_path.resolve()}\n", "so\n")


def test_it_may_leave_its_input_unread() -> None:
    """Much more than fits into a pipe."""
    content = b"x" * 10_000_000

    assert process_group.run(["/bin/true"], seconds=60, content=content) == 0


def test_its_input_is_what_was_given() -> None:
    """To the last byte; without any, it reads nothing."""
    count = "import sys; sys.exit(len(sys.stdin.buffer.read()))"
    command = [sys.executable, "-c", count]

    assert process_group.run(command, seconds=60, content=b"abc") == 3
    assert process_group.run(command, seconds=60) == 0


def _run_too_long(script: str, folder: Path, sign: str, patience: float = 0) -> str:
    """Let a script take too long, but long enough to leave a sign, and return that."""
    for seconds in (1, 5, 60):
        with pytest.raises(subprocess.TimeoutExpired):
            process_group.captured(
                ["/bin/sh", "-c", script], seconds=seconds, patience=patience,
                folder=folder, environment=os.environ,
            )  # fmt: skip
        if (folder / sign).exists():
            break
    return (folder / sign).read_text()


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """The process that it has started is killed too."""
    child = int(_run_too_long(_LEAVES_A_CHILD, tmp_path, "child"))

    deadline = time.monotonic() + 60
    while not _is_gone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _is_gone(child)


def test_with_patience_it_may_end_by_itself_first(tmp_path: Path) -> None:
    """It can release what it holds."""
    _run_too_long(_ENDS_WELL, tmp_path, "ready", patience=60)

    assert (tmp_path / "told").read_text() == "ended\n"


def test_a_program_that_is_not_there_is_an_error() -> None:
    """For the caller to say."""
    with pytest.raises(FileNotFoundError):
        process_group.run(["/no/such/program"], seconds=60)


def test_an_interrupt_while_it_begins_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs already, and nobody knows of it yet."""

    class Beginning(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            deadline = time.monotonic() + 60
            while not (tmp_path / "number").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)

    script = "echo $$ >new && mv new number; exec sleep 300"
    monkeypatch.setattr(subprocess, "Popen", Beginning)
    with pytest.raises(KeyboardInterrupt):
        process_group.run(["/bin/sh", "-c", script], seconds=60, folder=tmp_path)

    assert _is_gone(int((tmp_path / "number").read_text()))
