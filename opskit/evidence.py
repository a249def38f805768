"""Evidence: the stored record of what a drill or a verification proved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from opskit import __version__, files
from opskit.catalog.manifest import Manifest
from opskit.catalog.proof import EvidenceKind, EvidenceName, evidence_name
from opskit.catalog.verify import is_gone
from opskit.checks import Check, count
from opskit.crypto import age, signatures
from opskit.crypto.signatures import Signer
from opskit.log import mask, masked
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


_MADE_BY = {"postgres": "dumped", "files": "backed up"}
_EXPECTED = {
    "postgres": "The expected values were recorded from the dump's own bytes and, for "
    "the structure,\nfrom the catalog in the dump's own snapshot.",
    "files": "The expected values were recorded while the files were read.",
}
# The backslash comes first, lest it escape what the others write.
_ESCAPES = {
    "\\": "\\\\",
    "|": "\\|",
    "<": "&lt;",
    "`": "\\`",
    "[": "\\[",
    "]": "\\]",
}


def render(evidence: Evidence) -> str:
    """Return the report of a drill."""
    manifest = evidence.manifest
    failed = [check for check in evidence.checks if not check.passed]
    verdict = "PASSED" if evidence.passed else "DID NOT PASS"
    drill_server = _cell(evidence.drill_server or "not started")
    rto = _duration(evidence.rto_seconds)
    rpo = _duration(evidence.rpo_seconds)
    return f"""\
# Restore drill of {manifest.backup_id}: {verdict}

{_summary(evidence, len(failed))}

| | |
|---|---|
| backup set | `{manifest.backup_id}` |
{_origin(manifest)}
| drill server | {drill_server} |
| drill | run `{evidence.run_id}`, opskit {__version__} |
| started | {evidence.started_at:%Y-%m-%dT%H:%M:%SZ} |
| finished | {evidence.finished_at:%Y-%m-%dT%H:%M:%SZ} |
| measured RTO | {rto} (time to restore: from reading the store to the loaded copy) |
| measured RPO | {rpo} (age of the data when the drill began) |

## What differed

{_table(failed) if failed else "Nothing."}
{_unmade(evidence)}{_mutants(evidence)}
## Phases

| phase | seconds |
|---|---:|
{_phases(evidence)}

## Everything that was compared

{_EXPECTED[manifest.kind]} The observed values were read from the restored copy.

{_table(evidence.checks)}
{_warnings(evidence)}"""


def _origin(manifest: Manifest) -> str:
    read_at = f"{manifest.snapshot_at:%Y-%m-%dT%H:%M:%SZ}"
    if manifest.kind == "files":
        return f"""\
| source | `{manifest.source}`, {_cell(manifest.inventory.path)} |
| read | {read_at} by opskit {manifest.tool_version} |"""
    return f"""\
| source | `{manifest.source}`, PostgreSQL {manifest.server_version} |
| snapshot | `{manifest.snapshot}`, {read_at} |
| dumped by | pg_dump {manifest.client_version}, opskit {manifest.tool_version} |"""


def _compared(evidence: Evidence) -> str:
    if evidence.manifest.kind == "files":
        return count(evidence.files, "entry", "files, folders and links")
    return f"{count(evidence.tables, 'table')} with {count(evidence.rows, 'row')}"


def _summary(evidence: Evidence, failed: int) -> str:
    but = ", but for what was not checked" if evidence.unmade else ""
    if evidence.passed:
        return (
            "The set was restored and equals what was "
            f"{_MADE_BY[evidence.manifest.kind]}{but}: {_compared(evidence)}, "
            f"compared exactly; {count(len(evidence.checks), 'check')}, all passed."
        )
    return (
        f"{failed} of {len(evidence.checks)} checks did not pass. "
        "Do not rely on this set before you know why."
    )


def _table(checks: Iterable[Check]) -> str:
    rows = (
        "| {} | {} | {} | {} | {} |".format(
            "passed" if check.passed else "**failed**",
            *map(_cell, (check.name, check.expected, check.observed, check.detail)),
        )
        for check in checks
    )
    head = "| | check | expected | observed | detail |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def _cell(text: str) -> str:
    """Keep what a table or a value is called from being taken for the report's own."""
    for special, written in _ESCAPES.items():
        text = text.replace(special, written)
    return "".join(
        each if each.isprintable() else "�" for each in " ".join(text.split())
    )


def _phases(evidence: Evidence) -> str:
    return "\n".join(
        f"| {name} | {seconds:.2f} |" for name, seconds in evidence.phases.items()
    )


def _unmade(evidence: Evidence) -> str:
    if not evidence.unmade:
        return ""
    lines = "\n".join(
        f"- **{_cell(each.name)}**: {_cell(each.reason)}" for each in evidence.unmade
    )
    return f"\n## What was not checked\n\n{lines}\n"


def _mutants(evidence: Evidence) -> str:
    """Return how the drill showed that it can fail."""
    if evidence.mutants is None:
        return ""
    rows = "\n".join(
        f"| {'noticed' if each['noticed'] else '**not noticed**'} | "
        f"{_cell(each['kind'])} | {_cell(each['target'])} | "
        f"{_cell(each['noticed_by'])} |"
        for each in evidence.mutants["mutants"]
    )
    # Rounded down: only all of them are 100 %.
    rate = math.floor(evidence.mutants["kill_rate"] * 1000) / 10
    return f"""
## Whether the drill can fail

After a comparison that passed, {evidence.mutants["planted"]} mutants were planted in
the copy, each taken back at once; {evidence.mutants["killed"]} were noticed (kill rate
{rate:g} %, seed `{evidence.mutants["seed"]}`).

| | damage | to | noticed by |
|---|---|---|---|
{rows}
"""


def _warnings(evidence: Evidence) -> str:
    if not evidence.manifest.warnings:
        return ""
    lines = "\n".join(f"- {_cell(warning)}" for warning in evidence.manifest.warnings)
    return f"\n## Noted when the backup was taken\n\n{lines}\n"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return (
        f"{seconds:.1f} s"
        if seconds < 59.95
        else str(timedelta(seconds=round(seconds)))
    )
