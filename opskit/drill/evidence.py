"""Evidence: the stored record of what a drill or a verification proved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from opskit import __version__, files
from opskit.catalog.manifest import Manifest
from opskit.catalog.proof import EvidenceKind, EvidenceName, evidence_name
from opskit.checks import Check
from opskit.store import Store

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Unmade:
    """A check that was not made, because the user allowed it by name, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was looked at, when, with what outcome; stored also when it failed.

    `rto_seconds` is the time that the restore took, `rpo_seconds` the age of the data
    when the drill began: what would be lost if the source had died at that moment.
    `tables` and `rows` are how many were compared.
    """

    kind: EvidenceKind
    run_id: str
    manifest: Manifest
    started_at: datetime
    finished_at: datetime
    checks: tuple[Check, ...]
    phases: Mapping[str, float]
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    drill_server: str = ""
    unmade: tuple[Unmade, ...] = ()
    mutants: Mapping[str, Any] | None = None
    tables: int = 0
    rows: int = 0

    @property
    def passed(self) -> bool:
        """Whether something was checked, and every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def name(self) -> EvidenceName:
        """What the evidence is called inside its set."""
        return evidence_name(
            kind=self.kind,
            passed=self.passed,
            finished_at=self.finished_at,
            run_id=self.run_id,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the evidence as a JSON-ready document."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "run_id": self.run_id,
            "backup_id": self.manifest.backup_id,
            "source": self.manifest.source,
            "status": "passed" if self.passed else "failed",
            "passed": self.passed,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "tool_version": __version__,
            "server_version": self.manifest.server_version,
            "drill_server": self.drill_server,
            "checks": [check.as_json() for check in self.checks],
            "tables": self.tables,
            "rows": self.rows,
            "not_checked": [asdict(each) for each in self.unmade],
            "mutants": None if self.mutants is None else dict(self.mutants),
            "rto_seconds": self.rto_seconds,
            "rpo_seconds": self.rpo_seconds,
            "phases": dict(self.phases),
        }


def store_evidence(
    evidence: Evidence, report: str | None, stores: Iterable[Store]
) -> None:
    """Put the evidence and its report beside the set it is about, the outcome last.

    Raises:
        StoreError: a store refused it.
    """
    document = json.dumps(evidence.as_json(), indent=1, ensure_ascii=False) + "\n"
    for store in stores:
        place = evidence.manifest.prefix
        if report is not None:
            store.put(place + evidence.name.name(".md"), [_bytes(report)])
        store.put(place + evidence.name.name(".json"), [_bytes(document)])


def write_report(evidence: Evidence, report: str, directory: Path) -> Path:
    """Write the report where a person finds it, and return its path."""
    files.make_directories(directory)
    stem = f"{evidence.manifest.backup_id}-{evidence.kind}-{evidence.run_id}"
    document = json.dumps(evidence.as_json(), indent=1, ensure_ascii=False) + "\n"
    files.write_atomically(directory / f"{stem}.json", [_bytes(document)])
    path = directory / f"{stem}.md"
    files.write_atomically(path, [_bytes(report)])
    return path


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
