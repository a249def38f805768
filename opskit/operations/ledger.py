"""Shows the ledger: the record of every run; and verifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opskit.errors import IntegrityError
from opskit.ledger import LedgerEntry
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run

_FAULTS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LedgerRequest:
    """Whether to compare the records with each other and with their copies."""

    verify: bool = False


@dataclass(frozen=True, kw_only=True)
class LedgerRecords:
    """Every record, oldest first, and what is worth knowing of their copies."""

    entries: tuple[LedgerEntry, ...]
    verified: bool
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "verified": self.verified,
            "entries": [vars(each) for each in self.entries],
        }


def ledger(run: Run, request: LedgerRequest) -> Outcome[LedgerRecords]:
    """Return the records; with `verify`, only if they and their copies are whole."""
    with run.recorded("ledger") as record:
        notes: tuple[str, ...] = ()
        if request.verify:
            report = run.ledger.verify()
            if report.faults:
                faults = "; ".join(report.faults[:_FAULTS_SHOWN])
                raise IntegrityError(
                    f"the ledger is not whole: {faults}",
                    hint="Somebody or something changed a record or its copy; the "
                    "stores that still agree show which.",
                    details={
                        "faults": list(report.faults),
                        "notes": list(report.notes),
                    },
                )
            if report.unreachable:
                raise report.unreachable[0]
            notes = report.notes
        record.result = LedgerRecords(
            entries=tuple(run.ledger.entries()), verified=request.verify, notes=notes
        )
    return record.outcome
