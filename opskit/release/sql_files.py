"""SQL files: a folder of them, applied in the order of their names, each once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from opskit.errors import DatabaseError, MigrationFailed, ReleaseRefused
from opskit.postgres import migrations as database
from opskit.postgres.connect import Connection
from opskit.release.revisions import APPLICATION, Bounds, Revision
from opskit.release.statements import split

_DIRECTIVE = re.compile(r"^--\s*opskit:\s*(.+?)\s*$", re.MULTILINE)
_NO_TRANSACTION = "no-transaction"
_FILLS = re.compile(r"^fills (\S+) from (.+)$", re.MULTILINE)


class SqlFiles:
    """A folder of SQL files, applied in the order of their names, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def revisions(self) -> Sequence[Revision]:
        """See `Tool`."""
        try:
            paths = sorted(self._folder.glob("*.sql"))
            return [
                self._revision(path)
                for path in paths
                if not path.name.endswith(".down.sql")
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise ReleaseRefused(
                f"the migrations in {self._folder} cannot be read: {error}"
            ) from error

    def _revision(self, path: Path) -> Revision:
        text = path.read_text(encoding="utf-8")
        directives = _DIRECTIVE.findall(text)
        known = {"phase = contract", _NO_TRANSACTION}
        unknown = {e for e in directives if not (e in known or _FILLS.match(e))}
        if unknown:
            raise ReleaseRefused(
                f"{path.name} holds the unknown directive {min(unknown)!r}",
                hint="Known are `phase = contract`, `no-transaction` and `fills TABLE "
                "from FILE`.",
            )
        name, _, title = path.stem.partition("_")
        return Revision(
            id=path.stem,
            title=title.replace("_", " ") or name,
            phase="contract" if "phase = contract" in directives else "expand",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            has_way_back=self._down(path.stem).exists(),
            is_atomic=_NO_TRANSACTION not in directives,
            fills={
                table: self._folder / name
                for table, name in _FILLS.findall("\n".join(directives))
            },
        )

    def _down(self, name: str) -> Path:
        return self._folder / f"{name}.down.sql"

    def applied(self, connection: Connection) -> Sequence[str]:
        """See `Tool`."""
        return list(database.digests(connection))

    def apply(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`; the record is of the same transaction, where there is one."""
        text = (self._folder / f"{revision.id}.sql").read_text(encoding="utf-8")
        self._run(url, revision, text, bounds, digest=revision.sha256)

    def undo(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`."""
        text = self._down(revision.id).read_text(encoding="utf-8")
        self._run(url, revision, text, bounds, digest=None)

    def _run(
        self,
        url: str,
        revision: Revision,
        text: str,
        bounds: Bounds,
        *,
        digest: str | None,
    ) -> None:
        alone = _NO_TRANSACTION in _DIRECTIVE.findall(text)
        try:
            database.run(
                url,
                [*split(text)] if alone else [text],
                application=APPLICATION,
                options=bounds.options,
                record=(revision.id, digest),
                transaction=not alone,
            )
        except DatabaseError as error:
            raise MigrationFailed(
                f"migration {revision.id} failed",
                said=error.said or error.summary,
                hint="The statements before the one that failed stay applied: take "
                "them back, or write the file so that it can run again."
                if alone
                else error.hint,
                # Nothing is tried again from the first statement of several.
                sqlstate="" if alone else error.sqlstate,
            ) from error
