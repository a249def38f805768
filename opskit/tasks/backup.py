"""`backup`: one backup set for each source named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from opskit.backup.create import BackupResult
    from opskit.tasks.runtime import Runtime


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
    from opskit.tasks import runtime, sources

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
    from opskit.tasks import runtime, sources

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
        )
        details |= {
            "backup_id": result.manifest.backup_id,
            "stores": list(result.stores),
            "failed_stores": sorted(result.failed),
            "rows": result.manifest.rows,
        }
    return result, time.monotonic() - began


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
        "duration_seconds": round(seconds, 3),
        "stores": list(result.stores),
        "encrypted": manifest.encryption is not None,
        "warnings": list(manifest.warnings),
    }


def summary(document: Document) -> list[str]:
    """Return what a person wants to read of one set."""
    encrypted = "encrypted" if document["encrypted"] else "not encrypted"
    return [
        f"backed up {document['source']}: {document['backup_id']}",
        f"  {document['tables']} tables, {document['rows']} rows; "
        f"{text.size(document['dump_bytes'])} dumped, "
        f"{text.size(document['size_bytes'])} stored in "
        f"{', '.join(document['stores'])}, {encrypted}; "
        f"{text.duration(document['duration_seconds'])}",
        *(f"  warning: {warning}" for warning in document["warnings"]),
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
