"""Evidence: the stored record of what a drill or a verification proved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from opskit import __version__, files
from opskit.catalog.manifest import Manifest
from opskit.catalog.proof import EvidenceKind, EvidenceName, evidence_name
from opskit.catalog.verify import is_gone
from opskit.checks import Check
from opskit.crypto import age, signatures
from opskit.crypto.signatures import Signer
from opskit.masking import mask, masked
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
    `tables`, `rows` and `files` are how many were compared. `manifest_sha256` ties it
    to the bytes of the very manifest that it is about.
    """

    kind: EvidenceKind
    run_id: str
    manifest: Manifest
    manifest_sha256: str
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
    files: int = 0

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
            # Signed with the rest: nobody can give it another time or outcome.
            "name": self.name.name(),
            "kind": self.kind,
            "run_id": self.run_id,
            "backup_id": self.manifest.backup_id,
            "source": self.manifest.source,
            "manifest_sha256": self.manifest_sha256,
            "status": "passed" if self.passed else "failed",
            "passed": self.passed,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat(),
            "tool_version": __version__,
            "server_version": self.manifest.server_version,
            "drill_server": self.drill_server,
            "checks": masked([check.as_json() for check in self.checks]),
            "tables": self.tables,
            "rows": self.rows,
            "files": self.files,
            "not_checked": masked([asdict(each) for each in self.unmade]),
            "mutants": masked(self.mutants),
            "rto_seconds": self.rto_seconds,
            "rpo_seconds": self.rpo_seconds,
            "phases": dict(self.phases),
        }


def store_evidence(
    evidence: Evidence,
    report: str | None,
    stores: Iterable[Store],
    *,
    signer: Signer | None = None,
) -> None:
    """Put the evidence and its report beside the set it is about, the outcome last.

    Beside an encrypted set the report is encrypted for the same recipients, and the
    document names the checks without what was expected and observed.

    Raises:
        StoreError: a store refused it.
    """
    content = _document(_in_the_open(evidence))
    for store in stores:
        stored: list[str] = []
        for name, chunks in _beside(evidence, report, content, signer):
            stored.append(evidence.manifest.prefix + name)
            store.put(stored[-1], chunks)
        if is_gone(evidence.manifest, store):
            # Another host has deleted the set: nothing may be left in its place.
            for key in reversed(stored):
                store.delete(key)


def _beside(
    evidence: Evidence, report: str | None, content: bytes, signer: Signer | None
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """Yield what is put beside the set, by name."""
    encryption = evidence.manifest.encryption
    if report is not None and encryption is None:
        yield evidence.name.name(".md"), [_bytes(mask(report))]
    elif report is not None and encryption is not None:
        yield (
            evidence.name.name(f".md{age.SUFFIX}"),
            age.encrypted([_bytes(mask(report))], encryption.recipients),
        )
    if signer is not None:
        yield evidence.name.name() + signatures.SUFFIX, [signer.sign(content)]
    yield evidence.name.name(), [content]


def _in_the_open(evidence: Evidence) -> dict[str, Any]:
    """Return the document as anybody who can list the store may read it."""
    document = evidence.as_json()
    if evidence.manifest.encryption is not None:
        # What was read of rows may stand there: digests, values in a server's words.
        for check in document["checks"]:
            check |= {"expected": "", "observed": "", "detail": "see the report"}
    return document


def write_report(evidence: Evidence, report: str, directory: Path) -> Path:
    """Write the report where a person finds it, and return its path."""
    files.make_directories(directory)
    stem = f"{evidence.manifest.backup_id}-{evidence.kind}-{evidence.run_id}"
    files.write_atomically(directory / f"{stem}.json", [_document(evidence.as_json())])
    path = directory / f"{stem}.md"
    files.write_atomically(path, [_bytes(mask(report))])
    return path


def _document(fields: Mapping[str, Any]) -> bytes:
    return _bytes(json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
