"""`restore`: bring a backup set back into a real server or folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opskit.checks import count, duration, size
from opskit.errors import UsageError
from opskit.tasks.command import BACKUP_HELP, command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opskit.operations.outcome import Outcome
    from opskit.operations.restore import (
        PlannedRestore,
        RestoredDatabase,
        RestoredFolder,
    )


@command(
    help={
        "backup": f"this or --at is required: the set to restore: {BACKUP_HELP}",
        "at": "restore the newest set whose snapshot was taken at this time or before, "
        "as 2026-01-31T03:00:00Z, '2026-01-31 03:00' or 2026-01-31 (its first moment); "
        "in UTC unless it ends with an offset such as +02:00",
        "database": "restore a set of this database, where there are several sources",
        "files": "restore a set of this folder",
        "to": "name of a database on the source's server, or a URL; "
        "for files, a folder",
        "table": "restore only SCHEMA.TABLE (may be given several times)",
        "replace": "swap an existing database for the restored one; "
        "the old one is kept",
        "accept-failures": "keep the copy without this entry, as a failed restore "
        "names it (may be given several times)",
        "dry-run": "print what would be done, and do nothing",
    },
    iterable=["table", "accept_failures"],
    required=["to"],
)
def restore(
    say: Say,
    backup: str = "",
    at: str = "",
    database: str = "",
    files: str = "",
    to: str = "",
    table: list[str] | None = None,
    replace: bool = False,
    accept_failures: list[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> Outcome[Any]:
    """Restore a set into a database: beside, compared, then given its name.

    Example: inv restore --backup shop-20260101T030000Z-a1b2c3 --to shop_restored
    """
    from opskit.operations import restore as operation
    from opskit.restore.job import warn_of_code
    from opskit.watch.runs import start

    request = operation.RestoreSetRequest(
        backup=backup,
        at=at,
        database=database,
        files=files,
        to=to,
        tables=tuple(table or ()),
        replace=replace,
        accept_failures=tuple(accept_failures or ()),
    )
    if dry_run:
        return say.result(operation.plan_restore(start(), request), _plan)
    approve = warn_of_code if json else _ask
    return say.result(operation.restore(start(), request, approve=approve), _restored)


def _restored(done: RestoredDatabase | RestoredFolder) -> Iterator[str]:
    from opskit.operations.restore import RestoredDatabase

    return _database(done) if isinstance(done, RestoredDatabase) else _folder(done)


def _database(done: RestoredDatabase) -> Iterator[str]:
    restored = done.restored
    yield (
        f"restored {done.manifest.backup_id} into {restored.target}: "
        f"{count(restored.tables, 'table')}, {count(restored.rows, 'row')}, "
        f"compared with the manifest exactly; {duration(done.seconds)}"
    )
    for each in done.not_in_the_set:
        yield f"  not in the set: {each.name}: {each.reason}"
    if restored.without:
        yield f"  restored without: {', '.join(restored.without)}"
    if restored.roles_created:
        yield f"  roles created: {', '.join(restored.roles_created)}"
    if restored.replaced:
        yield f"  the database that was there is kept as {restored.replaced}"
    for name in done.not_failed:
        yield f"  was accepted, but did not fail: {name}"


def _folder(done: RestoredFolder) -> Iterator[str]:
    restored = done.restored
    yield (
        f"restored {done.manifest.backup_id} into {restored.target}: "
        f"{count(restored.entries, 'entry', 'files, folders and links')}, "
        f"{size(restored.size_bytes)}, compared with the manifest exactly; "
        f"{duration(done.seconds)}"
    )
    for warning in restored.warnings:
        yield f"  warning: {warning}"
    if done.replaced:
        yield f"  the folder that was there is kept as {done.replaced}"


def _plan(planned: PlannedRestore) -> Iterator[str]:
    manifest = planned.chosen.manifest
    if planned.replaces:
        then = "would replace what is there, and keep it under another name"
    elif planned.target_exists:
        then = "exists and is empty; would be replaced"
    else:
        then = "would be created"
    yield f"would restore {manifest.backup_id} as of {manifest.snapshot_at.isoformat()}"
    yield f"  from store {planned.chosen.stores[0].name}, {size(manifest.size_bytes)}"
    yield f"  to {planned.target}: {then}"
    if planned.plan is None:
        number = manifest.counts["files"]
        yield f"  {count(number, 'file, folder or link', 'files, folders and links')}"
    else:
        plan = planned.plan
        yield (
            f"  {count(len(plan.tables), 'table')}, "
            f"{count(sum(each.rows for each in plan.tables), 'row')}, "
            f"on PostgreSQL {plan.server_major}"
        )
        if plan.roles_created:
            yield f"  roles to be created: {', '.join(plan.roles_created)}"
        for each in plan.missing:
            yield f"  missing: {each.name}: {each.detail}"
    yield "nothing was changed"


def _ask(authors: Sequence[str]) -> None:
    """Warn, and on a terminal let the user decide."""
    from opskit.restore.job import warn_of_code

    warn_of_code(authors)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print("Load them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError(
            f"not restored: code of {', '.join(authors)} would run with the rights "
            "of a superuser",
            hint="Restore as a role that may log in with a password, or that is no "
            "superuser; see docs/protection.md.",
        )
