"""`backup`: one backup set for each source named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count, duration, size
from opskit.errors import UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.backup import BackedUp, Backups
    from opskit.operations.outcome import Outcome


@command(
    help={
        "database": "back up this database only",
        "files": "back up this folder only",
        "all": "back up every configured source (the same as naming none)",
    }
)
def backup(
    say: Say,
    database: str = "",
    files: str = "",
    all_: bool = False,
    json: bool = False,
) -> Outcome[Backups]:
    """Take a backup of one database or folder, or of every configured one.

    Example: inv backup --database shop
    """
    from opskit.operations.backup import BackupRequest
    from opskit.operations.backup import backup as back_up
    from opskit.watch.runs import start

    if (database or files) and all_:
        raise UsageError(
            "--all cannot be given with the name of a source",
            hint="Give one of the two.",
        )
    return back_up(
        start(),
        BackupRequest(database=database, files=files),
        on_done=lambda outcome: say.result(outcome, summary),
    )


def summary(made: BackedUp) -> Iterator[str]:
    """Yield what a person wants to read of one set."""
    manifest, counts = made.manifest, made.manifest.counts
    contents = (
        f"{count(counts['tables'], 'table')}, {count(counts['rows'], 'row')}; "
        f"{size(manifest.dump_bytes)} dumped"
    )
    if manifest.kind == "files":
        contents = (
            f"{count(counts['files'], 'entry', 'files, folders and links')}; "
            f"{size(manifest.dump_bytes)} read"
        )
    yield f"backed up {manifest.source}: {manifest.backup_id}"
    yield (
        f"  {contents}, {size(manifest.size_bytes)} stored in "
        f"{', '.join(made.stores)}, "
        f"{'encrypted' if manifest.encryption else 'not encrypted'}; "
        f"{duration(made.seconds)}"
    )
    for each in manifest.warnings:
        yield f"  warning: {each}"
    for each in manifest.sudden_changes:
        yield f"  SUDDEN CHANGE: {each}"
    if manifest.sudden_changes:
        yield (
            "  nothing is pruned until you confirm it: "
            f"`inv prune --confirm {manifest.backup_id}`"
        )
