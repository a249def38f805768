"""Migration command: any other tool, judged by the schema that it leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from opskit.config.release import MigrationsSettings
from opskit.errors import ReleaseRefused
from opskit.postgres import migrations as database
from opskit.postgres.connect import Connection
from opskit.release.programs import Program
from opskit.release.revisions import APPLICATION, Bounds, Revision

_NAME = "command-"
_DIGITS = 12


class MigrationCommand:
    """A command that applies all that is pending; one revision, by what it applies.

    The revision is named after the digest of the files in the folder: it is pending
    while the database has no record of it.
    """

    def __init__(self, settings: MigrationsSettings, base: Path) -> None:
        self._settings = settings
        self._folder = base / settings.folder
        self._program = Program(
            name=settings.command[0],
            folder=base,
            url_variable=settings.url_variable,
            hint="Run it by hand, with the address of a test database in "
            f"{settings.url_variable}.",
        )

    def revisions(self) -> Sequence[Revision]:
        """See `Tool`: one revision, which stands for all files as they are now."""
        digest = _digest_of(self._folder)
        return [
            Revision(
                id=_NAME + digest[:_DIGITS],
                title=" ".join(self._settings.command),
                phase="expand",
                sha256=digest,
                has_way_back=bool(self._settings.undo),
                is_opaque=True,
                is_atomic=False,
            )
        ]

    def applied(self, connection: Connection) -> Sequence[str]:
        """See `Tool`: also what other files once were."""
        return [e for e in database.digests(connection) if e.startswith(_NAME)]

    def apply(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`."""
        self._program.move(self._settings.command, url, revision, bounds)
        database.record(url, revision.id, revision.sha256, application=APPLICATION)

    def undo(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`."""
        self._program.move(self._settings.undo, url, revision, bounds)
        database.record(url, revision.id, None, application=APPLICATION)


def _digest_of(folder: Path) -> str:
    """Return the digest of the names and contents of all files in a folder.

    Raises:
        ReleaseRefused: it cannot be read, or is empty.
    """
    made, number = hashlib.sha256(), 0
    try:
        paths = (each for each in folder.rglob("*") if "__pycache__" not in each.parts)
        for path in sorted(each for each in paths if each.is_file()):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            made.update(f"{content}  {path.relative_to(folder)}\n".encode())
            number += 1
    except OSError as error:
        raise ReleaseRefused(
            f"the migrations in {folder} cannot be read: {error.strerror}"
        ) from error
    if not number:
        raise ReleaseRefused(
            f"the folder {folder} holds no migration",
            hint="Name the folder of what the command applies with folder in "
            "[release.migrations].",
        )
    return made.hexdigest()
