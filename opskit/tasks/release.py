"""`migrate`, `rehearse`, `release`, `rollback`, `releases`: change what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count, duration, size
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.archive import Archived
    from opskit.operations.migrate import Migrated, Rehearsed
    from opskit.operations.outcome import Outcome
    from opskit.operations.release import Releases, Started
    from opskit.operations.steps import Released, Step


@command(
    help={
        "to": "the last revision to apply: its name, or the beginning of it",
        "dry_run": "only list what would be applied",
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
        say(*(f"they may have to wait: {each}" for each in done.blockers))
    say(*(f"NOT CHECKED {name}: {why}" for name, why in done.not_checked.items()))
    return outcome


@command(
    help={
        "backup": "rehearse on this set: its ID, the beginning of it, or latest",
        "to": "the last revision to rehearse: its name, or the beginning of it",
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


@command(
    help={
        "version": "the version to release",
        "dry_run": "only list the steps",
        "resume": "take up the release that broke off",
    }
)
def release(
    say: Say,
    version: str = "",
    dry_run: bool = False,
    resume: bool = False,
    json: bool = False,
) -> Outcome[Released]:
    """Release a version: rehearse, migrate, deploy, probe; back if it fails.

    Example: inv release --version 1.4.2
    """
    from opskit.operations.release import ReleaseRequest
    from opskit.operations.release import release as make
    from opskit.watch.runs import start

    request = ReleaseRequest(version=version, dry_run=dry_run, resume=resume)
    outcome = make(start(), request, on_step=lambda step: say(line_of(step)))
    if (done := outcome.result) is not None:
        if dry_run:
            say(*(f"  {each.name}" for each in done.steps))
        else:
            say(*ending(done, outcome.status))
    return outcome


@command(
    help={
        "to": "the release whose version shall run: its id, the beginning of it, or "
        "its version",
    }
)
def rollback(say: Say, to: str = "", json: bool = False) -> Outcome[Released]:
    """Have the version before run again, if the schema allows it, and probe it.

    Example: inv rollback
    """
    from opskit.operations.release import rollback as take_back
    from opskit.watch.runs import start

    outcome = take_back(start(), to=to, on_step=lambda step: say(line_of(step)))
    if outcome.result is not None:
        say(*ending(outcome.result, outcome.status))
    return outcome


@command()
def start(say: Say, json: bool = False) -> Outcome[Started]:
    """Start the process of the current version, if none of it runs.

    Example: inv start
    """
    from opskit.operations.release import start as begin
    from opskit.watch import runs

    outcome = begin(runs.start())
    if (done := outcome.result) is not None:
        say(f"{done.version}: {outcome.status}")
    return outcome


@command()
def releases(say: Say, json: bool = False) -> Outcome[Releases]:
    """List releases and rollbacks, the newest first.

    Example: inv releases
    """
    from opskit.operations.release import list_releases
    from opskit.tasks import output as text
    from opskit.watch.runs import start

    outcome = list_releases(start())
    if outcome.result is not None:
        rows = [
            [str(each.get(key, "")) for key in ("time", "release", "version", "status")]
            for each in outcome.result.releases
        ]
        say(*text.table(["time", "release", "version", "outcome"], rows))
    return outcome


@command(
    help={
        "release": "the release or rollback: its id, the beginning of it, or latest",
    },
    required=["release"],
)
def evidence(say: Say, release: str = "", json: bool = False) -> Outcome[Archived]:
    """Make one archive of everything behind a release, with a list of digests.

    Example: inv evidence --release 3f2a
    """
    from opskit.operations.archive import archive
    from opskit.watch.runs import start

    outcome = archive(start(), release)
    if (done := outcome.result) is not None:
        say(f"{done.path}: {count(len(done.digests), 'file')}, SHA-256 {done.sha256}")
        say(*(f"missing: {each}" for each in done.missing))
    return outcome


def line_of(step: Step) -> str:
    """Return the line about a step that has ended."""
    return f"{step.status:<19}{step.name} ({duration(step.seconds)})"


def ending(done: Released, status: str) -> Iterator[str]:
    """Yield the lines about a release or rollback that has ended."""
    yield f"{done.version}: {status}"
    if done.verdict:
        yield f"verdict: {done.verdict}"
    if done.differing:
        yield done.differences
    if done.report:
        yield f"report: {done.report}"
