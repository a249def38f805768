"""Schedulers that run as processes, and the ledger that they work by."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opskit.ledger import Ledger
from tests.acceptance.services import Service

PATIENCE_SECONDS = 90
# Jobs that a test does not mention do not run.
QUIET = '[scheduler]\nlisten = ""\nverify = ""\ndrill = ""\nprune = ""\nreport = ""\n'


def hourly() -> str:
    """Return a line that was due five minutes ago, and is not again during a test."""
    return f"{(datetime.now(UTC) - timedelta(minutes=5)).minute} * * * *"


def eventually(what: Callable[[], Any], *, that: str) -> Any:
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, f"not in time: {that}"
        time.sleep(0.05)
    return found


class Scheduled(Service):
    """A service with a configuration that the scheduler runs."""

    line: str = ""

    @property
    def ledger(self) -> Ledger:
        """The ledger of this host."""
        return Ledger(self.folder / ".opskit" / "ledger.jsonl")

    def since(self, ago: timedelta, **lines: str) -> None:
        """Have the ledger say that it has had these lines for some time."""
        for each in ({}, lines):
            written = {
                name.replace("__", " ").replace("_", "-"): f"{line} UTC"
                for name, line in each.items()
            }
            self.ledger.append(
                now=datetime.now(UTC) - ago,
                run_id="before",
                operation="scheduler",
                outcome="ok",
                details={"lines": written},
            )

    def job(self, name: str) -> int:
        """Wait until a job runs, and return its process id."""
        path = self.folder / ".opskit" / "locks" / f"job-{name}.lock"

        def pid() -> int:
            text = path.read_text() if path.exists() else ""
            found = int(json.loads(text)["pid"]) if text else 0
            return found if Path(f"/proc/{found}/cmdline").exists() else 0

        return int(eventually(pid, that=f"{name} runs"))

    def wait_for(self, operation: str, outcome: str, number: int = 1) -> None:
        """Wait until the ledger has so many records."""
        eventually(
            lambda: len(self.records(operation, outcome)) >= number,
            that=f"{number} times {operation} {outcome}",
        )

    def records(self, operation: str, outcome: str = "") -> list[dict[str, Any]]:
        """Return what the ledger has of an operation."""
        entries, _faults = self.ledger.readable()
        return [
            vars(each)
            for each in entries
            if each.operation == operation and outcome in ("", each.outcome)
        ]

    def daemon(self, stack: ExitStack, name: str = "daemon") -> Daemon:
        """Start a scheduler, which ends with the test at the latest."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        daemon = Daemon(self.folder, name)
        stack.callback(daemon.kill)
        return daemon


class Daemon:
    """A scheduler or a worker as a process, its output in a file."""

    def __init__(self, folder: Path, name: str, *command: str) -> None:
        self._output = folder / f"{name}.log"
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "opskit", *(command or ["scheduler"])],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "TMPDIR": str(folder / "tmp")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def says(self, words: str, times: int = 1) -> None:
        """Wait until it has said something."""
        eventually(
            lambda: (
                self.output.count(words) >= times or self.process.poll() is not None
            ),
            that=words,
        )
        assert self.output.count(words) >= times, self.output

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the kernel would, and wait for its end."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def end(self) -> int:
        """Tell it to end, and return its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)
