"""`prune`: what retention lets go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from opskit.catalog.catalog import BackupSet
    from opskit.catalog.retention import RetentionPlan
    from opskit.config import RetentionSettings
    from opskit.tasks.runtime import Runtime


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "json": "print one JSON document",
    }
)
def prune(_context: object, dry_run: bool = False, json: bool = False) -> Document:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.catalog import orphans
    from opskit.catalog.prune import remove_orphans
    from opskit.tasks import runtime

    run = runtime.start()
    keep: list[Document] = []
    delete: list[Document] = []
    refused: list[str] = []
    for name in run.databases(""):
        with run.lock(name, "prune"):
            sets = run.catalog(name, whole=True).of(name)
            planned = _plan(run, sets)
            keep += [
                {"backup_id": key, "reasons": why} for key, why in planned.keep.items()
            ]
            delete += [{"backup_id": each} for each in planned.delete]
            if planned.refused:
                refused.append(f"{name}: {planned.refused}")
            for line in _plan_lines(planned, dry_run=dry_run):
                say(line, as_json=json)
            if not dry_run:
                _carry_out(run, name, sets, planned)
                found = orphans.find(run.stores, source=name, now=runtime.now())
                remove_orphans(
                    found,
                    told=lambda each: say(
                        f"removed {each.prefix}: a backup that never finished",
                        as_json=json,
                    ),
                )
    document: Document = {
        "keep": keep,
        "delete": delete,
        "refused": "; ".join(refused) or None,
    }
    if refused:
        raise _refusal(document)
    return document


def _refusal(document: Document) -> Exception:
    from opskit.errors import RetentionRefused

    return RetentionRefused(
        str(document["refused"]),
        hint="Nothing was deleted; mend [retention] and run `inv prune --dry-run`.",
        details=document,
    )


def policy(settings: RetentionSettings) -> Any:
    """Return the policy that the settings describe."""
    from opskit.catalog.retention import RetentionPolicy

    return RetentionPolicy(**settings.model_dump())


def _plan(run: Runtime, sets: list[BackupSet]) -> RetentionPlan:
    from opskit.catalog import retention
    from opskit.catalog.prune import candidates
    from opskit.tasks import runtime

    return retention.plan(
        candidates(sets), policy(run.settings.retention), now=runtime.now()
    )


def _plan_lines(planned: RetentionPlan, *, dry_run: bool) -> list[str]:
    verb = "would delete" if dry_run else "deleting"
    return [
        *(f"keep {key}: {', '.join(why)}" for key, why in planned.keep.items()),
        *(f"{verb} {each}: no rule keeps it" for each in planned.delete),
    ]


def _carry_out(
    run: Runtime, name: str, sets: list[BackupSet], planned: RetentionPlan
) -> None:
    from opskit.catalog.prune import delete_set

    by_id = {each.manifest.backup_id: each for each in sets}
    details = {
        "source": name,
        "deleted": list(planned.delete),
        "kept": len(planned.keep),
    }
    with run.recorded("prune", details):
        for backup_id in reversed(planned.delete):  # the oldest first
            delete_set(by_id[backup_id])
