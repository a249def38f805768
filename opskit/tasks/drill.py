"""`restore-drill`: prove a backup set by restoring it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say, whole_number

_MADE_BY = {"postgres": "dumped", "files": "backed up"}

if TYPE_CHECKING:
    from pathlib import Path

    from opskit.catalog.sets import BackupSet
    from opskit.drill.report import DrillEvidence
    from opskit.errors import OpskitError, StoreError
    from opskit.operations.run import Run


@command(
    help={
        "database": "drill the newest set of this database",
        "files": "drill the newest set of this folder of files",
        "backup": "drill this set: its ID, the beginning of it, or latest",
        "all": "drill the newest set of every source",
        "mutants": "plant so much damage in the copy, to show that the drill can fail",
        "json": "print one JSON document",
    }
)
def restore_drill(
    _context: object,
    database: str = "",
    files: str = "",
    backup: str = "",
    all_: bool = False,
    mutants: str = "",
    json: bool = False,
) -> Document:
    """Restore a set into a throw-away server and compare everything.

    Example: inv restore-drill --database shop
    """
    from opskit.errors import OpskitError, UsageError, worst
    from opskit.operations import run as runtime
    from opskit.operations import sources

    if all_ and (database or files or backup):
        raise UsageError(
            "--all goes with neither --database, --files nor --backup",
            hint="Give one of them.",
        )
    run = runtime.start()
    number = (
        whole_number("--mutants", mutants) if mutants else run.settings.drill.mutants
    )
    if not all_:
        source = sources.of_sets(run, database=database, files=files)
        return _one(run, source, backup, number, as_json=json)
    documents: list[Document] = []
    errors: list[OpskitError] = []
    for name in sources.with_sets(run):
        try:
            documents.append(_one(run, name, "", number, as_json=json))
        except OpskitError as error:
            failure = {"status": "error", "source": name, "code": error.exit_code}
            failure |= {"error": error.message, "hint": error.hint}
            documents.append(failure | error.details)
            errors.append(error)
    if errors:
        decisive = worst(errors)
        decisive.details = {"drills": documents}
        raise decisive
    return {"drills": documents}


def _one(
    run: Run, source: str, backup: str, mutants: int, *, as_json: bool
) -> Document:
    from opskit.operations.drill import run_drill

    chosen = _choose(run, source, backup)
    evidence, report, unstored = run_drill(run, chosen, mutants=mutants)
    document = describe(evidence, report)
    for line in summary(evidence, report, chosen.manifest.kind):
        say(line, as_json=as_json)
    if not evidence.passed:
        raise failure(evidence, document)
    if unstored is not None:
        raise not_recorded(unstored, document)
    return document


def _choose(run: Run, source: str, backup: str) -> BackupSet:
    from opskit.errors import UsageError
    from opskit.operations import sources

    if backup:
        chosen = run.listing().find(backup, source=source or None)
        if source and chosen.manifest.source != source:
            raise UsageError(
                f"{chosen.manifest.backup_id} is a set of {chosen.manifest.source}, "
                f"not of {source}",
                hint=f"Leave out {source}.",
            )
        return chosen
    names = [source] if source else sources.with_sets(run)
    if len(names) > 1:
        raise UsageError(
            f"there are several sources: {', '.join(names)}",
            hint="Name one with --database or --files, or drill them all with --all.",
        )
    return run.listing(names[0]).newest(names[0])


def describe(evidence: DrillEvidence, report: Path) -> Document:
    """Return the fields of the contract for a drill."""
    return evidence.as_json() | {"report": str(report)}


def summary(evidence: DrillEvidence, report: Path, kind: str) -> list[str]:
    """Return what a person wants to read of a drill of a set of this kind."""
    figures, subject = evidence.figures, evidence.subject.name
    if evidence.failed:
        lines = [f"drill of {subject} DID NOT PASS:"]
        lines += [
            f"  {check.name}: expected {check.expected or 'success'}, "
            f"observed {check.observed or 'failure'}"
            + (f" ({check.detail})" if check.detail else "")
            for check in evidence.failed
        ]
    else:
        compared = f"{count(figures.tables, 'table')}, {count(figures.rows, 'row')}"
        if kind == "files":
            compared = count(figures.files, "entry", "files, folders and links")
        lines = [
            f"drill of {subject} passed: {count(len(evidence.made), 'check')}",
            f"  {compared} equal exactly what was {_MADE_BY[kind]}; "
            f"on {figures.drill_server}",
        ]
    if figures.mutants is not None:
        killed, planted = (figures.mutants[key] for key in ("killed", "planted"))
        lines.append(
            f"  {killed} of {planted} mutants planted in the copy were noticed"
        )
    lines += [f"  NOT CHECKED {e.name}: {e.detail}" for e in evidence.not_checked]
    if figures.rto_seconds is not None:
        lines.append(f"  a restore takes {text.duration(figures.rto_seconds)} (RTO)")
    if figures.rpo_seconds is not None:
        lines.append(f"  the data was {text.duration(figures.rpo_seconds)} old (RPO)")
    return [*lines, f"  report: {report}"]


def not_recorded(error: StoreError, document: Document) -> StoreError:
    """Return the error of a finding that could not be stored beside its set."""
    return error.replace(
        summary=f"what was found is not on record: {error.summary}",
        hint=error.hint or "Let these credentials write evidence beside the sets.",
        details=error.details | document | {"status": "error"},
    )


def failure(evidence: DrillEvidence, document: Document) -> OpskitError:
    """Return the error of a drill that did not pass."""
    from opskit.errors import DrillFailed

    failed = [check.name for check in evidence.failed]
    return DrillFailed(
        f"the drill of {evidence.subject.name} did not pass: {failed[0]}"
        + (f" and {len(failed) - 1} more checks" if len(failed) > 1 else ""),
        hint="Read the report; do not rely on this set, and take a new backup.",
        details=document,
    )
