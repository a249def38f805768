"""State: what is known of sources, stores, host and ledger at one time.

Health, metrics, the page and reports read a State, and nothing else.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opskit import __version__, log
from opskit.catalog import catalog, retention
from opskit.catalog.catalog import Catalog
from opskit.catalog.sets import ListedSet, Unreadable
from opskit.config import DatabaseSettings, FolderSettings
from opskit.config.cron import longest_interval
from opskit.doctor import stores as probes
from opskit.errors import OpskitError, StoreError
from opskit.ledger import LedgerEntry
from opskit.operations import keys
from opskit.operations.run import Run
from opskit.store import LocalStore, Store, unwrapped
from opskit.threads import Pool, Thread
from opskit.watch.receivers import last_notified

_PROBES_AT_ONCE = 16
_MEMORY = Path("/proc/meminfo")
# Lists of large stores cost money; what this host does is seen at once.
_LISTED_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether something that opskit depends on answered, and how.

    The offset is that of its clock: positive if it is ahead of this host's.
    """

    error: str = ""
    hint: str = ""
    latency_seconds: float | None = None
    clock_offset_seconds: float | None = None

    @property
    def reachable(self) -> bool:
        """Whether it answered."""
        return not self.error


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much is left of memory, or of the file system where a folder lies."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class StoreState(Answer):
    """One store and its sets; `disk` only of a store in a folder of this host."""

    name: str
    sets: tuple[ListedSet, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    listed_at: datetime | None = None
    disk: Room | None = None


@dataclass(frozen=True, kw_only=True)
class DrillRecord:
    """One drill; drills of other hosts are known by their evidence alone."""

    finished_at: datetime
    passed: bool
    backup_id: str
    run_id: str
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourceState(Answer):
    """One source: its database or folder, its sets, its runs.

    `sets` and `drills` begin with the newest, `runs`, the records about this source,
    with the oldest. `last_success` gives, by store, when the newest set there was
    finished.
    """

    name: str
    kind: str
    schedule: str
    interval_seconds: float | None
    max_age: timedelta
    drill_max_age: timedelta
    sets: tuple[ListedSet, ...]
    unconfirmed_changes: tuple[str, ...]
    last_success: Mapping[str, datetime]
    runs: tuple[LedgerEntry, ...]
    drills: tuple[DrillRecord, ...]

    @property
    def backups(self) -> list[LedgerEntry]:
        """The backups that began, however they ended, the oldest first."""
        return [
            each
            for each in self.runs
            if each.operation == "backup" and each.outcome != "missed"
        ]

    @property
    def last_passed(self) -> DrillRecord | None:
        """The newest drill that passed."""
        return next((each for each in self.drills if each.passed), None)

    @property
    def last_measured(self) -> DrillRecord | None:
        """The newest drill of which it is known how long the restore took."""
        return next((e for e in self.drills if e.rto_seconds is not None), None)


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that is known at one time; `entries` is the ledger, oldest first.

    `notified` is the last record of each receiver that is configured, if it has one.
    """

    time: datetime
    version: str
    sources: tuple[SourceState, ...]
    stores: tuple[StoreState, ...]
    entries: tuple[LedgerEntry, ...]
    ledger_faults: tuple[str, ...]
    notified: Mapping[str, LedgerEntry]
    disks: tuple[Room, ...]
    memory: Room | None


def gather(run: Run, before: State | None = None) -> State:
    """Ask everything that the settings name; what does not answer is part of the state.

    A store that was listed for the state `before` is not listed again before it is
    time, or something is put on record.

    Raises:
        ConfigurationError: there is no store, or a key cannot be used.
    """
    settings = run.settings
    configured: dict[str, DatabaseSettings | FolderSettings] = {
        **settings.databases,
        **settings.files,
    }
    entries, faults = run.ledger.readable()
    known = {}
    if before is not None and len(before.entries) == len(entries):
        since = run.now() - _LISTED_AGAIN
        known = {
            e.name: e for e in before.stores if e.listed_at and e.listed_at > since
        }
    with Pool(_PROBES_AT_ONCE, thread_name_prefix="watch") as pool:
        looking = [
            pool.submit(_look_into, run, each, known.get(each.name))
            for each in run.stores
        ]
        asking = {
            name: pool.submit(_ask, run, each) for name, each in configured.items()
        }
    stores = tuple(each.result() for each in looking)
    listing = catalog.joined(
        Catalog(sets=each.sets, unreadable=each.unreadable) for each in stores
    )
    return State(
        time=run.now(),
        version=__version__,
        sources=tuple(
            _source(run, name, each.result(), stores, listing, entries)
            for name, each in asking.items()
        ),
        stores=stores,
        entries=tuple(entries),
        ledger_faults=tuple(faults),
        notified=last_notified(entries, settings.notify),
        disks=tuple(_disks(run)),
        memory=_memory(),
    )


def _look_into(run: Run, store: Store, known: StoreState | None) -> StoreState:
    """Ask a store for its time and, unless they are known, its sets."""
    inner = unwrapped(store)
    state = StoreState(
        name=store.name,
        disk=_disk(inner.root) if isinstance(inner, LocalStore) else None,
    )
    try:
        latency, offset = probes.ping(store, now=run.now)
        listed = run.sets_in([store]) if known is None else known
    except StoreError as error:
        return replace(state, error=error.message, hint=error.hint)
    return replace(
        state,
        latency_seconds=latency,
        clock_offset_seconds=offset,
        sets=listed.sets,
        unreadable=listed.unreadable,
        listed_at=run.now() if known is None else known.listed_at,
    )


def _ask(run: Run, source: DatabaseSettings | FolderSettings) -> dict[str, Any]:
    """Return the fields of the answer of a database or a folder."""
    if isinstance(source, FolderSettings):
        if os.access(source.path, os.R_OK | os.X_OK):
            return {}
        return {
            "error": f"the folder {source.path} cannot be read",
            "hint": "Check the path, and run this as a user who may read it.",
        }
    from opskit.postgres.connect import connect, query_value

    try:
        began = time.monotonic()
        with connect(source.resolve_url(), purpose="status") as connection:
            before = run.now()
            server = query_value(
                connection, "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
            here = before + (run.now() - before) / 2
            latency = time.monotonic() - began
    except OpskitError as error:
        return {"error": error.message, "hint": error.hint}
    return {
        "latency_seconds": latency,
        "clock_offset_seconds": server - here.timestamp(),
    }


def _source(
    run: Run,
    name: str,
    answer: dict[str, Any],
    stores: Sequence[StoreState],
    listing: Catalog[ListedSet],
    entries: Sequence[LedgerEntry],
) -> SourceState:
    settings = run.settings
    is_folder = name in settings.files
    own = run.folder(name) if is_folder else run.database(name)
    sets = tuple(listing.of(name))
    runs = tuple(each for each in entries if each.details.get("source") == name)
    return SourceState(
        **answer,
        name=name,
        kind="files" if is_folder else "postgres",
        schedule=own.schedule,
        interval_seconds=longest_interval(own.schedule).total_seconds()
        if own.schedule
        else None,
        max_age=own.max_age,
        drill_max_age=settings.drill.max_age,
        sets=sets,
        unconfirmed_changes=_unconfirmed_changes(run, sets[:1]),
        last_success=_last_success(stores, sets, runs),
        runs=runs,
        drills=_drills(sets, runs),
    )


def _last_success(
    stores: Iterable[StoreState],
    sets: Iterable[ListedSet],
    runs: Sequence[LedgerEntry],
) -> dict[str, datetime]:
    """Return when the newest set in each store was finished.

    What lies in a store counts. One that does not answer is believed to hold what the
    ledger says it got.
    """
    newest: dict[str, datetime] = {}
    for each in sets:
        for store in each.stores:
            at = each.finished_at
            newest[store.name] = max(at, newest.get(store.name, at))
    for silent in (each.name for each in stores if not each.reachable):
        for run in runs:
            if run.operation == "backup" and silent in _names(run.details, "stores"):
                newest[silent] = ended_at(run)
    return newest


def _names(details: Mapping[str, object], key: str) -> Sequence[object]:
    value = details.get(key)
    return value if isinstance(value, list) else ()


def ended_at(entry: LedgerEntry) -> datetime:
    """Return when a run was put on record."""
    return datetime.fromisoformat(entry.time).astimezone(UTC)


def succeeded(entry: LedgerEntry) -> bool:
    """Return whether a run did all that it should, for instance reached every store."""
    return entry.outcome == "ok" and "code" not in entry.details


def missed_runs(entry: LedgerEntry) -> int:
    """Return of how many runs a record says that they never began."""
    due = entry.details.get("due")
    number = due.get("number") if isinstance(due, dict) else None
    return max(1, number) if isinstance(number, int) else 1


def _drills(
    sets: Iterable[ListedSet], runs: Iterable[LedgerEntry]
) -> tuple[DrillRecord, ...]:
    """Return every drill that came to a verdict, of this host or another."""
    drills = {
        each.run_id: _recorded_drill(each)
        for each in runs
        if each.operation == "restore-drill" and "passed" in each.details
    }
    for each in sets:
        for evidence in (e for copy in each.copies for e in copy.evidence):
            if evidence.kind == "drill" and evidence.run_id not in drills:
                drills[evidence.run_id] = DrillRecord(
                    finished_at=evidence.at,
                    passed=evidence.passed,
                    backup_id=each.backup_id,
                    run_id=evidence.run_id,
                )
    newest_first = sorted(drills.values(), key=lambda d: d.finished_at, reverse=True)
    return tuple(newest_first)


def _recorded_drill(entry: LedgerEntry) -> DrillRecord:
    details: dict[str, Any] = entry.details
    phases = details.get("phases")
    return DrillRecord(
        finished_at=ended_at(entry),
        passed=bool(details["passed"]),
        backup_id=str(details.get("backup_id", "")),
        run_id=entry.run_id,
        rto_seconds=figure(details.get("rto_seconds")),
        rpo_seconds=figure(details.get("rpo_seconds")),
        phases={
            str(name): seconds
            for name, each in (phases.items() if isinstance(phases, dict) else ())
            if (seconds := figure(each)) is not None
        },
    )


def figure(value: object) -> float | None:
    """Return what a record holds as a number, if it is a plain one, not below zero."""
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return None


def _unconfirmed_changes(run: Run, newest: Sequence[ListedSet]) -> tuple[str, ...]:
    """Return what the newest set holds suddenly less of, unless somebody looked."""
    try:
        known = retention.candidates(newest, trust=keys.trust(run.settings))
    except StoreError:
        return newest[0].sudden_changes
    return tuple(change for each in known for change in each.unconfirmed_changes)


def _disks(run: Run) -> list[Room]:
    work_dir = run.settings.drill.work_dir or Path(tempfile.gettempdir())
    return [disk for each in (run.state_dir, work_dir) if (disk := _disk(each))]


def _disk(folder: Path) -> Room | None:
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return Room(name=str(folder), free_bytes=usage.free, total_bytes=usage.total)
    return None


def _memory() -> Room | None:
    """Return the memory of this host where Linux tells it."""
    with suppress(OSError, KeyError, ValueError):
        lines = (line.split() for line in _MEMORY.read_text("ascii").splitlines())
        bytes_ = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
        return Room(
            name="memory",
            free_bytes=bytes_["MemAvailable:"],
            total_bytes=bytes_["MemTotal:"],
        )
    return None


class Watch:
    """The newest state, gathered in the background: again and again, and when asked.

    Whoever reads it never waits. It is None until the first one is there; what keeps a
    newer one from being gathered is logged, and the state grows old. `gather` gets the
    state before.
    """

    def __init__(
        self, gather: Callable[[State | None], State], *, interval_seconds: float = 30
    ) -> None:
        self.state: State | None = None
        self._gather, self._interval_seconds = gather, interval_seconds
        self._wake = threading.Event()
        self._is_stopped = False
        self._thread = Thread(self._run, name="watch")

    def refresh(self) -> None:
        """Have the state gathered again soon."""
        self._wake.set()

    def stop(self, wait_seconds: float = 5) -> None:
        """End; what is being gathered is not waited for any longer than this."""
        self._is_stopped = True
        self._wake.set()
        self._thread.join(wait_seconds)

    def _run(self) -> None:
        while not self._is_stopped:
            self._wake.clear()
            try:
                self.state = self._gather(self.state)
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                log.logger().error("the state cannot be gathered", reason=str(error))
            self._wake.wait(self._interval_seconds)
