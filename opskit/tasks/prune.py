"""`prune`: delete what retention does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.tasks.command import Say, command

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.prune import PruneStep


@command(
    help={
        "dry-run": "print the plan and delete nothing",
        "confirm": "the set whose sudden change is right; deletes nothing",
        "json": "print one JSON document",
    }
)
def prune(
    say: Say, dry_run: bool = False, confirm: str = "", json: bool = False
) -> Outcome[Any]:
    """Delete the backup sets that no retention rule keeps.

    Example: inv prune --dry-run
    """
    from opskit.errors import UsageError
    from opskit.operations.prune import PruneRequest
    from opskit.operations.prune import prune as prune_sources
    from opskit.operations.run import start

    if confirm and dry_run:
        raise UsageError(
            "--confirm and --dry-run do not go together", hint="Give one of them."
        )
    if confirm:
        return _confirm(say, confirm)
    outcome = prune_sources(
        start(),
        PruneRequest(dry_run=dry_run),
        on_step=lambda step: say(_line(step, dry_run=dry_run)),
    )
    if outcome.result is not None:
        for name, error in outcome.result.failed:
            say(f"{name} is not pruned: {error.message}")
    return outcome


def _line(step: PruneStep, *, dry_run: bool) -> str:
    if step.action == "keep":
        return f"keep {step.what}: {', '.join(step.reasons)}"
    if step.action == "remove":
        return f"removed {step.what}: a backup that never finished"
    done = "would delete" if dry_run else "deleted"
    return f"{done} {step.what}: no rule keeps it"


def _confirm(say: Say, backup: str) -> Outcome[Any]:
    from opskit.operations.pin import ConfirmRequest, confirm
    from opskit.operations.run import start

    outcome = confirm(start(), ConfirmRequest(backup=backup))
    if (done := outcome.result) is not None:
        say(*(f"confirmed of {done.backup_id}: {each}" for each in done.changes))
    return outcome
