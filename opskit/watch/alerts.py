"""Alerts: what is reported to people, decided from the ledger's history alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from opskit import log
from opskit.checks import duration
from opskit.ledger import LedgerEntry
from opskit.operations.outcome import Record

Kind = Literal["failed", "missed", "recovered", "suspicious"]
# Numbers, times and ids: they differ from run to run, the fault is the same.
_PASSING = re.compile(r"[\w.:+-]*\d[\w.:+-]*")

# A backup is suspiciously fast if it took less than this share of the usual time.
_FAST_SHARE = 0.1
_USUAL_RUNS_MIN, _USUAL_RUNS_MAX = 5, 30
_USUAL_SECONDS_MIN = 10.0  # what is shorter varies with the load of the machine


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an operation ended, as the ledger has it."""

    operation: str
    source: str
    ended: str
    details: Mapping[str, object]
    seconds: float | None = None
    number: int | None = None

    @classmethod
    def of(cls, of: LedgerEntry | Record) -> Ending:
        """Return the ending of a record, written or about to be."""
        entry = of.entry if isinstance(of, Record) else of
        return cls(
            operation=of.operation,
            # Runbooks fail and recover apart from each other, as sources do.
            source=str(of.details.get("source") or of.details.get("runbook", "")),
            ended=of.ended if isinstance(of, Record) else of.outcome,
            details=of.details,
            seconds=of.seconds,
            number=entry.sequence if entry else None,
        )

    @property
    def good(self) -> bool:
        """Whether everything was done: in full, and in every store."""
        return self.ended == "ok" and not self.details.get("code")

    @property
    def outcome(self) -> str:
        """How it ended, in one word; what was done in part has failed."""
        return "failed" if self.ended == "ok" and not self.good else self.ended

    @property
    def subject(self) -> str:
        """The operation and its source, in words."""
        of_source = f" of {self.source}" if self.source else ""
        return f"{self.operation}{of_source}"

    @property
    def fault(self) -> str:
        """What is the same in each repeat of one fault."""
        words = _PASSING.sub("#", str(self.details.get("error", "")))
        return f"{self.outcome} {self.details.get('code')} {words}"


def decide(
    history: Iterable[Ending],
    latest: Ending,
    *,
    recovery_after: int,
    lost: Collection[int] = (),
) -> Kind | None:
    """Return what to report of the latest operation: a new fault, its end, or nothing.

    Each fault is reported once until so many good runs of the same operation and source
    follow each other; then the recovery is reported. A fault without a source concerns
    every source. An interrupt is neither good nor a fault. What was to be reported of
    the records whose numbers are `lost` was not delivered, and does not count.
    """
    if latest.operation == "smoke" and latest.source:
        return None  # somebody asked another service than the configured one
    reported: set[str] = set()
    good = 0
    kind: Kind | None = None
    same = [
        each
        for each in history
        if each.operation == latest.operation and each.source in (latest.source, "")
    ]
    for each in [*same, latest]:
        kind, before = None, set(reported)
        if each.good:
            good += 1
            if reported and good >= recovery_after:
                reported.clear()
                kind = "recovered"
        elif each.ended != "interrupted":
            good = 0
            if each.fault not in reported:
                reported.add(each.fault)
                kind = "missed" if each.ended == "missed" else "failed"
        if each.number in lost:
            reported = before
    return kind


def doubts(history: Iterable[Ending], latest: Ending) -> list[str]:
    """Return what is suspicious about a good backup.

    It holds far less than the one before, or it was far faster than usual; of several
    such in a row the first counts.
    """
    if latest.operation != "backup" or not latest.good:
        return []
    reasons = [f"{each}" for each in _listed(latest.details.get("sudden_changes"))]
    before = [
        each.seconds
        for each in history
        if each.operation == latest.operation
        and each.source == latest.source
        and each.good
        and each.seconds
    ]
    if latest.seconds is not None:
        least = least_seconds([*before, latest.seconds])
        was_fast = bool(before) and before[-1] < least_seconds(before)
        if latest.seconds < least and not was_fast:
            reasons.append(
                f"it took {duration(latest.seconds)}, less than "
                f"{duration(least)}, a tenth of the usual time"
            )
    return reasons


def least_seconds(seconds: Sequence[float]) -> float:
    """Return what the last of several runs takes at least, or 0 if nothing is usual."""
    usual = seconds[-_USUAL_RUNS_MAX - 1 : -1]
    if len(usual) < _USUAL_RUNS_MIN or median(usual) < _USUAL_SECONDS_MIN:
        return 0.0
    return _FAST_SHARE * median(usual)


def facts(record: Record, outcome: str) -> dict[str, Any]:
    """Return what programs learn of an operation, without secrets."""
    known: dict[str, Any] = log.masked(record.details)
    return known | {
        "operation": record.operation,
        "outcome": outcome,
        "run_id": record.run_id,
    }


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
