"""Processes of a service: started, on record, told from others, and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import DeployFailed

# The process puts itself on record before it becomes the service: whoever started it
# may be killed at any time.
_LAUNCH = """
cd "$1" &&
{ uname -n && cat /proc/sys/kernel/random/boot_id "/proc/$$/stat"; } >"$2.new" &&
mv "$2.new" "$2" && shift 2 && exec "$@"
"""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LOOK_SECONDS = 0.05
_KILL_SECONDS = 10.0
_RECORD_SECONDS = 60.0
_LOG_MODE = 0o640
# Fields of /proc/PID/stat, after the name of the program.
_STATE, _SESSION, _STARTED = 0, 3, 19
_ENDED = "Z", "X", "x"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that leads a session of its own.

    Its number may belong to another program by now: it is told from that by the time
    at which it was started, which the kernel counts from the start of the machine.
    """

    number: int
    started: str

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        found = _stat(self.number)
        if not found or found[_STARTED] != self.started:
            return False
        if found[_STATE] in _ENDED:
            with suppress(ChildProcessError):  # another run has started it
                os.waitpid(self.number, os.WNOHANG)
            return False
        return True

    def stop(self, seconds: float) -> None:
        """Tell its session to end; kill what is left of that after a while.

        Raises:
            DeployFailed: it cannot be ended.
        """
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self._has_left() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        deadline += _KILL_SECONDS
        while self._has_left():
            self._signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"the process {self.number} cannot be ended",
                    hint="Look at it: it may wait for a disk or a network.",
                )
            time.sleep(_LOOK_SECONDS)

    def _has_left(self) -> bool:
        """Return whether it or another process of its session runs."""
        return self.is_alive or any(self._session())

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to each process of its session."""
        for each in self._session():
            with suppress(OSError):  # it has ended
                handle = os.pidfd_open(each)
                try:
                    # Only now the number cannot pass to another process.
                    if each in self._session():
                        signal.pidfd_send_signal(handle, number)
                finally:
                    os.close(handle)

    def _session(self) -> Iterator[int]:
        """Yield the processes of its session.

        While one is left, no other process can get the number of the session.
        """
        leader = _stat(self.number)
        if leader and leader[_STARTED] != self.started:
            return
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                found = _stat(int(entry.name))
                is_left = found and found[_STATE] not in _ENDED
                if found and is_left and found[_SESSION] == str(self.number):
                    yield int(entry.name)


def start(
    command: Sequence[str],
    *,
    folder: Path,
    record: Path,
    log: Path,
    variables: Mapping[str, str],
) -> Process:
    """Start a process that outlives this one; return it when it is on record.

    Raises:
        DeployFailed: it cannot be started.
    """
    record.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        number = os.posix_spawnp(
            "sh",
            ["sh", "-c", _LAUNCH, "sh", str(folder), str(record), *command],
            _environment(variables),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), flags, _LOG_MODE),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *((os.POSIX_SPAWN_CLOSE, each) for each in _inherited()),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except OSError as error:
        raise DeployFailed(
            f"{command[0]} cannot be started", said=str(error)
        ) from error
    deadline = time.monotonic() + _RECORD_SECONDS
    while True:
        # In this order: it may end as soon as it is on record.
        has_ended = os.waitpid(number, os.WNOHANG)[0]
        found = read(record)
        if found and found.number == number:
            return found
        if has_ended or time.monotonic() > deadline:
            if not has_ended:  # it must not go on record after all
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
            raise DeployFailed(
                f"{command[0]} cannot be started", hint=f"See the end of {log}."
            )
        time.sleep(_LOOK_SECONDS)


def _inherited() -> list[int]:
    """Return what a process would get open from whoever started us.

    It may be a lock, or a pipe that somebody reads to its end.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the folder itself
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a process gets: not our own settings, which may hold secrets."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("OPSKIT_")}
    return own | dict(variables)


def read(record: Path) -> Process | None:
    """Return the process of a record; nothing if the machine was restarted since.

    Raises:
        DeployFailed: it is on record for another host.
    """
    try:
        host, boot, stat = record.read_text(encoding="utf-8").splitlines()
        number, fields = int(stat.split()[0]), _fields(stat)
    except (OSError, ValueError, IndexError):
        return None
    if host != os.uname().nodename:
        raise DeployFailed(
            f"the service was started on the host {host}",
            hint=f"Release on that host. If it is gone for good, remove {record}.",
        )
    if boot != _BOOT.read_text(encoding="ascii").strip():
        return None
    return Process(number=number, started=fields[_STARTED])


def _stat(number: int) -> list[str] | None:
    try:
        return _fields(Path(f"/proc/{number}/stat").read_text(errors="replace"))
    except (OSError, IndexError):
        return None


def _fields(stat: str) -> list[str]:
    return stat.rpartition(")")[2].split()
