"""Drills one set with what the configuration says, and keeps the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opskit.catalog.sets import BackupSet
    from opskit.drill.report import DrillEvidence
    from opskit.drill.servers import ServerRequest
    from opskit.errors import StoreError
    from opskit.operations.run import Run


def run_drill(
    run: Run, chosen: BackupSet, *, mutants: int
) -> tuple[DrillEvidence, Path, StoreError | None]:
    """Drill one set, keep the evidence beside it, and return it with its report.

    The error says why the evidence could not be stored; the finding is told first.
    """
    from opskit.drill.report import render
    from opskit.errors import StoreError
    from opskit.evidence import store_evidence, write_report
    from opskit.operations import keys

    source = chosen.manifest.source
    details = {"source": source, "backup_id": chosen.manifest.backup_id}
    with (
        run.reading(chosen.manifest.backup_id),
        run.ledgered("restore-drill", details) as record,
    ):
        evidence = _drill(run, chosen, mutants)
        evidence = _challenged(evidence, chosen, run.settings.drill.try_to_destroy)
        rendered = render(evidence, chosen.manifest)
        path = write_report(evidence, rendered, run.reports)
        record |= {
            "passed": evidence.passed,
            "rto_seconds": evidence.figures.rto_seconds,
        }
        keys.warn_of_unsigned(run.settings)
        unstored = None
        try:
            # Beside the copy that was read; nothing is known of the others.
            store_evidence(
                evidence, rendered, [chosen.stores[0]], signer=run.protection.signer
            )
        except StoreError as error:
            unstored = error
            record["not_stored"] = error.message
    return evidence, path, unstored


def _challenged(
    evidence: DrillEvidence, chosen: BackupSet, names: Sequence[str]
) -> DrillEvidence:
    """Add whether the stores named keep the set from these credentials.

    Where that cannot be tried it is said, and the drill's own finding stands.
    """
    from dataclasses import replace

    from opskit.checks import not_checked
    from opskit.errors import StoreError
    from opskit.store.s3.challenge import challenge

    holding = {each.name: each for each in chosen.stores}
    checks = [*evidence.checks]
    for name in names:
        reason = "the set was not found there"
        try:
            if name in holding:
                checks += challenge(holding[name], chosen.manifest.prefix)
                continue
        except StoreError as error:
            reason = error.message
        checks.append(not_checked(f"destruction in store {name}", reason))
    return replace(evidence, checks=tuple(checks))


def _drill(run: Run, chosen: BackupSet, mutants: int) -> DrillEvidence:
    from opskit.drill.folder import FolderDrillRequest, drill_folder
    from opskit.drill.run import DrillRequest, drill
    from opskit.operations import run as runtime

    source = chosen.manifest.source
    settings = run.settings.drill
    if chosen.manifest.kind == "files":
        folder_request = FolderDrillRequest(
            chosen=chosen,
            mutants=mutants,
            work_dir=settings.work_dir,
            identities=run.identities,
        )
        return drill_folder(folder_request, run_id=run.run_id, clock=runtime.now)
    request = DrillRequest(
        chosen=chosen,
        installations=run.installations,
        server=server_request(run),
        run_id=run.run_id,
        limits=run.limits(chosen.manifest),
        queries=[each for each in settings.queries if each.database in ("", source)],
        allowed=settings.allow,
        mutants=mutants,
        sql_before=settings.sql_before,
        sql_after=settings.sql_after,
        identities=run.identities,
    )
    return drill(request, clock=runtime.now)


def server_request(run: Run) -> ServerRequest:
    """Return what the configuration says of the server to drill on."""
    from opskit.drill.servers import ServerRequest

    settings = run.settings.drill
    return ServerRequest(
        kind=settings.server,
        accept_newer_major=settings.accept_newer_major,
        image=settings.image,
        memory=settings.memory,
        cpus=settings.cpus,
        settings=settings.settings,
        existing_url=settings.resolve_existing_url(),
        on_source_server=settings.on_source_server,
    )
