"""Runs a command to its end and tells its time, its processors' time and its memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SAMPLE_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_GRACE_SECONDS = 20.0
_LOG_CHARACTERS_SHOWN = 800
# From the end of a process's name in /proc/PID/stat: utime, stime, and the same of
# its children that it has waited for.
_TIMES = slice(11, 15)


class ContenderFailed(Exception):
    """A command ended with an error or took too long: its time means nothing."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run of a command took.

    Args:
        seconds: from its start to its end.
        cpu_seconds: of all processes that it started and of its own servers.
        server_cpu_seconds: of the servers that it used.
        peak_bytes: the most that all its processes and own servers held at once;
            memory that several share counts once.
        own_peak_bytes: the most that its first process alone ever held.
        output: what it printed on standard output.
    """

    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_bytes: int
    own_peak_bytes: int
    output: str


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    servers: Sequence[int] = (),
    own_servers: Sequence[int] = (),
) -> Measured:
    """Run a command in a folder.

    `servers` and `own_servers` are processes that run already; the latter count as
    part of the command, for their work is what the command is about.

    Raises:
        ContenderFailed: it ended with an error or took longer than allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = (cpu_seconds_of(servers), cpu_seconds_of(own_servers), _waited_seconds())
    with (
        (folder / "errors.log").open("w+b") as errors,
        (folder / "output.log").open("w+b") as output,
    ):
        began = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            process_group=0,
        )
        sampler = _Sampler(process.pid, own_servers)
        timer = threading.Timer(timeout_seconds, _end, [process])
        try:
            sampler.start()
            timer.start()
            process.wait()
            seconds = time.perf_counter() - began
        finally:
            timer.cancel()
            sampler.stop()
            _end(process)
        printed, words = _text(output), _text(errors)
    if seconds >= timeout_seconds:
        raise ContenderFailed(f"it took longer than {timeout_seconds:g} s")
    if process.returncode != 0:
        words = (words or printed)[-_LOG_CHARACTERS_SHOWN:]
        raise ContenderFailed(
            f"exit code {process.returncode} after {seconds:.0f} s: {words}"
        )
    own_cpu = cpu_seconds_of(own_servers) - before[1]
    return Measured(
        seconds=seconds,
        cpu_seconds=_waited_seconds() - before[2] + own_cpu,
        server_cpu_seconds=cpu_seconds_of(servers) - before[0],
        peak_bytes=sampler.peak_bytes,
        own_peak_bytes=sampler.own_peak_bytes,
        output=printed,
    )


def descendants(root: int) -> list[int]:
    """Return a process and all that stem from it, as far as they still run."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        # Whatever is looked at here may end just now.
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{thread}/children")
                todo += [int(each) for each in children.read_text().split()]
    return found


class _Sampler(threading.Thread):
    """Looks at the memory of a tree of processes again and again."""

    def __init__(self, root: int, others: Sequence[int]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.peak_bytes = 0
        self.own_peak_bytes = 0
        self._root = root
        self._others = others
        self._ending = threading.Event()

    def run(self) -> None:
        while True:
            pids = descendants(self._root)
            for other in self._others:
                pids += descendants(other)
            self.peak_bytes = max(self.peak_bytes, sum(map(_held_bytes, pids)))
            own = _field_bytes(Path(f"/proc/{self._root}/status"), "VmHWM:")
            self.own_peak_bytes = max(self.own_peak_bytes, own)
            if self._ending.wait(_SAMPLE_SECONDS):
                return

    def stop(self) -> None:
        """End the sampling and wait for its end."""
        self._ending.set()
        self.join()


def _held_bytes(pid: int) -> int:
    """Return the memory of a process, its share alone of what others hold too."""
    own = _field_bytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
    return own or _field_bytes(Path(f"/proc/{pid}/status"), "VmRSS:")


def _field_bytes(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # it has ended, or belongs to somebody else
        return 0
    found = (line.split() for line in lines if line.startswith(name))
    return sum(int(words[1]) * _KIB for words in found)


def cpu_seconds_of(roots: Sequence[int]) -> float:
    """Return the processors' time of processes, what stems from them included."""
    return sum(_cpu_seconds(pid) for root in roots for pid in descendants(root))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(each) for each in fields[_TIMES]) / _TICKS


def _waited_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what still runs of a command: asked first, so that it can tidy up."""
    still = descendants(process.pid)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    # Its servers have groups of their own; its number is not its own once it was waited
    # for, its group's is as long as there is somebody in it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in still:
        if pid != process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
