"""Jobs: each a process of its own, with a time limit, and never the same one twice."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

from opskit import files
from opskit.config.watch import SchedulerSettings
from opskit.errors import (
    LockHeld,
    RetentionRefused,
    SmokeFailed,
    StoreError,
    UsageError,
    failure_of,
)
from opskit.operations.outcome import Failure
from opskit.operations.schedule import Job
from opskit.threads import Thread

_LOOK_SECONDS = 0.5
_PROGRAM = (sys.executable, "-P", "-m", "opskit")
_HINT = "What the job said is in the log of the scheduler."
# Errors whose words hold no rows of a database: copies of the ledger are not encrypted.
_WITHOUT_ROWS = {
    each.exit_code
    for each in (UsageError, StoreError, LockHeld, RetentionRefused, SmokeFailed)
}
Cause = Literal["", "late", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the process of a job ended: by itself, over its limit, or stopped."""

    code: int
    cause: Cause = ""
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        """The id of its run, if it printed one."""
        return str(self.document.get("run_id", ""))

    def failure(self, job: Job) -> Failure:
        """Return the failure that is reported of a job."""
        killed = failure_of(job.operation).exit_code
        code = self.code if self.code > 0 else killed
        message = f"it ended with exit code {code}"
        if code in _WITHOUT_ROWS:
            message = str(self.document.get("error", message))
        if self.cause == "late":
            code = killed
            message = "it was ended: it took longer than scheduler.job_timeout"
        elif self.code < 0:
            message = f"it was ended by signal {-self.code}"
        return Failure(
            exit_code=code,
            message=f"{job.name}: {message}",
            hint=str(self.document.get("hint", "")) or _HINT,
        )


class Running:
    """A job that runs, for the run that was due at a time."""

    ended: Ended | None = None

    def __init__(
        self,
        job: Job,
        at: datetime,
        *,
        process: subprocess.Popen[bytes],
        output: IO[bytes],
        settings: SchedulerSettings,
        on_end: Callable[[], None],
    ) -> None:
        self.job, self.at = job, at
        self._process, self._output = process, output
        self._settings, self._on_end = settings, on_end
        self._cause: Cause = ""
        self._deadline = time.monotonic() + settings.job_timeout.total_seconds()
        self._thread = Thread(self._watch, name=f"job {job.name}")

    def stop(self, cause: Cause = "stopped") -> None:
        """Ask the process to end; what is left of it after a while is killed."""
        if not self._cause:
            self._cause = cause
            seconds = self._settings.stop_timeout.total_seconds()
            self._deadline = time.monotonic() + seconds
            # A job that is late records a failure, not an interrupt.
            late = cause == "late"
            self._process.send_signal(signal.SIGALRM if late else signal.SIGTERM)

    def _watch(self) -> None:
        while True:
            try:
                code = self._process.wait(timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self._enforce()
        self._output.seek(0)
        self.ended = Ended(
            code=code, cause=self._cause, document=_document(self._output.read())
        )
        self._output.close()
        self._on_end()

    def _enforce(self) -> None:
        if time.monotonic() < self._deadline:
            return
        if not self._cause:
            self.stop("late")
            return
        # With all that it started: the group has the number of its first process.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def launch(
    job: Job,
    at: datetime,
    *,
    settings: SchedulerSettings,
    configuration: bytes,
    state_dir: Path,
    on_end: Callable[[], None],
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Running:
    """Start a job in a process group of its own.

    The configuration is the content of the file as it was read: a job must not meet one
    that is broken, or one that somebody is just writing.
    The process holds the job's lock in the state folder for as long as it lives, also
    when whoever started it is gone.

    Raises:
        LockHeld: the job runs already, started by another process.
        OSError: the process or its lock cannot be made.
    """
    lock = _lock(job, state_dir / "locks")
    try:
        # Not a pipe: a job whose scheduler was killed must still be able to write.
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the job has ended
        with tempfile.TemporaryFile() as file:
            file.write(configuration)
            file.seek(0)
            process = subprocess.Popen(
                [*_PROGRAM, job.operation, *job.arguments, "--json"],
                env=os.environ
                | {
                    "OPSKIT_CONFIG": f"/dev/fd/{file.fileno()}",
                    "OPSKIT_STATE_DIR": str(state_dir),
                    "OPSKIT_SCHEDULED": "1",  # what is interrupted is made up for
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                start_new_session=True,
                pass_fds=[lock, file.fileno()],
            )
        record = {"pid": process.pid, "started_at": at.isoformat()}
        with suppress(OSError):  # it only says who holds the lock
            os.pwrite(lock, json.dumps(record).encode(), 0)
    finally:
        os.close(lock)
    return Running(
        job, at, process=process, output=output, settings=settings, on_end=on_end
    )


def _lock(job: Job, folder: Path) -> int:
    files.make_directories(folder)
    path = folder / f"job-{'-'.join(filter(None, job.key))}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
    except BlockingIOError:
        holder = os.read(descriptor, 1024).decode(errors="replace")
        os.close(descriptor)
        raise LockHeld(
            f"{job.name} runs already ({holder})",
            hint="It was started by a scheduler that is gone; it runs to its end.",
        ) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _document(output: bytes) -> dict[str, Any]:
    """Return the JSON document that a task has printed, empty if there is none."""
    try:
        document = json.loads(output)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
