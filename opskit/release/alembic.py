"""Alembic: its revisions, which its own command line applies one at a time."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from opskit.config.release import MigrationsSettings
from opskit.errors import MigrationFailed, ReleaseRefused
from opskit.postgres import migrations as database
from opskit.postgres import parameters
from opskit.postgres.connect import Connection, connect
from opskit.release.programs import Program
from opskit.release.revisions import APPLICATION, Bounds, Revision

# Runs in the interpreter of the service, which has Alembic, and prints what is known
# of its revisions.
_ALEMBIC_REVISIONS = """
import json, sys
from alembic.config import Config
from alembic.script import ScriptDirectory
scripts = ScriptDirectory.from_config(Config(sys.argv[1]))
print(json.dumps({
    "heads": scripts.get_heads(),
    "revisions": [
        {"id": each.revision, "title": each.doc or "", "path": each.path,
         "phase": getattr(each.module, "phase", "expand"),
         "fills": dict(getattr(each.module, "fills", {})),
         "down": getattr(each.module, "downgrade", None) is not None}
        for each in scripts.walk_revisions()
    ],
}))
"""


class Alembic:
    """The revisions of Alembic, which its own command line applies one at a time."""

    def __init__(self, settings: MigrationsSettings, base: Path) -> None:
        self._python = str(settings.python or sys.executable)
        self._config = base / settings.config
        self._variable = settings.url_variable
        self._program = Program(
            name="Alembic",
            folder=self._config.parent,
            url_variable=self._variable,
            hint=f"Try it by hand: alembic -c {self._config} heads. The interpreter of "
            "the service is named with python in [release.migrations].",
        )
        self._is_trusted = False

    def revisions(self) -> Sequence[Revision]:
        """See `Tool`."""
        return self._revisions

    @cached_property
    def _revisions(self) -> Sequence[Revision]:
        """All revisions, as Alembic reads them: once, for that starts a process."""
        said = self._program.call(
            [self._python, "-c", _ALEMBIC_REVISIONS, str(self._config)],
            environment=os.environ,
            seconds=60,
        )
        document = json.loads(said.splitlines()[-1])
        if len(document["heads"]) > 1:
            raise ReleaseRefused(
                f"the migrations have several heads: {', '.join(document['heads'])}",
                hint="Merge them: alembic merge heads.",
            )
        return [
            _alembic_revision(each, self._config.parent)
            for each in reversed(document["revisions"])
        ]

    def applied(self, connection: Connection) -> Sequence[str]:
        """See `Tool`: all revisions up to the one that Alembic's table names."""
        current = database.alembic_versions(connection)
        ids = [each.id for each in self.revisions()]
        places = [ids.index(each) for each in current if each in ids]
        unknown = [each for each in current if each not in ids]
        return [*ids[: max(places, default=-1) + 1], *unknown]

    def apply(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`."""
        self._move(url, ["upgrade", revision.id], revision, bounds)
        self._require_there(url, revision, is_applied=True)
        database.record(url, revision.id, revision.sha256, application=APPLICATION)

    def undo(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """See `Tool`."""
        self._move(url, ["downgrade", f"{revision.id}-1"], revision, bounds)
        self._require_there(url, revision, is_applied=False)
        database.record(url, revision.id, None, application=APPLICATION)

    def _require_own_address(self) -> None:
        """Refuse an env.py that goes elsewhere than it is told: to production, say."""
        if self._is_trusted:
            return
        nowhere = "postgresql://nobody@127.0.0.1:1/opskit_nowhere"
        try:
            self._program.call(
                [self._python, "-m", "alembic", "-c", str(self._config), "current"],
                environment={
                    **parameters.client_environment(nowhere),
                    self._variable: nowhere,
                    "PGCONNECT_TIMEOUT": "5",
                },
                seconds=60,
            )
        except ReleaseRefused:
            self._is_trusted = True
            return
        raise ReleaseRefused(
            f"Alembic's env.py does not take its address from {self._variable}",
            hint="Have env.py read that variable, or name the one that it reads with "
            "url_variable in [release.migrations]. Nothing was changed.",
        )

    def _require_there(self, url: str, revision: Revision, *, is_applied: bool) -> None:
        """Refuse to believe Alembic what the database at the address does not say."""
        with connect(url, purpose="migrate") as connection:
            has = revision.id in database.alembic_versions(connection)
        if has != is_applied:
            raise MigrationFailed(
                f"Alembic ended well, and the database {'has' if has else 'lacks'} "
                f"migration {revision.id}",
                hint=f"See whether env.py takes its address from {self._variable} "
                "alone, and commits: another database may have been changed.",
            )

    def _move(
        self, url: str, command: Sequence[str], revision: Revision, bounds: Bounds
    ) -> None:
        self._require_own_address()
        arguments = ["-m", "alembic", "-c", str(self._config), *command]
        self._program.move([self._python, *arguments], url, revision, bounds)


def _alembic_revision(described: Mapping[str, Any], folder: Path) -> Revision:
    phase = described["phase"]
    if phase not in ("expand", "contract"):
        raise ReleaseRefused(
            f"migration {described['id']} has the phase {phase!r}",
            hint='Its phase is "expand" or "contract".',
        )
    content = Path(described["path"]).read_bytes()
    return Revision(
        id=described["id"],
        title=described["title"],
        phase=phase,
        sha256=hashlib.sha256(content).hexdigest(),
        has_way_back=described["down"],
        is_atomic=b"autocommit_block" not in content,
        fills={table: folder / name for table, name in described["fills"].items()},
    )
