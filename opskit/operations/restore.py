"""Restores a set into a real server or folder, or says what that would do."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join
from typing import Any

from opskit.catalog.manifest import Manifest, of_database
from opskit.catalog.sets import BackupSet
from opskit.errors import DatabaseError, UsageError
from opskit.folders import restore as folders_restore
from opskit.folders.lock import ServiceLock
from opskit.folders.restore import FolderResult, FolderTarget
from opskit.log import mask
from opskit.operations import sources
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.postgres import parameters
from opskit.restore import run as restore_run
from opskit.restore.job import warn_of_code
from opskit.restore.run import RestorePlan, RestoreRequest, RestoreResult, plan
from opskit.restore.select import parse_table

# In characters of up to four bytes: with what is added, no longer than a file's name.
_LOCK_NAME_MAX = 56
_LOCK_NAME_END = 32
# Gets the roles whose code would run as a superuser; raises to refuse that.
Approve = Callable[[Sequence[str]], None]


@dataclass(frozen=True, kw_only=True)
class RestoreSetRequest:
    """Which set to restore, and to where.

    The set is named by `backup` or as the newest `at` a time, of the source named where
    there are several. `to` is a database on the source's server, a URL of one, or a
    folder; it may hold a password.
    """

    backup: str = ""
    at: str = ""
    database: str = ""
    files: str = ""
    to: str = field(repr=False)
    tables: tuple[str, ...] = ()
    replace: bool = False
    accept_failures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RestoredDatabase:
    """A set that was restored into a database.

    `not_failed` are the failures that were accepted and did not occur.
    """

    manifest: Manifest
    restored: RestoreResult
    seconds: float
    not_failed: tuple[str, ...]

    @property
    def not_in_the_set(self) -> Sequence[Any]:
        """What the source's database had, and no dump can hold."""
        return of_database(self.manifest).inventory.beyond_dumps

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        restored = self.restored
        return {
            "backup_id": self.manifest.backup_id,
            "target": restored.target,
            "replaced": restored.replaced,
            "tables": restored.tables,
            "rows": restored.rows,
            "duration_seconds": round(self.seconds, 3),
            "roles_created": list(restored.roles_created),
            "without": list(restored.without),
            "not_in_the_set": [
                {"name": each.name, "reason": each.reason}
                for each in self.not_in_the_set
            ],
            "not_failed": list(self.not_failed),
        }


@dataclass(frozen=True, kw_only=True)
class RestoredFolder:
    """A set that was restored into a folder."""

    manifest: Manifest
    restored: FolderResult
    seconds: float

    @property
    def replaced(self) -> str | None:
        """Where the folder that was there is now."""
        place = self.restored.replaced
        return None if place is None else str(place)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "backup_id": self.manifest.backup_id,
            "target": str(self.restored.target),
            "replaced": self.replaced,
            "tables": 0,
            "rows": 0,
            "files": self.restored.entries,
            "size_bytes": self.restored.size_bytes,
            "duration_seconds": round(self.seconds, 3),
            "warnings": list(self.restored.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class PlannedRestore:
    """What a restore would do; `plan` is about the server, None for a folder."""

    chosen: BackupSet
    target: str
    target_exists: bool
    replaces: bool
    plan: RestorePlan | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        manifest = self.chosen.manifest
        document: dict[str, Any] = {
            "dry_run": True,
            "backup_id": manifest.backup_id,
            "source": manifest.source,
            "snapshot_at": manifest.snapshot_at.isoformat(),
            "size_bytes": manifest.size_bytes,
            "store": self.chosen.stores[0].name,
            "target": self.target,
            "target_exists": self.target_exists,
            "replaces": self.replaces,
        }
        if self.plan is None:
            return document | manifest.counts | {"missing": []}
        return document | {
            "server_major": self.plan.server_major,
            "tables": len(self.plan.tables),
            "rows": sum(each.rows for each in self.plan.tables),
            "roles_created": list(self.plan.roles_created),
            "missing": [
                {"name": each.name, "detail": each.detail, "hint": each.hint}
                for each in self.plan.missing
            ],
            "obstacles": list(self.plan.obstacles),
        }


def restore(
    run: Run, request: RestoreSetRequest, *, approve: Approve = warn_of_code
) -> Outcome[RestoredDatabase | RestoredFolder]:
    """Restore a set beside the target, compare it, and give it the target's name."""
    with run.recorded("restore") as record:
        chosen = _choose(run, request)
        if chosen.manifest.kind == "files":
            _restore_folder(run, chosen, request, record)
        else:
            _restore_database(run, chosen, request, record, approve)
    return record.outcome


def plan_restore(run: Run, request: RestoreSetRequest) -> Outcome[PlannedRestore]:
    """Return what `restore` would do; nothing is touched."""
    with run.recorded("restore") as record:
        chosen = _choose(run, request)
        if chosen.manifest.kind == "files":
            target = Path(request.to).resolve()
            replaces = folders_restore.require_target(target, replace=request.replace)
            record.result = PlannedRestore(
                chosen=chosen,
                target=str(target),
                target_exists=target.exists(),
                replaces=replaces,
            )
        else:
            _plan_database(run, chosen, request, record)
    return record.outcome


def _choose(run: Run, request: RestoreSetRequest) -> BackupSet:
    """Return the set that is meant; refuse what does not go with its kind."""
    source = sources.of_sets(run, database=request.database, files=request.files)
    chosen = sources.choose(run, backup=request.backup, at=request.at, source=source)
    backup_id = chosen.manifest.backup_id
    if chosen.manifest.kind != "files":
        return chosen
    if request.tables:
        raise UsageError(
            f"{backup_id} is a set of a folder and holds no tables",
            hint="Leave out --table.",
        )
    if parameters.is_connection(request.to):
        # It may hold a password, and a target is printed and put on record.
        raise UsageError(
            f"{backup_id} is a set of a folder, and --to is a URL of a database",
            hint="Name a folder with --to; write ./ in front of a name that looks like "
            "a URL.",
        )
    return chosen


def _plan_database(
    run: Run, chosen: BackupSet, request: RestoreSetRequest, record: Record
) -> None:
    wanted = _database_request(run, chosen, request, warn_of_code)
    planned = plan(wanted)
    record.result = PlannedRestore(
        chosen=chosen,
        target=wanted.target,
        target_exists=planned.exists,
        replaces=planned.is_occupied,
        plan=planned,
    )
    reasons = [each.detail for each in planned.refused] + [
        f"{wanted.target} has {each}" for each in planned.obstacles
    ]
    if reasons:
        raise DatabaseError(
            f"the set cannot be restored here now: {'; '.join(reasons)}",
            hint=planned.refused[0].hint
            if planned.refused
            else "End it, or restore to another name.",
        )


def _restore_database(
    run: Run,
    chosen: BackupSet,
    request: RestoreSetRequest,
    record: Record,
    approve: Approve,
) -> None:
    wanted = _database_request(run, chosen, request, approve)
    with _restoring(run, chosen, wanted.target, record):
        restored = restore_run.restore(wanted, clock=run.now)
        record.details |= {"rows": restored.rows, "replaced": restored.replaced}
        if restored.without:
            record.details["without"] = list(restored.without)
    record.result = RestoredDatabase(
        manifest=chosen.manifest,
        restored=restored,
        seconds=record.seconds,
        not_failed=tuple(
            each for each in request.accept_failures if each not in restored.without
        ),
    )


def _database_request(
    run: Run, chosen: BackupSet, request: RestoreSetRequest, approve: Approve
) -> RestoreRequest:
    url, target = _target(run, chosen.manifest, request.to)
    loading = run.settings.restore.loading(run.settings.drill)
    allow = [*loading.allow, *request.accept_failures]
    return RestoreRequest(
        chosen=chosen,
        server_url=url,
        target=target,
        run_id=run.run_id,
        tables=tuple(parse_table(each) for each in request.tables),
        replace=request.replace,
        installations=run.installations,
        limits=run.limits(chosen.manifest),
        identities=run.identities,
        loading=dataclasses.replace(loading, allow=allow),
        command=_command(chosen.manifest.backup_id, request),
        trust=approve,
    )


def _command(backup_id: str, request: RestoreSetRequest) -> str:
    """Return the command for this request, for a hint that adds to it."""
    parts = ["inv", "restore", "--backup", backup_id, "--to", mask(request.to)]
    for each in request.tables:
        parts += ["--table", each]
    return join(parts + ["--replace"] * request.replace)


def _target(run: Run, manifest: Manifest, to: str) -> tuple[str, str]:
    """Return a URL of the server and the name of the database to restore into."""
    url, name = parameters.target(to)
    if url:
        return url, name
    try:
        database = run.database(manifest.source)
    except UsageError:
        raise UsageError(
            f"the source {manifest.source} is not configured here, "
            "so its server is unknown",
            hint="Give --to a URL: postgresql://user@host/name.",
        ) from None
    return database.resolve_restore_url(), name


def _restore_folder(
    run: Run, chosen: BackupSet, request: RestoreSetRequest, record: Record
) -> None:
    target = Path(request.to).absolute()
    wanted = FolderTarget(
        path=target, replace=request.replace, lock=_lock_of(run, target)
    )
    with _restoring(run, chosen, str(target), record):
        restored = folders_restore.restore_set(
            chosen, wanted, identities=run.identities, clock=run.now
        )
        record.result = RestoredFolder(
            manifest=chosen.manifest, restored=restored, seconds=record.seconds
        )
        record.details |= {
            "files": restored.entries,
            "replaced": record.result.replaced,
        }


def _lock_of(run: Run, target: Path) -> ServiceLock | None:
    """Return the lock of the service that uses a folder, if the configuration knows."""
    for each in run.settings.files.values():
        if each.path.resolve() == target.resolve() and each.lock_path is not None:
            return sources.service_lock(each)
    return None


@contextmanager
def _restoring(
    run: Run, chosen: BackupSet, target: str, record: Record
) -> Iterator[None]:
    """Mark the set as read, put the run on record and lock the target."""
    backup_id = chosen.manifest.backup_id
    with run.reading(backup_id):
        record.begin(source=chosen.manifest.source, backup_id=backup_id, target=target)
        with run.lock(_lock_name(target), "restore"):
            yield


def _lock_name(target: str) -> str:
    """Return what the lock of a target is called: a path may be a long one."""
    name = f"to-{target}".replace("/", "_")
    if len(name) <= _LOCK_NAME_MAX:
        return name
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()
    return f"to-{digest[:16]}-{name[-_LOCK_NAME_END:]}"
