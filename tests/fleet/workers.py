"""Workers: processes of `fleet-worker`, each with a folder and perhaps a network."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests import s3_servers
from tests.fleet.network import Place
from tests.processes import ROOT
from tests.support import bound
from tests.watching import until

_PROGRAM = (sys.executable, "-m", "opskit")
_PAUSE_SECONDS = 10.0
# The commands that jobs are, as they stand on their command lines.
_JOBS = (b"backup", b"restore-drill")


@dataclass(kw_only=True)
class Worker:
    """A worker whether it runs or not, with all the processes that are its own.

    `number` counts its starts, each of which has a log, and `life` its state folders.
    """

    name: str
    folder: Path
    stack: ExitStack
    arguments: Sequence[str] = ()
    place: Place | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    life: int = 1
    started_at: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.folder / f"state-{self.life}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of its processes."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
            "HOME": str(self.folder),
            "OPSKIT_CONFIG": str(self.folder / "opskit.toml"),
            "OPSKIT_STATE_DIR": str(self.state),
            **s3_servers.environment(),
            **self.environment,
        }

    @property
    def is_new(self) -> bool:
        """Whether it was started a moment ago."""
        return time.monotonic() - self.started_at < _PAUSE_SECONDS

    @property
    def may_start(self) -> bool:
        """Whether it ended, and a service manager would start it again by now."""
        return not self.runs and not self.is_new

    @property
    def runs(self) -> bool:
        """Whether its main process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self, **changes: str) -> None:
        """Start it; `changes` are variables for this time only."""
        self.number += 1
        self.started_at = time.monotonic()
        before = () if self.place is None else self.place.before
        self.process = self.stack.enter_context(
            bound(
                [*before, *_PROGRAM, "fleet-worker", *self.arguments],
                log=self.folder / f"{self.number}.log",
                cwd=self.folder,
                env=self.variables | changes,
            )
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of opskit to its end, with this worker's settings and state."""
        return subprocess.run(
            [*_PROGRAM, *arguments],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def drain(self) -> None:
        """Ask it to end when its jobs have ended."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill its main process alone: jobs that it started go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, also those whose parent is gone."""
        send(self.processes(), number)

    def lose(self) -> None:
        """End all of it at once, as when its machine loses its power."""

        def is_over() -> bool:
            found = self.processes()
            send(found, signal.SIGKILL)
            return not found  # nor did one start another meanwhile

        until(is_over)
        if self.process is not None:
            self.process.wait()

    def jobs(self) -> list[int]:
        """Return the processes of its jobs."""
        return [each for each in self.processes() if _is_job(each)]

    def processes(self) -> list[int]:
        """Return all processes with a state folder of it, and what these started."""
        mark = f"OPSKIT_STATE_DIR={self.folder}/".encode()
        parents = dict(_parents())
        ours = {each for each in parents if mark in _read(each, "environ")}
        while more := {e for e, p in parents.items() if p in ours and e not in ours}:
            ours |= more
        return sorted(ours)


def send(processes: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may have ended."""
    for each in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def _is_job(process: int) -> bool:
    words = _read(process, "cmdline").split(b"\0")
    return b"opskit" in words and any(each in words for each in _JOBS)


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process that is alive with its parent."""
    for path in Path("/proc").glob("[0-9]*"):
        # The name of a program, in brackets, may hold anything, also brackets.
        fields = _read(int(path.name), "stat").rpartition(b")")[2].split()
        if fields and fields[0] != b"Z":
            yield int(path.name), int(fields[1])


def _read(process: int, name: str) -> bytes:
    try:
        return Path("/proc", str(process), name).read_bytes()
    except OSError:
        return b""
