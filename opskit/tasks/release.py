"""`migrate` and `rehearse`: change a database, having seen what that costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count, duration, size
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.migrate import Migrated, Rehearsed
    from opskit.operations.outcome import Outcome


@command(
    help={
        "to": "the last revision to apply: its name, or the beginning of it",
        "dry_run": "only list what would be applied",
        "json": "print one JSON document",
    }
)
def migrate(
    say: Say, to: str = "", dry_run: bool = False, json: bool = False
) -> Outcome[Migrated]:
    """Apply the pending migrations of the configured database.

    Example: inv migrate --dry-run
    """
    from opskit.operations.migrate import MigrateRequest
    from opskit.operations.migrate import migrate as apply
    from opskit.watch.runs import start

    outcome = apply(
        start(),
        MigrateRequest(until=to, dry_run=dry_run),
        on_done=lambda revision, seconds: say(
            f"applied {revision.id} ({revision.title}) in {duration(seconds)}"
        ),
    )
    if (done := outcome.result) is None:
        return outcome
    if not done.revisions:
        say(f"{done.database} has all migrations")
    elif done.dry_run:
        say(f"{done.database} lacks {count(len(done.revisions), 'migration')}:")
        say(*(f"  {e.id}  {e.phase}  {e.title}" for e in done.revisions))
    return outcome


@command(
    help={
        "backup": "rehearse on this set: its ID, the beginning of it, or latest",
        "to": "the last revision to rehearse: its name, or the beginning of it",
        "json": "print one JSON document",
    }
)
def rehearse(
    say: Say, backup: str = "", to: str = "", json: bool = False
) -> Outcome[Rehearsed]:
    """Run the pending migrations on a restored copy; measure locks, rewrites, time.

    Example: inv rehearse
    """
    from opskit.operations.migrate import RehearseRequest
    from opskit.operations.migrate import rehearse as rehearse_migrations
    from opskit.watch.runs import start

    outcome = rehearse_migrations(start(), RehearseRequest(backup=backup, until=to))
    if outcome.result is not None:
        say(*_lines(outcome.result))
    return outcome


def _lines(done: Rehearsed) -> Iterator[str]:
    made, cost = done.rehearsal, done.rehearsal.cost
    verdict = "yes" if made.passed else "NO"
    yield f"rehearsal on {made.backup_id}: {verdict}"
    for check in made.checks:
        outcome = {True: "passed", False: "DID NOT PASS", None: "not checked"}
        yield (
            f"  {outcome[check.passed]:<13}{check.name}: "
            f"{check.observed or check.detail}"
            + (f" ({check.expected})" if check.expected else "")
        )
    if cost is not None:
        yield (
            f"  took {duration(cost.seconds)}, {size(cost.wal_bytes)} written ahead, "
            f"{count(len(cost.locks), 'lock')} on tables"
        )
    for statement in made.waits:
        yield f"  waits for open transactions: {' '.join(statement.split())[:100]}"
    yield f"report: {done.report}"
