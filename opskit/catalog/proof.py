"""Proof: the strongest thing known of a set, from the evidence that lies beside it.

The outcome stands in the evidence's key, so that listing a store is enough to know the
proof of every set in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Proof = Literal["drilled", "verified", "unproven", "failed"]
EvidenceKind = Literal["drill", "verify"]
EVIDENCE_FOLDER = "evidence/"
_STRONGEST_FIRST: tuple[Proof, ...] = ("drilled", "verified", "unproven")
_NAME = re.compile(
    r"(?P<time>\d{8}T\d{6}Z)-(?P<kind>drill|verify)-(?P<outcome>passed|failed)"
    r"-(?P<run>[0-9a-f]+)\.json"
)


@dataclass(frozen=True, kw_only=True)
class EvidenceName:
    """What the key of a piece of evidence says."""

    time: str
    kind: EvidenceKind
    passed: bool
    run_id: str

    @property
    def at(self) -> datetime:
        """When it was made."""
        return datetime.strptime(self.time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)

    def name(self, suffix: str = ".json") -> str:
        """Return the name of the object inside its set."""
        outcome = "passed" if self.passed else "failed"
        return (
            f"{EVIDENCE_FOLDER}{self.time}-{self.kind}-{outcome}-{self.run_id}{suffix}"
        )


def evidence_name(
    *, kind: EvidenceKind, passed: bool, finished_at: datetime, run_id: str
) -> EvidenceName:
    """Return the name for new evidence."""
    time = f"{finished_at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return EvidenceName(time=time, kind=kind, passed=passed, run_id=run_id)


def parse_evidence(name: str) -> EvidenceName | None:
    """Return what a name inside a set says, or None if it is no evidence."""
    if not name.startswith(EVIDENCE_FOLDER):
        return None
    found = _NAME.fullmatch(name.removeprefix(EVIDENCE_FOLDER))
    if found is None:
        return None
    evidence = EvidenceName(
        time=found["time"],
        kind="drill" if found["kind"] == "drill" else "verify",
        passed=found["outcome"] == "passed",
        run_id=found["run"],
    )
    try:
        _ = evidence.at
    except ValueError:  # no calendar has that time
        return None
    return evidence


def proof_of(evidence: Iterable[EvidenceName]) -> Proof:
    """Return the proof state that the evidence amounts to.

    The newest word of each kind counts. A failed drill is only healed by a drill that
    passes; a failed verification by either, for a drill reads every byte as well.
    """
    drilled: bool | None = None
    verified: bool | None = None
    # Of two that carry the same second the bad news is the later.
    for each in sorted(evidence, key=lambda each: (each.time, not each.passed)):
        if each.kind == "drill":
            drilled = each.passed
            verified = True if each.passed else verified
        else:
            verified = each.passed
    if drilled is False or verified is False:
        return "failed"
    if drilled:
        return "drilled"
    return "verified" if verified else "unproven"


def combined(proofs: Iterable[Proof]) -> Proof:
    """Return the proof of a set from those of its copies.

    A damaged copy makes the set failed: it may be the one that is left one day.
    """
    return _first(("failed", *_STRONGEST_FIRST), proofs)


def best(proofs: Iterable[Proof]) -> Proof:
    """Return the strongest proof among those of copies; failed if all of them are."""
    return _first((*_STRONGEST_FIRST, "failed"), proofs)


def _first(order: tuple[Proof, ...], proofs: Iterable[Proof]) -> Proof:
    found = set(proofs)
    return next((state for state in order if state in found), "unproven")
