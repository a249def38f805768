"""State: what is known of sources, stores, host and ledger at one time.

Health, metrics, the page and reports read a State, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from opskit.catalog.sets import ListedSet, Unreadable
from opskit.ledger import LedgerEntry
from opskit.operations.schedule import is_credible
from opskit.watch.fleet import FleetState

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
    listing_time: timedelta = timedelta()
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
    def last_proven(self) -> ListedSet | None:
        """The newest set of which a drill has shown that it can be restored."""
        return next((each for each in self.sets if each.best_proof == "drilled"), None)

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
    fleet: FleetState | None = None
    ledger_faults: tuple[str, ...]
    notified: Mapping[str, LedgerEntry]
    disks: tuple[Room, ...]
    memory: Room | None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What would be lost of a source if it and everything around it burned now.

    Only the stores are left, and only a drilled set counts; `seconds` is None if there
    is none.
    """

    source: SourceState
    newest: ListedSet | None
    proven: ListedSet | None
    seconds: float | None


def losses(sources: Iterable[SourceState], *, now: datetime) -> list[Loss]:
    """Return what would be lost of each source, the worst first.

    That is a source without any set, then one without a drilled set, then the one whose
    newest drilled set is oldest.
    """
    found = []
    for each in sources:
        proven = each.last_proven
        age = None if proven is None else (now - proven.snapshot_at).total_seconds()
        found.append(
            Loss(
                source=each,
                newest=next(iter(each.sets), None),
                proven=proven,
                seconds=None if age is None else max(0.0, age),
            )
        )
    return sorted(found, key=_badness)


def _badness(loss: Loss) -> tuple[bool, bool, float, str]:
    has_set, is_proven = loss.newest is not None, loss.proven is not None
    return (has_set, is_proven, -(loss.seconds or 0.0), loss.source.name)


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


def drills_of(
    sets: Iterable[ListedSet], runs: Iterable[LedgerEntry], *, now: datetime
) -> tuple[DrillRecord, ...]:
    """Return every drill that came to a verdict, of this host or another.

    Those of a time to come are left out: they would be the newest for too long.
    """
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
    credible = [e for e in drills.values() if is_credible(e.finished_at, now=now)]
    return tuple(sorted(credible, key=lambda each: each.finished_at, reverse=True))


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
