"""`restore`: bring a backup set back into a real server."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.operations.choosing import AT_HELP, BACKUP_HELP, choose
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

# In characters of up to four bytes: with what is added, no longer than a file's name.
_LOCK_NAME_MAX = 56
_LOCK_NAME_END = 32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from opskit.catalog.manifest import Manifest
    from opskit.catalog.sets import BackupSet
    from opskit.folders.lock import ServiceLock
    from opskit.operations.run import Run
    from opskit.restore.run import RestoreResult


@command(
    help={
        "backup": f"this or --at is required: the set to restore: {BACKUP_HELP}",
        "at": f"restore {AT_HELP}",
        "database": "restore a set of this database, where there are several sources",
        "files": "restore a set of this folder of files",
        "to": "name of a database on the source's server, or a URL; "
        "for files, a folder",
        "table": "restore only SCHEMA.TABLE (may be given several times)",
        "replace": "swap an existing database for the restored one; "
        "the old one is kept",
        "accept-failures": "keep the copy without this entry, as a failed restore "
        "names it (may be given several times)",
        "dry-run": "print what would be done, and do nothing",
        "json": "print one JSON document",
    },
    iterable=["table", "accept_failures"],
    required=["to"],
)
def restore(
    _context: object,
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
) -> Document:
    """Restore a set into a database: beside, compared, then given its name.

    Example: inv restore --backup shop-20260101T030000Z-a1b2c3 --to shop_restored
    """
    import time

    from opskit.operations import run as runtime
    from opskit.operations import sources
    from opskit.restore.run import RestoreRequest
    from opskit.restore.run import restore as run_restore
    from opskit.restore.select import parse_table
    from opskit.tasks import restore_plan

    run = runtime.start()
    source = sources.of_sets(run, database=database, files=files)
    chosen = choose(run, backup=backup, at=at, source=source)
    backup = chosen.manifest.backup_id
    if chosen.manifest.kind == "files":
        _require_files(backup, to, table)
        if dry_run:
            return restore_plan.of_folder(chosen, to, replace=replace, as_json=json)
        return _restore_folder(run, chosen, to, replace=replace, as_json=json)
    url, target = _target(run, chosen.manifest, to)
    settings = run.settings.restore.with_defaults(run.settings.drill)
    request = RestoreRequest(
        chosen=chosen,
        server_url=url,
        target=target,
        run_id=run.run_id,
        tables=tuple(parse_table(each) for each in table or ()),
        replace=replace,
        installations=run.installations,
        limits=run.limits(chosen.manifest),
        identities=run.identities,
        accepted=[*(settings.allow or ()), *(accept_failures or ())],
        settings=settings.settings or {},
        sql_before=settings.sql_before or (),
        sql_after=settings.sql_after or (),
        command=_command(backup, to, table or (), replace=replace),
        trust=_warn if json else _ask,
    )
    if dry_run:
        return restore_plan.of_database(request, as_json=json)
    began = time.monotonic()
    with _restoring(run, chosen, target) as record:
        result = run_restore(request, clock=runtime.now)
        record |= {"rows": result.rows, "replaced": result.replaced}
        if result.without:
            record["without"] = list(result.without)
    seconds = time.monotonic() - began
    document = _restored(chosen.manifest, target, result, seconds, as_json=json)
    needless = [e for e in accept_failures or () if e not in result.without]
    for each in needless:
        say(f"  accepted, but did not fail: {each}", as_json=json)
    return document | {"not_failed": needless}


def _restored(
    manifest: Manifest,
    target: str,
    result: RestoreResult,
    seconds: float,
    *,
    as_json: bool,
) -> Document:
    """Print what was restored, and return it."""
    backup = manifest.backup_id
    say(
        f"restored {backup} into {target}: {count(result.tables, 'table')}, "
        f"{count(result.rows, 'row')}, "
        f"compared with the manifest exactly; {text.duration(seconds)}",
        as_json=as_json,
    )
    beyond = manifest.inventory.beyond_dumps
    for each in beyond:
        say(f"  not in the set: {each.name}: {each.reason}", as_json=as_json)
    if result.without:
        say(f"  restored without: {', '.join(result.without)}", as_json=as_json)
    if result.roles_created:
        say(f"  roles created: {', '.join(result.roles_created)}", as_json=as_json)
    if result.replaced:
        say(
            f"  the database that was there is kept as {result.replaced}",
            as_json=as_json,
        )
    return {
        "status": "ok",
        "backup_id": backup,
        "target": target,
        "replaced": result.replaced,
        "tables": result.tables,
        "rows": result.rows,
        "duration_seconds": round(seconds, 3),
        "roles_created": list(result.roles_created),
        "without": list(result.without),
        "not_in_the_set": beyond,
    }


def _command(backup: str, to: str, tables: Iterable[str], *, replace: bool) -> str:
    """Return the command that was called, for a hint that adds to it."""
    from shlex import join

    from opskit.log import mask

    parts = ["inv", "restore", "--backup", backup, "--to", mask(to)]
    for each in tables:
        parts += ["--table", each]
    return join(parts + ["--replace"] * replace)


def _warn(authors: Sequence[str]) -> None:
    from opskit.restore.rights import warn_of_code

    warn_of_code(authors)


def _ask(authors: Sequence[str]) -> None:
    """Warn, and on a terminal let the user decide."""
    import sys

    from opskit.errors import UsageError

    _warn(authors)
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


@contextmanager
def _restoring(run: Run, chosen: BackupSet, target: str) -> Iterator[dict[str, Any]]:
    """Mark the set as read, put the run on record and lock the target."""
    backup_id = chosen.manifest.backup_id
    details = {
        "source": chosen.manifest.source,
        "backup_id": backup_id,
        "target": target,
    }
    with (
        run.reading(backup_id),
        run.ledgered("restore", details) as record,
        run.lock(_lock_name(target), "restore"),
    ):
        yield record


def _lock_name(target: str) -> str:
    """Return what the lock of a target is called: a path may be a long one."""
    name = f"to-{target}".replace("/", "_")
    if len(name) <= _LOCK_NAME_MAX:
        return name
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()
    return f"to-{digest[:16]}-{name[-_LOCK_NAME_END:]}"


def _require_files(backup: str, to: str, table: list[str] | None) -> None:
    """Refuse what goes with a database alone."""
    from opskit.errors import UsageError
    from opskit.postgres import connect

    if table:
        raise UsageError(
            f"{backup} is a set of files and holds no tables",
            hint="Leave out --table.",
        )
    if connect.is_connection(to):
        # It may hold a password, and a target is printed and put on record.
        raise UsageError(
            f"{backup} is a set of files, and --to is a URL of a database",
            hint="Name a folder with --to; write ./ in front of a name that looks like "
            "a URL.",
        )


def _restore_folder(
    run: Run, chosen: BackupSet, to: str, *, replace: bool, as_json: bool
) -> Document:
    import time
    from pathlib import Path

    from opskit.folders.restore import FolderRestore, restore_set
    from opskit.operations import run as runtime

    target = Path(to).absolute()
    backup_id = chosen.manifest.backup_id
    wanted = FolderRestore(
        chosen=chosen,
        target=target,
        replace=replace,
        lock=_lock_of(run, target),
        identities=run.identities,
    )
    began = time.monotonic()
    with _restoring(run, chosen, str(target)) as record:
        result = restore_set(wanted, clock=runtime.now)
        replaced = None if result.replaced is None else str(result.replaced)
        record |= {"files": result.entries, "replaced": replaced}
    seconds = time.monotonic() - began
    say(
        f"restored {backup_id} into {result.target}: "
        f"{count(result.entries, 'entry', 'files, folders and links')}, "
        f"{text.size(result.size_bytes)}, compared with the manifest exactly; "
        f"{text.duration(seconds)}",
        as_json=as_json,
    )
    for warning in result.warnings:
        say(f"  warning: {warning}", as_json=as_json)
    if replaced:
        say(f"  the folder that was there is kept as {replaced}", as_json=as_json)
    return {
        "status": "ok",
        "backup_id": backup_id,
        "target": str(result.target),
        "replaced": replaced,
        "tables": 0,
        "rows": 0,
        "files": result.entries,
        "size_bytes": result.size_bytes,
        "duration_seconds": round(seconds, 3),
        "warnings": list(result.warnings),
    }


def _lock_of(run: Run, target: Path) -> ServiceLock | None:
    """Return the lock of the service that uses a folder, if the configuration knows."""
    from opskit.folders.lock import ServiceLock

    for each in run.settings.files.values():
        if each.path.resolve() == target.resolve() and each.lock_path is not None:
            return ServiceLock(
                path=each.lock_path, kind=each.lock_kind, wait=each.lock_wait
            )
    return None


def _target(run: Run, manifest: Manifest, to: str) -> tuple[str, str]:
    """Return a URL of the server and the name of the database to restore into."""
    from opskit.errors import UsageError
    from opskit.postgres import connect

    url, name = connect.target(to)
    if url:
        return url, name
    if manifest.source not in run.settings.databases:
        raise UsageError(
            f"the source {manifest.source} is not configured here, "
            "so its server is unknown",
            hint="Give --to a URL: postgresql://user@host/name.",
        )
    return run.database(manifest.source).resolve_restore_url(), name
