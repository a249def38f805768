"""`restore --dry-run`: what would be restored, to where, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, say

if TYPE_CHECKING:
    from opskit.catalog.sets import BackupSet
    from opskit.restore.run import RestoreRequest


def of_database(request: RestoreRequest, *, as_json: bool) -> Document:
    """Print what a restore of a database would do, and return it.

    Raises:
        DatabaseError: the server lacks what the set needs.
    """
    from opskit.errors import DatabaseError
    from opskit.restore.plan import plan

    found = plan(request)
    document = _document(
        request.chosen, request.target, exists=found.exists, occupied=found.is_occupied
    ) | {
        "server_major": found.server_major,
        "tables": len(found.tables),
        "rows": sum(each.rows for each in found.tables),
        "roles_created": list(found.roles_created),
        "missing": [
            {"name": each.name, "detail": each.detail, "hint": each.hint}
            for each in found.missing
        ],
        "obstacles": list(found.obstacles),
    }
    lines = [
        *_lines(document),
        f"  {count(document['tables'], 'table')}, "
        f"{count(document['rows'], 'row')}, on PostgreSQL {found.server_major}",
    ]
    if found.roles_created:
        lines.append(f"  roles to be created: {', '.join(found.roles_created)}")
    lines += [f"  missing: {each.name}: {each.detail}" for each in found.missing]
    for line in [*lines, "nothing was changed"]:
        say(line, as_json=as_json)
    reasons = [each.detail for each in found.refused] + [
        f"{request.target} has {each}" for each in found.obstacles
    ]
    if reasons:
        raise DatabaseError(
            f"the set cannot be restored here now: {'; '.join(reasons)}",
            hint=found.refused[0].hint
            if found.refused
            else "End it, or restore to another name.",
            details=document,
        )
    return document


def of_folder(chosen: BackupSet, to: str, *, replace: bool, as_json: bool) -> Document:
    """Print what a restore of a folder would do, and return it.

    Raises:
        UsageError: the target would be refused.
    """
    from opskit.folders.restore import require_target

    target = Path(to).resolve()
    occupied = require_target(target, replace=replace)
    document = _document(
        chosen, str(target), exists=target.exists(), occupied=occupied
    ) | {"tables": 0, "rows": 0, "files": len(chosen.manifest.files), "missing": []}
    number = count(
        document["files"], "file, folder or link", "files, folders and links"
    )
    for line in [*_lines(document), f"  {number}", "nothing was changed"]:
        say(line, as_json=as_json)
    return document


def _document(
    chosen: BackupSet, target: str, *, exists: bool, occupied: bool
) -> Document:
    manifest = chosen.manifest
    return {
        "dry_run": True,
        "backup_id": manifest.backup_id,
        "source": manifest.source,
        "snapshot_at": manifest.snapshot_at.isoformat(),
        "size_bytes": manifest.size_bytes,
        "store": chosen.stores[0].name,
        "target": target,
        "target_exists": exists,
        "replaces": occupied,
    }


def _lines(document: Document) -> list[str]:
    if document["replaces"]:
        then = "would replace what is there, and keep it under another name"
    elif document["target_exists"]:
        then = "exists and is empty; would be replaced"
    else:
        then = "would be created"
    return [
        f"would restore {document['backup_id']} as of {document['snapshot_at']}",
        f"  from store {document['store']}, {text.size(document['size_bytes'])}",
        f"  to {document['target']}: {then}",
    ]
