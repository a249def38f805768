"""What lies beside a set, and its proof: the strongest thing that evidence says of it.

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
PIN_FOLDER = "pinned/"
CONFIRMATION_FOLDER = "confirmed/"
_STRONGEST_FIRST: tuple[Proof, ...] = ("drilled", "verified", "unproven")
_EVIDENCE = re.compile(
    r"evidence/(?P<time>\d{8}T\d{6}Z)-(?P<kind>drill|verify)"
    r"-(?P<outcome>passed|failed)-(?P<run>[0-9a-f]+)\.json"
)
_MARK = re.compile(r"(?P<folder>pinned/|confirmed/)\d{8}T\d{6}Z-[0-9a-f]+\.json")


def mark_name(folder: str, *, at: datetime, run_id: str) -> str:
    """Return the name, inside a set, of a new pin or confirmation."""
    return f"{folder}{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{run_id}.json"


def is_mark(folder: str, name: str) -> bool:
    """Return whether a name inside a set is that of a pin or of a confirmation."""
    match = _MARK.fullmatch(name)
    return match is not None and match["folder"] == folder


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
    match = _EVIDENCE.fullmatch(name)
    if match is None:
        return None
    evidence = EvidenceName(
        time=match["time"],
        kind="drill" if match["kind"] == "drill" else "verify",
        passed=match["outcome"] == "passed",
        run_id=match["run"],
    )
    try:
        _ = evidence.at
    except ValueError:  # no calendar has that time
        return None
    return evidence


def proof_of(evidence: Iterable[EvidenceName]) -> Proof:
    """Return the proof state that the evidence amounts to.

    The newest of each kind counts. A failed drill is only made good by a drill that
    passes; a failed verification by either, for a drill reads every byte as well.
    """
    drilled: bool | None = None
    verified: bool | None = None
    # Of two from the same second the failure counts as the later.
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
    states = set(proofs)
    return next((state for state in order if state in states), "unproven")
