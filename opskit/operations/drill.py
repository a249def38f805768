"""Drills sets: restores them into throw-away servers and keeps the evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opskit.catalog.manifest import Manifest
from opskit.catalog.sets import BackupSet
from opskit.checks import not_checked
from opskit.drill.folder import drill_folder
from opskit.drill.report import DrillEvidence, render
from opskit.drill.run import DrillRequest
from opskit.drill.run import drill as drill_database
from opskit.errors import DrillFailed, StoreError, UsageError
from opskit.evidence import publish_evidence, store_evidence, write_report
from opskit.operations import keys, sources
from opskit.operations.outcome import Outcome, Record, not_recorded, worst
from opskit.operations.run import Run
from opskit.store.s3.trial import challenge

_NAME = "restore-drill"


@dataclass(frozen=True, kw_only=True)
class RestoreDrillRequest:
    """Which set to drill: this one, or the newest of the source named.

    The source may be left out where there is only one. `mutants` is how much damage
    to plant in the copy; as many as the settings say if it is None.
    """

    database: str = ""
    files: str = ""
    backup: str = ""
    mutants: int | None = None


@dataclass(frozen=True, kw_only=True)
class Drilled:
    """What a drill proved of a set, and where its report lies."""

    manifest: Manifest
    evidence: DrillEvidence
    report: Path

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return self.evidence.as_json() | {"report": str(self.report)}


@dataclass(frozen=True, kw_only=True)
class Drills:
    """What became of the drill of each source."""

    sources: tuple[Outcome[Drilled], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "drills": [
                each.as_json() | {"source": each.subject} for each in self.sources
            ]
        }


def drill(run: Run, request: RestoreDrillRequest) -> Outcome[Drilled]:
    """Drill one set."""
    with run.recorded(_NAME, watched=True) as record:
        source = sources.of_sets(run, database=request.database, files=request.files)
        record.subject = source
        chosen = _choose(run, source, request.backup)
        _drill_set(run, chosen, request.mutants, record)
    return record.outcome


def drill_all(
    run: Run,
    *,
    mutants: int | None = None,
    on_done: Callable[[Outcome[Drilled]], object] = lambda _outcome: None,
) -> Outcome[Drills]:
    """Drill the newest set of every source; `on_done` gets each outcome at once."""
    with run.recorded(_NAME, watched=True) as record:
        outcomes: list[Outcome[Drilled]] = []
        for name in sources.with_sets(run):
            outcomes.append(_drill_newest(run, name, mutants))
            on_done(outcomes[-1])
        record.result = Drills(sources=tuple(outcomes))
        if errors := [error for each in outcomes for error in each.errors]:
            record.report(replace(worst(errors), details={}))
    return record.outcome


def _drill_newest(run: Run, source: str, mutants: int | None) -> Outcome[Drilled]:
    with run.recorded(_NAME, source, watched=True) as record:
        _drill_set(run, _choose(run, source, ""), mutants, record)
    return record.outcome


def _choose(run: Run, source: str, backup: str) -> BackupSet:
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


def _drill_set(
    run: Run, chosen: BackupSet, mutants: int | None, record: Record
) -> None:
    """Drill one set, and keep the evidence beside it and in the state folder."""
    settings = run.settings.drill
    manifest = chosen.manifest
    record.subject = manifest.source
    with run.reading(manifest.backup_id):
        record.begin(source=manifest.source, backup_id=manifest.backup_id)
        evidence = _drill(run, chosen, settings.mutants if mutants is None else mutants)
        evidence = _challenged(evidence, chosen, settings.try_to_destroy)
        rendered = render(evidence, manifest)
        signer = run.protection.signer
        report = write_report(evidence, rendered, run.reports)
        publish_evidence(evidence, rendered, run.state_dir / "evidence", signer=signer)
        record.result = Drilled(manifest=manifest, evidence=evidence, report=report)
        record.details |= {
            "passed": evidence.passed,
            "rto_seconds": evidence.figures.rto_seconds,
            "rpo_seconds": evidence.figures.rpo_seconds,
            "phases": {**evidence.figures.phases},
            "size_bytes": manifest.size_bytes,
        }
        keys.warn_of_unsigned(run.settings)
        try:
            # Beside the copy that was read; nothing is known of the others.
            store_evidence(evidence, rendered, [chosen.stores[0]], signer=signer)
        except StoreError as error:
            record.details["not_stored"] = error.message
            if evidence.passed:
                record.report(not_recorded(error))
                return
    record.status = "passed" if evidence.passed else "failed"
    if not evidence.passed:
        record.report(_not_passed(evidence))


def _not_passed(evidence: DrillEvidence) -> DrillFailed:
    failed = [check.name for check in evidence.failed]
    failed = failed or ["nothing was checked"]
    return DrillFailed(
        f"the drill of {evidence.subject.name} did not pass: {failed[0]}"
        + (f" and {len(failed) - 1} more checks" if len(failed) > 1 else ""),
        hint="Read the report; do not rely on this set, and take a new backup.",
    )


def _challenged(
    evidence: DrillEvidence, chosen: BackupSet, names: Sequence[str]
) -> DrillEvidence:
    """Add whether the stores named keep the set from these credentials.

    Where that cannot be tried it is said, and the drill's own finding stands.
    """
    holding = {each.name: each for each in chosen.stores}
    checks = [*evidence.checks]
    for name in names:
        reason = "the set is not there"
        try:
            if name in holding:
                checks += challenge(holding[name], chosen.manifest.prefix)
                continue
        except StoreError as error:
            reason = error.message
        checks.append(not_checked(f"destruction in store {name}", reason))
    return replace(evidence, checks=tuple(checks))


def _drill(run: Run, chosen: BackupSet, mutants: int) -> DrillEvidence:
    settings = run.settings.drill
    if chosen.manifest.kind == "files":
        return drill_folder(
            chosen,
            mutants=mutants,
            run_id=run.run_id,
            clock=run.now,
            identities=run.identities,
            work_dir=settings.work_dir,
        )
    request = DrillRequest(
        chosen=chosen,
        installations=run.installations,
        run_id=run.run_id,
        limits=run.limits(chosen.manifest),
        settings=settings,
        mutants=mutants,
        identities=run.identities,
    )
    return drill_database(request, clock=run.now)
