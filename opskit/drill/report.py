"""Report: what a drill measured, and its report for a person to read."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from opskit import __version__
from opskit.catalog.manifest import FolderManifest, Manifest, of_database
from opskit.catalog.sets import BackupSet
from opskit.checks import Check, cell, count, not_checked
from opskit.errors import OpskitError
from opskit.evidence import Evidence, set_subject
from opskit.log import logger
from opskit.mutants.mutant import MutantReport


@dataclass(frozen=True, kw_only=True)
class DrillFigures:
    """What a drill measured and counted.

    `rto_seconds` is the time that the restore took, `rpo_seconds` the age of the data
    when the drill began: what would be lost if the source had died at that moment.
    `tables`, `rows` and `files` are how many were compared.
    """

    drill_server: str = ""
    tables: int = 0
    rows: int = 0
    files: int = 0
    mutants: Mapping[str, Any] | None = None
    rto_seconds: float | None = None
    rpo_seconds: float | None = None
    phases: Mapping[str, float]


DrillEvidence = Evidence[DrillFigures]

# What has to be done before a service can use what was restored.
_RESTORE_PHASES = ("fetch", "server", "surroundings", "restore")


@dataclass(kw_only=True)
class DrillRecord:
    """What a drill has shown so far, and how long its phases took."""

    checks: list[Check] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    drill_server: str = ""
    mutants: MutantReport | None = None
    tables: int = 0
    rows: int = 0
    files: int = 0
    is_restored: bool = False

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block; also one that fails took its time."""
        began = time.monotonic()
        logger().info("drill", phase=name)
        try:
            yield
        finally:
            before = self.phases.get(name, 0.0)
            self.phases[name] = round(before + time.monotonic() - began, 3)

    def fail(self, name: str, error: OpskitError) -> None:
        """Add a check that did not pass for an error."""
        self.checks.append(Check(name=name, passed=False, detail=str(error)))

    def leave_out_mutants(self) -> None:
        """Say that no damage was planted, so that nothing shows the drill can fail."""
        reason = "none were asked for ([drill] mutants = 0)"
        self.checks.append(not_checked("mutants", reason))

    def evidence(
        self,
        chosen: BackupSet,
        *,
        run_id: str,
        started_at: datetime,
        finished_at: datetime,
    ) -> DrillEvidence:
        manifest = chosen.manifest
        rto = sum(self.phases.get(name, 0.0) for name in _RESTORE_PHASES)
        rpo = (started_at - manifest.snapshot_at).total_seconds()
        return DrillEvidence(
            kind="drill",
            run_id=run_id,
            subject=set_subject(manifest, chosen.manifest_sha256),
            started_at=started_at,
            finished_at=finished_at,
            checks=tuple(self.checks),
            figures=DrillFigures(
                drill_server=self.drill_server,
                tables=self.tables,
                rows=self.rows,
                files=self.files,
                mutants=None if self.mutants is None else self.mutants.as_json(),
                # A restore that broke off took no time that anybody can count on.
                rto_seconds=round(rto, 3) if self.is_restored else None,
                rpo_seconds=round(rpo, 3),
                phases=self.phases,
            ),
        )


_MADE_BY = {"postgres": "dumped", "files": "backed up"}
_EXPECTED = {
    "postgres": "The expected values were recorded from the dump's own bytes and, for "
    "the structure,\nfrom the catalog in the dump's own snapshot.",
    "files": "The expected values were recorded while the files were read.",
}


def render(evidence: DrillEvidence, manifest: Manifest) -> str:
    """Return the report of a drill, in Markdown."""
    figures = evidence.figures
    verdict = "PASSED" if evidence.passed else "DID NOT PASS"
    drill_server = cell(figures.drill_server or "not started")
    rto, rpo = _duration(figures.rto_seconds), _duration(figures.rpo_seconds)
    not_made = [f"**{cell(e.name)}**: {cell(e.detail)}" for e in evidence.not_checked]
    phases = (f"| {name} | {each:.2f} |" for name, each in figures.phases.items())
    return f"""\
# Restore drill of {manifest.backup_id}: {verdict}

{_summary(evidence, manifest.kind)}

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

{_table(evidence.failed) if evidence.failed else "Nothing."}
{_section("What was not checked", not_made)}{_mutants(figures.mutants)}
## Phases

| phase | seconds |
|---|---:|
{chr(10).join(phases)}

## Everything that was compared

{_EXPECTED[manifest.kind]} The observed values were read from the restored copy.

{_table(evidence.made)}
{_section("Noted when the backup was taken", map(cell, manifest.warnings))}"""


def _section(title: str, points: Iterable[str]) -> str:
    lines = "\n".join(f"- {each}" for each in points)
    return f"\n## {title}\n\n{lines}\n" if lines else ""


def _origin(manifest: Manifest) -> str:
    read_at = f"{manifest.snapshot_at:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(manifest, FolderManifest):
        return f"""\
| source | `{manifest.source}`, {cell(manifest.inventory.path)} |
| read | {read_at} by opskit {manifest.tool_version} |"""
    manifest = of_database(manifest)
    return f"""\
| source | `{manifest.source}`, PostgreSQL {manifest.server_version} |
| snapshot | `{manifest.snapshot}`, {read_at} |
| dumped by | pg_dump {manifest.client_version}, opskit {manifest.tool_version} |"""


def _summary(evidence: DrillEvidence, kind: str) -> str:
    number = len(evidence.made)
    if not evidence.passed:
        return (
            f"{len(evidence.failed)} of {number} checks did not pass. "
            "Do not rely on this set before you know why."
        )
    figures = evidence.figures
    but = ", but for what was not checked" if evidence.not_checked else ""
    compared = f"{count(figures.tables, 'table')} with {count(figures.rows, 'row')}"
    if kind == "files":
        compared = count(figures.files, "entry", "files, folders and links")
    return (
        f"The set was restored and equals what was {_MADE_BY[kind]}{but}: {compared}, "
        f"compared exactly; {count(number, 'check')}, all passed."
    )


def _table(checks: Iterable[Check]) -> str:
    rows = (
        "| {} | {} | {} | {} | {} |".format(
            "passed" if check.passed else "**failed**",
            *map(cell, (check.name, check.expected, check.observed, check.detail)),
        )
        for check in checks
    )
    head = "| | check | expected | observed | detail |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def _mutants(mutants: Mapping[str, Any] | None) -> str:
    """Return how the drill showed that it can fail."""
    if mutants is None:
        return ""
    rows = "\n".join(
        f"| {'noticed' if each['noticed'] else '**not noticed**'} | "
        f"{cell(each['kind'])} | {cell(each['target'])} | "
        f"{cell(each['noticed_by'])} |"
        for each in mutants["mutants"]
    )
    # Rounded down: only all of them are 100 %.
    rate = math.floor(mutants["kill_rate"] * 1000) / 10
    return f"""
## Whether the drill can fail

After a comparison that passed, {mutants["planted"]} mutants were planted in
the copy, each taken back at once; {mutants["killed"]} were noticed (kill rate
{rate:g} %, seed `{mutants["seed"]}`).

| | damage | to | noticed by |
|---|---|---|---|
{rows}
"""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not measured"
    return (
        f"{seconds:.1f} s"
        if seconds < 59.95
        else str(timedelta(seconds=round(seconds)))
    )
