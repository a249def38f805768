"""Runs the domain's main functions with what a task would give them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import conninfo

from opskit.backup.create import BackupResult, create_backup
from opskit.backup.database import DatabaseBackup
from opskit.catalog import catalog
from opskit.catalog.sets import BackupSet
from opskit.checks import Check
from opskit.config import DrillSettings
from opskit.drill.report import DrillEvidence
from opskit.drill.run import DrillRequest, drill
from opskit.postgres import content
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs
from opskit.postgres.servers.programs import Installation
from opskit.restore import engine
from opskit.restore.fill import Filled, fill
from opskit.restore.job import FillJob
from opskit.store import LocalStore, Store
from opskit.workspace import Limits
from tests import initialised

SOURCE = "shop"
# What a drill is given beside its settings, and settings that tests call otherwise.
_GIVEN = {"mutants", "identities"}
_SETTINGS = {"kind": "server", "allowed": "allow"}


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def back_up(
    url: str,
    store_dir: Path,
    *,
    stores: Sequence[Store] | None = None,
    installations: Sequence[Installation] | None = None,
    **options: Any,
) -> BackupResult:
    """Back a database up into a local store."""
    found = programs.installations() if installations is None else installations
    return create_backup(
        DatabaseBackup(name=SOURCE, url=url, installations=found, **options),
        [LocalStore("local", store_dir)] if stores is None else stores,
        run_id="abc123",
        state_dir=store_dir.parent / "state",
        clock=now,
    )


def sets(store_dir: Path) -> list[BackupSet]:
    """Return the sets in a local store, newest first."""
    return list(catalog.read([LocalStore("local", store_dir)]).sets)


LIMITS = Limits(seconds=300, jobs=2)


def limits_of(options: dict[str, Any]) -> Limits:
    """Take the limits of a drill or restore out of a test's options."""
    return Limits(
        seconds=options.pop("timeout_seconds", LIMITS.seconds),
        jobs=options.pop("jobs", LIMITS.jobs),
        work_dir=options.pop("work_dir", None),
    )


def run_drill(
    chosen: BackupSet,
    *,
    tamper: Callable[[str], None] | None = None,
    installations: Sequence[Installation] | None = None,
    **options: Any,
) -> DrillEvidence:
    """Drill a set; `tamper` damages the copy, at its URL, once it has been loaded."""
    limits = limits_of(options)
    given = {name: options.pop(name) for name in _GIVEN & options.keys()}
    own = {_SETTINGS.get(name, name): each for name, each in options.items()}
    request = DrillRequest(
        chosen=chosen,
        installations=(
            programs.installations() if installations is None else installations
        ),
        run_id="def456",
        limits=limits,
        settings=DrillSettings(work_dir=limits.work_dir, **own),
        **given,
    )
    with initialised.copied(), pytest.MonkeyPatch.context() as patch:
        if tamper is not None:
            patch.setattr(engine, "fill", _tampering(tamper))
            # Somebody writes into the copy, as a function of the database might.
            patch.setattr(content, "runs_own_code", lambda _connection: True)
        return drill(request, clock=now)


def _tampering(tamper: Callable[[str], None]) -> Callable[..., Filled]:
    def fill_and_tamper(job: FillJob) -> Filled:
        filled = fill(job)
        tamper(filled.url)
        return filled

    return fill_and_tamper


def failed(evidence: DrillEvidence) -> list[Check]:
    """Return the checks that did not pass."""
    return evidence.failed


def execute(url: str, script: str) -> None:
    """Run a script in a database."""
    with connect(url, purpose="test") as connection:
        connection.execute(script.encode())


def value(url: str, statement: str) -> Any:
    """Return the single value of a query."""
    with connect(url, purpose="test") as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


def users_own(url: str) -> str:
    """Return the URL of a throw-away server as that of a server of the user."""
    parameters = parse(url)
    parameters.pop("fallback_application_name")
    return conninfo.make_conninfo("", **parameters)


def processes_of(words: object) -> list[int]:
    """Return the processes with these words on their command line, such as a path."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(words).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


# Becomes a program that the kernel kills (Linux) when the process that started it dies.
_BOUND = """
import ctypes, os, signal, sys
user = int(sys.argv[1])
if user >= 0:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def bound(
    command: Sequence[str], *, log: Path, user: int = -1, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that ends with the block, or with this process if it is killed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOUND, str(user), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **options,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
