"""`backup`: one backup set for each source named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opskit.backup.create import BackupResult
    from opskit.catalog.manifest import Manifest
    from opskit.operations.run import Runtime


@command(
    help={
        "database": "back up this database only",
        "files": "back up this folder of files only",
        "all": "back up every configured source (the same as naming none)",
        "json": "print one JSON document",
    }
)
def backup(
    _context: object,
    database: str = "",
    files: str = "",
    all_: bool = False,
    json: bool = False,
) -> Document:
    """Take a backup of one database or folder, or of every configured one.

    Example: inv backup --database shop
    """
    from opskit.errors import OpskitError, UsageError
    from opskit.operations import run as runtime
    from opskit.operations import sources

    if (database or files) and all_:
        raise UsageError(
            "--all and the name of a source contradict each other",
            hint="Give one of the two.",
        )
    run = runtime.start()
    chosen = sources.named(run, database=database, files=files)
    backups: list[Document] = []
    errors: list[OpskitError] = []
    for name in [chosen] if chosen else sources.every(run):
        try:
            result, seconds = back_up(run, name)
        except OpskitError as error:
            # One source that fails must not keep the others from their backup.
            errors.append(_about(error, name))
            continue
        backups.append(describe(result, seconds))
        for line in summary(backups[-1]):
            say(line, as_json=json)
        errors += [_about(error, name) for error in result.failed.values()]
    if errors:
        raise _combined(errors, backups)
    return {"status": "ok", "backups": backups}


def back_up(run: Runtime, name: str) -> tuple[BackupResult, float]:
    """Back up one source; return the set and the seconds it took."""
    import time

    from opskit.backup.create import create_backup
    from opskit.operations import keys, sources
    from opskit.operations import run as runtime

    keys.require_own_trust(run.settings)
    source = sources.build(run, name)
    began = time.monotonic()
    with run.recorded("backup", {"source": name}) as details, run.lock(name, "backup"):
        result = create_backup(
            source,
            run.stores,
            run_id=run.run_id,
            state_dir=run.state_dir,
            clock=runtime.now,
            protection=run.protection,
            notice=noticed(run, name),
            lock=lambda store: run.store_lock(store, name, "backup"),
        )
        details |= {
            "backup_id": result.manifest.backup_id,
            "stores": list(result.stores),
            "failed_stores": sorted(result.failed),
            "rows": result.manifest.rows,
        }
    return result, time.monotonic() - began


def noticed(run: Runtime, name: str) -> Callable[[Manifest], Sequence[str]]:
    """Return what tells a new set's sudden changes from the newest that there is.

    A store that is away hides what it holds, but not what the others do.
    """
    from opskit.catalog import catalog
    from opskit.catalog.changes import newly_excluded, sudden_changes
    from opskit.errors import StoreError
    from opskit.log import logger
    from opskit.operations import keys

    rules = run.settings.retention
    known: list[Manifest] = []
    for store in run.stores:
        try:
            found = catalog.latest([store], source=name, trust=keys.trust(run.settings))
        except StoreError as error:
            logger().warning(
                "the new set is not compared with those in a store",
                store=store.name,
                reason=error.message,
            )
        else:
            known += [] if found is None else [found]
    older = max(known, key=lambda each: each.started_at, default=None)

    def notice(newer: Manifest) -> Sequence[str]:
        if older is None:
            return ()
        for each in newly_excluded(older, newer):
            logger().warning(each, source=name)
        return sudden_changes(
            older, newer, max_drop=rules.max_drop, ignore=rules.ignore_drop
        )

    return notice


def describe(result: BackupResult, seconds: float) -> Document:
    """Return the fields of the contract for one set."""
    manifest = result.manifest
    return {
        "backup_id": manifest.backup_id,
        "source": manifest.source,
        "size_bytes": manifest.size_bytes,
        "dump_bytes": manifest.dump_bytes,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "files": len(manifest.files),
        "duration_seconds": round(seconds, 3),
        "stores": list(result.stores),
        "encrypted": manifest.encryption is not None,
        "warnings": list(manifest.warnings),
        "sudden_changes": list(manifest.sudden_changes),
    }


def summary(document: Document) -> list[str]:
    """Return what a person wants to read of one set."""
    encrypted = "encrypted" if document["encrypted"] else "not encrypted"
    return [
        f"backed up {document['source']}: {document['backup_id']}",
        f"  {_contents(document)}; "
        f"{text.size(document['dump_bytes'])} {_read(document)}, "
        f"{text.size(document['size_bytes'])} stored in "
        f"{', '.join(document['stores'])}, {encrypted}; "
        f"{text.duration(document['duration_seconds'])}",
        *(f"  warning: {warning}" for warning in document["warnings"]),
        *(f"  SUDDEN CHANGE: {change}" for change in document["sudden_changes"]),
        *_how_to_confirm(document),
    ]


def _contents(document: Document) -> str:
    if document["files"]:
        return count(document["files"], "entry", "files, folders and links")
    return f"{count(document['tables'], 'table')}, {count(document['rows'], 'row')}"


def _read(document: Document) -> str:
    return "read" if document["files"] else "dumped"


def _how_to_confirm(document: Document) -> list[str]:
    if not document["sudden_changes"]:
        return []
    return [
        "  nothing is pruned until somebody has looked: "
        f"`inv prune --confirm {document['backup_id']}`"
    ]


def _about(error: Any, name: str) -> Any:
    error.message = f"{name}: {error.message}"
    return error


def _combined(errors: list[Any], backups: list[Document]) -> Any:
    """Return the first error, carrying what else failed and what was recorded."""
    first = errors[0]
    first.details = first.details | {"backups": backups}
    if len(errors) > 1:
        first.details["errors"] = [
            {"code": each.exit_code, "error": each.message, "hint": each.hint}
            for each in errors
        ]
        first.message = "; ".join(each.message for each in errors)
    return first
