"""Revisions: the migrations of a service, in order, and how a tool applies them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from opskit.config.release import MigrationsSettings
from opskit.errors import (
    ConfigurationError,
    DatabaseError,
    MigrationFailed,
    ReleaseRefused,
)
from opskit.log import mask
from opskit.postgres import migrations as database
from opskit.postgres import parameters
from opskit.postgres.connect import Connection, connect, milliseconds
from opskit.release.statements import split

Phase = Literal["expand", "contract"]
APPLICATION = "opskit-migration"
# Beyond the time that the server gives statements: imports, several statements.
_TOOL_SECONDS_MORE = 60
_WORDS_SHOWN = 600
_DIRECTIVE = re.compile(r"^--\s*opskit:\s*(.+?)\s*$", re.MULTILINE)
_NO_TRANSACTION = "no-transaction"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One migration: its name, when it may run, the digest of its file."""

    id: str
    title: str
    phase: Phase
    sha256: str
    has_way_back: bool

    def as_json(self) -> dict[str, Any]:
        """Return what people are shown of it."""
        return {"id": self.id, "title": self.title, "phase": self.phase}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How long a statement of a migration may wait for a lock, and run."""

    lock_wait: timedelta
    statement: timedelta

    @property
    def options(self) -> str:
        """The options of a session, as libpq takes them."""
        return (
            f"-c lock_timeout={milliseconds(self.lock_wait)} "
            f"-c statement_timeout={milliseconds(self.statement)}"
        )


class Tool(Protocol):
    """Knows the revisions of a service, and moves a database from one to the next."""

    def revisions(self) -> Sequence[Revision]:
        """Return all revisions, the first one first.

        Raises:
            ReleaseRefused: their order is ambiguous, or the tool does not work.
        """
        ...

    def applied(self, connection: Connection) -> Sequence[str]:
        """Return the names of the revisions that the database has."""
        ...

    def apply(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """Apply the next revision.

        Raises:
            MigrationFailed: it failed; what of it can be taken back was.
        """
        ...

    def undo(self, url: str, revision: Revision, bounds: Bounds) -> None:
        """Take back the newest revision; raises like `apply`."""
        ...


def tool_of(settings: MigrationsSettings, base: Path) -> Tool:
    """Return the tool that the settings name; their paths are relative to a folder.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.tool == "alembic":
        return Alembic(settings, base)
    if settings.tool == "sql":
        return SqlFiles(base / settings.folder)
    raise ConfigurationError(
        "no migrations are configured",
        hint='Add [release] with migrations = { tool = "alembic", config = '
        '"alembic.ini", database = "shop" }.',
    )


def pending(tool: Tool, connection: Connection, *, until: str = "") -> list[Revision]:
    """Return the revisions that the database lacks, up to the one named, in order.

    Raises:
        ReleaseRefused: the database has one that is not known here, or that came
            before one it lacks; or the file of one was changed since.
    """
    known, applied = tool.revisions(), list(tool.applied(connection))
    ids = [each.id for each in known]
    if unknown := [each for each in applied if each not in ids]:
        raise ReleaseRefused(
            f"the database has the migration {unknown[-1]}, which is not known here",
            hint="It comes from another version of the service: release that one, or "
            "a newer one.",
        )
    digests = database.digests(connection)
    for each in known:
        if each.id in applied and digests.get(each.id, each.sha256) != each.sha256:
            raise ReleaseRefused(
                f"the file of migration {each.id} was changed after it was applied",
                hint="Put the file back as it was, and write the change into a "
                "migration of its own.",
            )
    lacking = [each for each in known if each.id not in applied]
    if applied and lacking and ids.index(lacking[0].id) < len(applied):
        raise ReleaseRefused(
            f"migration {lacking[0].id} comes before others that were applied",
            hint="Give it a place behind them.",
        )
    if not until:
        return lacking
    chosen = [n for n, each in enumerate(known) if each.id.startswith(until)]
    if len(chosen) != 1:
        raise ReleaseRefused(
            f"{'no' if not chosen else 'more than one'} migration is called {until}",
            hint=f"The newest is {ids[-1]}." if ids else "There are none.",
        )
    wanted = set(ids[: chosen[0] + 1])
    return [each for each in lacking if each.id in wanted]


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
        unknown = set(directives) - {"phase = contract", _NO_TRANSACTION}
        if unknown:
            raise ReleaseRefused(
                f"{path.name} holds the unknown directive {min(unknown)!r}",
                hint="Known are `-- opskit: phase = contract` and `-- opskit: "
                "no-transaction`.",
            )
        name, _, title = path.stem.partition("_")
        return Revision(
            id=path.stem,
            title=title.replace("_", " ") or name,
            phase="contract" if "phase = contract" in directives else "expand",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            has_way_back=self._down(path.stem).exists(),
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
        self._is_trusted = False

    def revisions(self) -> Sequence[Revision]:
        """See `Tool`."""
        said = self._call(
            ["-c", _ALEMBIC_REVISIONS, str(self._config)],
            environment=os.environ,
            seconds=60,
        )
        document = json.loads(said.splitlines()[-1])
        if len(document["heads"]) > 1:
            raise ReleaseRefused(
                f"the migrations have several heads: {', '.join(document['heads'])}",
                hint="Merge them: alembic merge heads.",
            )
        return [_alembic_revision(each) for each in reversed(document["revisions"])]

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
            self._call(
                ["-m", "alembic", "-c", str(self._config), "current"],
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
        environment = {
            **parameters.client_environment(url),
            self._variable: parameters.for_tools(url),
            "PGOPTIONS": f"{parameters.session_options(url)} {bounds.options}".strip(),
            "PGAPPNAME": APPLICATION,
        }
        seconds = bounds.statement.total_seconds() + _TOOL_SECONDS_MORE
        try:
            self._call(arguments, environment=environment, seconds=seconds)
        except ReleaseRefused as error:
            raise MigrationFailed(
                f"migration {revision.id} failed",
                said=error.said,
                hint="What ran in a transaction was rolled back.",
                # Whatever driver it was: the server's words come through.
                sqlstate=database.WAITED if "lock timeout" in error.said else "",
            ) from error

    def _call(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        seconds: float,
    ) -> str:
        try:
            ended = subprocess.run(
                [self._python, *arguments],
                cwd=self._config.parent,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReleaseRefused(
                "Alembic did not end", said=f"after {seconds:g} seconds"
            ) from error
        except OSError as error:
            raise ReleaseRefused(
                f"{self._python} cannot be run: {error.strerror}",
                hint="Name the interpreter of the service with python in "
                "[release.migrations].",
            ) from error
        if ended.returncode:
            raise ReleaseRefused(
                f"Alembic ended with {ended.returncode}",
                said=mask(ended.stderr.strip()[-_WORDS_SHOWN:]),
                hint=f"Try it by hand: alembic -c {self._config} heads.",
            )
        return ended.stdout


def _alembic_revision(described: Mapping[str, Any]) -> Revision:
    phase = described["phase"]
    if phase not in ("expand", "contract"):
        raise ReleaseRefused(
            f"migration {described['id']} has the phase {phase!r}",
            hint='Its phase is "expand" or "contract".',
        )
    return Revision(
        id=described["id"],
        title=described["title"],
        phase=phase,
        sha256=hashlib.sha256(Path(described["path"]).read_bytes()).hexdigest(),
        has_way_back=described["down"],
    )


def with_patience(
    move: Callable[[str, Revision, Bounds], None],
    url: str,
    revision: Revision,
    bounds: Bounds,
    *,
    attempts: int,
) -> Iterator[int]:
    """Apply a revision or take it back; yield each attempt that waited in vain.

    Invalid indexes that it left behind are dropped: IF NOT EXISTS takes them for whole.

    Raises:
        MigrationFailed: it failed for another reason, or waited in vain each time;
            or it left an index invalid.
    """
    before = database.invalid_indexes(url)
    for attempt in range(1, attempts + 1):
        try:
            move(url, revision, bounds)
            break
        except MigrationFailed as error:
            database.drop_indexes(url, database.invalid_indexes(url) - before)
            if error.sqlstate != database.WAITED or attempt == attempts:
                raise
            yield attempt
    if left := sorted(database.invalid_indexes(url) - before):
        raise MigrationFailed(
            f"migration {revision.id} left invalid indexes: {', '.join(left)}",
            hint=f"Drop it: DROP INDEX CONCURRENTLY {left[0]};",
        )
