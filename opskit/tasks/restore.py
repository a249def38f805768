"""`restore`: bring a backup set back into a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from opskit.catalog.manifest import Manifest
    from opskit.tasks.runtime import Runtime


@command(
    help={
        "backup": "the set to restore",
        "to": "name of a database on the source's server, or a URL",
        "table": "restore only SCHEMA.TABLE (may be given several times)",
        "replace": "swap an existing database for the restored one; "
        "the old one is kept",
        "json": "print one JSON document",
    },
    iterable=["table"],
)
def restore(
    _context: object,
    backup: str = "",
    to: str = "",
    table: list[str] | None = None,
    replace: bool = False,
    json: bool = False,
) -> Document:
    """Restore a set into a database: beside, compared, then given its name.

    Example: inv restore --backup shop-20260101T030000Z-a1b2c3 --to shop_restored
    """
    import time

    from opskit.errors import UsageError
    from opskit.restore.run import RestoreRequest
    from opskit.restore.run import restore as run_restore
    from opskit.restore.select import parse_table
    from opskit.tasks import runtime

    if not backup or not to:
        raise UsageError(
            "--backup and --to are both needed",
            hint="`inv backups` lists the sets; "
            "--to names the database to restore into.",
        )
    run = runtime.start()
    chosen = run.catalog().find(backup)
    manifest = chosen.manifest
    url, target = _target(run, manifest, to)
    request = RestoreRequest(
        chosen=chosen,
        server_url=url,
        target=target,
        tables=tuple(parse_table(each) for each in table or ()),
        replace=replace,
        installations=run.installations,
        jobs=run.jobs,
        timeout_seconds=run.settings.drill.timeout.total_seconds(),
        work_dir=run.settings.drill.work_dir,
        identities=run.identities,
    )
    began = time.monotonic()
    details = {"source": manifest.source, "backup_id": backup, "target": target}
    with (
        run.reading(manifest.backup_id),
        run.recorded("restore", details) as record,
        run.lock(f"to-{target}", "restore"),
    ):
        result = run_restore(request, clock=runtime.now)
        record |= {"rows": result.rows, "replaced": result.replaced}
    seconds = time.monotonic() - began
    say(
        f"restored {backup} into {target}: {result.tables} tables, {result.rows} rows, "
        f"compared with the manifest exactly; {text.duration(seconds)}",
        as_json=json,
    )
    if result.roles_created:
        say(f"  roles created: {', '.join(result.roles_created)}", as_json=json)
    if result.replaced:
        say(f"  the database that was there is kept as {result.replaced}", as_json=json)
    return {
        "status": "ok",
        "backup_id": backup,
        "target": target,
        "replaced": result.replaced,
        "tables": result.tables,
        "rows": result.rows,
        "duration_seconds": round(seconds, 3),
        "roles_created": list(result.roles_created),
    }


def _target(run: Runtime, manifest: Manifest, to: str) -> tuple[str, str]:
    """Return a URL of the server and the name of the database to restore into."""
    from opskit.errors import UsageError
    from opskit.postgres.conninfo import database_name

    if to.startswith(("postgresql://", "postgres://")):
        return to, database_name(to)
    if manifest.source not in run.settings.databases:
        raise UsageError(
            f"the source {manifest.source} is not configured here, "
            "so its server is unknown",
            hint="Give --to a URL: postgresql://user@host/name.",
        )
    return run.database(manifest.source).resolve_url(), to
