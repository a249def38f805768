"""The drill's report: Markdown that a person can hand to an auditor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta

from opskit import __version__
from opskit.catalog.manifest import Manifest
from opskit.checks import Check, count
from opskit.evidence import Evidence

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
| source | `{manifest.source}`, {_cell(str(manifest.inventory.get("path", "")))} |
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
