"""State: what is known of sources, stores, host and ledger at one time.

Health, metrics, the page and reports read a State, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from opskit.catalog.sets import ListedSet, Unreadable
from opskit.ledger import LedgerEntry

SCHEDULED = ("backup", "restore-drill", "verify", "prune", "report", "smoke")


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

    `others` is what other hosts have recorded, if they may have run what is due here.
    `notified` is the last record of each receiver that is configured, if it has one.
    """

    time: datetime
    version: str
    sources: tuple[SourceState, ...]
    stores: tuple[StoreState, ...]
    entries: tuple[LedgerEntry, ...]
    others: tuple[LedgerEntry, ...] = ()
    ledger_faults: tuple[str, ...]
    notified: Mapping[str, LedgerEntry]
    disks: tuple[Room, ...]
    memory: Room | None


def ended_at(entry: LedgerEntry) -> datetime:
    """Return when a run was put on record."""
    return datetime.fromisoformat(entry.time).astimezone(UTC)


def succeeded(entry: LedgerEntry) -> bool:
    """Return whether a run did all that it should, for instance reached every store."""
    return entry.outcome == "ok" and "code" not in entry.details


def last_runs(state: State) -> dict[tuple[str, str], LedgerEntry]:
    """Return the last run of each scheduled operation of each source, or of all."""
    names = {"", *(each.name for each in state.sources)}
    return {
        (each.operation, each.source): each
        for each in state.entries
        if each.operation in SCHEDULED
        and each.outcome != "missed"
        and each.source in names
    }


def missed_runs(entry: LedgerEntry) -> int:
    """Return how many missed runs a record is about."""
    due = entry.details.get("due")
    number = due.get("number") if isinstance(due, dict) else None
    return max(1, number) if isinstance(number, int) else 1


def figure(value: object) -> float | None:
    """Return a value of a record as a number, if it is finite and not negative."""
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return None
