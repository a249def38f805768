"""Migrates a database, and rehearses on a restored copy what that would do."""

from __future__ import annotations

import time
from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opskit.catalog.sets import BackupSet
from opskit.config import configuration_path
from opskit.config.release import MigrationsSettings
from opskit.drill.run import DrillRequest
from opskit.errors import DatabaseError, MigrationFailed, ReleaseRefused, UsageError
from opskit.log import logger
from opskit.operations import reports
from opskit.operations.migration_lock import locked
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.postgres.blockers import Blocker, blockers
from opskit.postgres.connect import Connection, connect
from opskit.postgres.database import speed_settings
from opskit.postgres.migrations import WAITED, invalid_indexes
from opskit.postgres.parameters import parse
from opskit.release.changes import changes, require_as_rehearsed, schema_of
from opskit.release.filled import fill_checks, require_filled
from opskit.release.rehearsal import RehearsalRequest
from opskit.release.rehearsal import rehearse as run_rehearsal
from opskit.release.report import Rehearsal, render
from opskit.release.revisions import (
    Bounds,
    Revision,
    Tool,
    pending,
    require_newest,
    with_patience,
)
from opskit.release.tools import tool_of
from opskit.workspace import Limits

# In the ledger: what opaque migrations changed in a rehearsal.
_CHANGES = "changes"
# So many revisions of a rehearsal may take as long as a statement may run.
_SLOW_MAX = 10


@dataclass(frozen=True, kw_only=True)
class MigrateRequest:
    """Up to which revision, all by default; with `dry_run` nothing is applied.

    With `expand_only` the first revision of the contract phase is the end. If there are
    digests of those `rehearsed`, by their names, no other is applied.
    """

    until: str = ""
    expand_only: bool = False
    rehearsed: Mapping[str, str] | None = None
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Migrated:
    """The revisions that were applied or would be, how long each took, what it did.

    `blockers` held locks on tables when it began. What was `not_checked` has a reason.
    """

    database: str
    revisions: tuple[Revision, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    changes: dict[str, list[str]] = field(default_factory=dict)
    filled: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    not_checked: dict[str, str] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()
    dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "database": self.database,
            "dry_run": self.dry_run,
            "blockers": [each.as_json() for each in self.blockers],
            "not_checked": [
                {"name": name, "reason": reason}
                for name, reason in self.not_checked.items()
            ],
            "revisions": [
                each.as_json()
                | {
                    "status": "applied" if each.id in self.seconds else "pending",
                    "seconds": self.seconds.get(each.id),
                    "changes": self.changes.get(each.id),
                    "filled": self.filled.get(each.id),
                }
                for each in self.revisions
            ],
        }


def migrate(
    run: Run,
    request: MigrateRequest,
    *,
    on_begin: Callable[[], None] = lambda: None,
    on_done: Callable[[Revision, float], None] = lambda _revision, _seconds: None,
) -> Outcome[Migrated]:
    """Apply the pending migrations, one at a time, under a lock in the database.

    `on_begin` is called before the first one: until then nothing was changed.
    """
    with run.recorded("migrate", watched=True) as record:
        settings, tool = _tool(run)
        record.subject = settings.database
        url = run.database(settings.database).resolve_url()
        with locked(run, url, settings):
            with connect(url, purpose="migrate") as connection:
                revisions = pending(tool, connection, until=request.until)
                found = _blockers(connection, settings) if revisions else []
            _require_rehearsed(revisions, request.rehearsed)
            if request.expand_only:
                late = (n for n, e in enumerate(revisions) if e.phase == "contract")
                revisions = revisions[: next(late, None)]
            done = Migrated(
                database=settings.database,
                revisions=tuple(revisions),
                blockers=tuple(found),
                dry_run=request.dry_run,
            )
            record.result = done
            if revisions and not request.dry_run:
                _require_whole_indexes(url)
                require_no_dump(found)
                record.begin(
                    source=settings.database, revisions=[e.id for e in revisions]
                )
                record.details |= {"applied": [], "filled": {}}
                schema = schema_of(url)
                on_begin()
                for revision in revisions:
                    schema = _apply(run, tool, url, revision, schema, done, record)
                    record.details["applied"] = list(done.seconds)
                    on_done(revision, done.seconds[revision.id])
    return record.outcome


def _require_rehearsed(
    revisions: Sequence[Revision], rehearsed: Mapping[str, str] | None
) -> None:
    """Refuse what came or was changed after the rehearsal."""
    for each in revisions:
        if rehearsed is not None and rehearsed.get(each.id) != each.sha256:
            raise ReleaseRefused(
                f"migration {each.id} was not rehearsed as it is now",
                hint="If the release has changed anything, take it back: `inv "
                "rollback`. Then begin a new one, which rehearses the migration.",
            )


def _apply(
    run: Run,
    tool: Tool,
    url: str,
    revision: Revision,
    before: set[str],
    done: Migrated,
    record: Record,
) -> set[str]:
    """Apply a revision and judge what it leaves; return the schema afterwards."""
    began = time.monotonic()
    _move(tool.apply, url, revision, run.settings.release.migrations)
    done.seconds[revision.id] = round(time.monotonic() - began, 3)
    after = schema_of(url)
    done.changes[revision.id] = changes(before, after)
    filled = [*fill_checks(url, revision)]
    done.filled[revision.id] = [each.as_json() for each in filled]
    # In the ledger without details, which may be a server's words.
    record.details["filled"][revision.id] = [
        replace(each, detail="").as_json() for each in filled
    ]
    require_filled(revision, filled)
    if revision.is_opaque:
        _require_as_rehearsed(run, revision, done)
    return after


def _require_as_rehearsed(run: Run, revision: Revision, done: Migrated) -> None:
    """Judge what an opaque migration changed by what it changed when rehearsed.

    What others run is known by its statements, which are classified.
    """
    made, rehearsed = done.changes[revision.id], _rehearsed_changes(run, revision)
    if rehearsed is not None:
        require_as_rehearsed(revision, made, rehearsed)
    elif made:
        done.not_checked[f"changes of {revision.id}"] = (
            "no rehearsal of it has passed on this host"
        )
    else:
        raise MigrationFailed(
            f"migration {revision.id} changed nothing in the schema",
            hint="See whether its tool takes the address from the environment. If it "
            "is to change rows alone, rehearse it first: `inv rehearse`.",
        )


def _rehearsed_changes(run: Run, revision: Revision) -> Sequence[str] | None:
    """Return what a migration changed in its newest rehearsal that passed, if any."""
    for entry in reversed(run.ledger.entries()):
        known: Any = entry.details.get(_CHANGES)
        passed = entry.operation == "rehearse" and entry.details.get("passed")
        if passed and known and revision.id in known:
            return list(known[revision.id])
    return None


def _require_whole_indexes(url: str) -> None:
    """Refuse to begin where an index is invalid: IF NOT EXISTS takes it for whole."""
    if left := sorted(invalid_indexes(url)):
        raise ReleaseRefused(
            f"the database has invalid indexes: {', '.join(left)}",
            hint="A CREATE INDEX CONCURRENTLY was cut off. Drop what it left: "
            + " ".join(f"DROP INDEX CONCURRENTLY {each};" for each in left),
        )


def _blockers(
    connection: Connection, settings: MigrationsSettings
) -> Sequence[Blocker]:
    """Return who holds locks for longer than a migration would wait for one."""
    found = blockers(connection, seconds=settings.lock_timeout.total_seconds())
    for each in found:
        logger().warning("a migration may have to wait", for_=str(each))
    return found


def require_no_dump(found: Iterable[Blocker]) -> None:
    """Refuse to begin while a pg_dump runs: it holds every table until it ends.

    What other transactions hold may be none of what a migration needs.
    """
    for each in found:
        if each.is_dump:
            raise ReleaseRefused(f"{each}: migrations would wait", hint=each.remedy)


def _move(
    move: Callable[[str, Revision, Bounds], None],
    url: str,
    revision: Revision,
    settings: MigrationsSettings,
) -> None:
    try:
        for waited in with_patience(
            move, url, revision, bounds(settings), attempts=settings.lock_attempts
        ):
            time.sleep(min(2.0**waited, 30))  # whoever queued behind comes first
    except MigrationFailed as error:
        if error.sqlstate != WAITED:
            raise
        found: Sequence[Blocker] = ()
        with suppress(DatabaseError), connect(url, purpose="migrate") as connection:
            found = _blockers(connection, settings)
        if not found:
            raise
        raise error.replace(
            summary=f"{error.summary}: {found[0]}", hint=found[0].remedy
        ) from error


def bounds(settings: MigrationsSettings) -> Bounds:
    """Return how long statements of migrations may wait and run."""
    return Bounds(lock_wait=settings.lock_timeout, statement=settings.statement_timeout)


def _tool(run: Run) -> tuple[MigrationsSettings, Tool]:
    settings = run.settings.release.migrations
    return settings, tool_of(settings, configuration_path().resolve().parent)


def applied(run: Run) -> list[str]:
    """Return which revisions the database has, the first one applied first."""
    settings, tool = _tool(run)
    url = run.database(settings.database).resolve_url()
    with connect(url, purpose="migrate") as connection:
        return list(tool.applied(connection))


def undo(run: Run, names: Sequence[str]) -> None:
    """Take back these revisions, the last one first, under the lock in the database.

    Raises:
        ReleaseRefused: one is not known here, or a later one was applied; nothing was
            taken back.
        MigrationFailed: one failed, or waited in vain each time.
    """
    settings, tool = _tool(run)
    known = {each.id: each for each in tool.revisions()}
    if unknown := [name for name in names if name not in known]:
        raise ReleaseRefused(
            f"migration {unknown[0]} is not known here",
            hint="Check out the version of the service that has it.",
        )
    url = run.database(settings.database).resolve_url()
    with locked(run, url, settings):
        require_newest(names, applied(run))
        for name in reversed(names):
            _move(tool.undo, url, known[name], settings)


@dataclass(frozen=True, kw_only=True)
class RehearseRequest:
    """On which set, the newest drilled one by default, and up to which revision."""

    backup: str = ""
    until: str = ""


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What a rehearsal has shown, and where its report lies."""

    rehearsal: Rehearsal
    report: Path

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return self.rehearsal.as_json() | {"report": str(self.report)}


def rehearse(run: Run, request: RehearseRequest) -> Outcome[Rehearsed]:
    """Run the pending migrations on a restored copy, and say what they cost."""
    with run.recorded("rehearse", watched=True) as record:
        settings, tool = _tool(run)
        record.subject = settings.database
        url = run.database(settings.database).resolve_url()
        chosen = _chosen(run, settings.database, request.backup)
        with run.reading(chosen.manifest.backup_id):
            record.begin(source=settings.database, backup_id=chosen.manifest.backup_id)
            made = run_rehearsal(
                RehearsalRequest(
                    drill=_drill_request(run, chosen, tool, settings),
                    tool=tool,
                    until=request.until,
                    user=parse(url).get("user", ""),
                    bounds=bounds(settings),
                    budgets=run.settings.release.budgets,
                    accept=run.settings.release.accept,
                    production=_production(url),
                ),
                clock=run.now,
            )
        record.status = "passed" if made.passed else "failed"
        record.details["passed"] = made.passed
        record.details[_CHANGES] = {
            each.id: made.changes[each.id]
            for each in made.revisions
            if each.is_opaque and each.id in made.changes
        }
        if not made.passed:  # the first error is the exit code: the verdict's
            record.report(_refused(made))
        record.result = Rehearsed(rehearsal=made, report=_keep(run, made, record))
    return record.outcome


def _production(url: str) -> dict[str, str]:
    """Return what the speed of the database's own server depends on, if it answers."""
    try:
        with connect(url, purpose="rehearse") as connection:
            return speed_settings(connection)
    except DatabaseError as error:
        logger().warning("production is not known", reason=error.message)
        return {}


def _drill_request(
    run: Run, chosen: BackupSet, tool: Tool, settings: MigrationsSettings
) -> DrillRequest:
    limits = run.limits(chosen.manifest)
    # Each revision runs up to four times: alone, up again, with a writer, and back.
    # Before the set is restored nobody knows how many it lacks.
    slow = min(len(tool.revisions()), _SLOW_MAX)
    more = 4 * slow * settings.statement_timeout.total_seconds()
    return DrillRequest(
        chosen=chosen,
        installations=run.installations,
        run_id=run.run_id,
        limits=Limits(
            seconds=limits.seconds + more, jobs=limits.jobs, work_dir=limits.work_dir
        ),
        settings=run.settings.drill,
        identities=run.identities,
    )


def _chosen(run: Run, source: str, backup: str) -> BackupSet:
    if backup:
        chosen = run.listing().find(backup, source=source)
        if chosen.manifest.source != source:
            raise UsageError(
                f"{chosen.manifest.backup_id} is a set of {chosen.manifest.source}, "
                f"and the migrations are for {source}",
                hint="Name a set of that database.",
            )
        return chosen
    drilled = drilled_sets(run, source)
    if not drilled:
        raise ReleaseRefused(
            f"{source} has no drilled set to rehearse on",
            hint=f"Drill one: `inv restore-drill --database {source}`.",
        )
    return max(drilled, key=lambda each: each.manifest.finished_at)


def drilled_sets(run: Run, source: str) -> Sequence[BackupSet]:
    """Return the sets of a database that came back in a drill."""
    return [
        each
        for each in run.catalog(source).sets
        if each.manifest.source == source and each.proof == "drilled"
    ]


def _refused(made: Rehearsal) -> ReleaseRefused:
    failed = [each for each in made.checks if each.failed]
    return ReleaseRefused(
        f"the rehearsal on {made.backup_id} says no: {failed[0].name}"
        + (f" and {len(failed) - 1} more" if len(failed) > 1 else ""),
        hint="Read the report. Change the migration; or change the budgets in "
        "[release.budgets], or accept the warning in [release].",
    )


def _keep(run: Run, made: Rehearsal, record: Record) -> Path:
    name = f"rehearsal-{made.backup_id}-{run.run_id}"
    document = made.as_json() | {
        "passed": made.passed,
        "started_at": made.started_at.isoformat(),
    }
    return reports.keep(run, name, document, render(made), record)
