"""Revisions: the migrations of a service, in order, and how a tool applies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from opskit.errors import DatabaseError, MigrationFailed, ReleaseRefused
from opskit.postgres import migrations as database
from opskit.postgres.connect import Connection, milliseconds

Phase = Literal["expand", "contract"]
APPLICATION = "opskit-migration"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One migration: its name, when it may run, the digest of its file.

    What an opaque one changes is known only to the program that applies it. One that is
    atomic leaves nothing when it fails: it is a transaction. `fills`
    are the JSON files whose objects become the rows of tables.
    """

    id: str
    title: str
    phase: Phase
    sha256: str
    has_way_back: bool
    is_opaque: bool = False
    is_atomic: bool = True
    fills: Mapping[str, Path] = field(default_factory=dict)

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


def pending(tool: Tool, connection: Connection, *, until: str = "") -> list[Revision]:
    """Return the revisions that the database lacks, up to the one named, in order.

    Raises:
        ReleaseRefused: the database has one that is not known here, or that came
            before one it lacks; or the file of one was changed since.
    """
    known, applied = tool.revisions(), list(tool.applied(connection))
    ids = [each.id for each in known]
    if any(each.is_opaque for each in known):  # it stands for all, whatever was before
        applied = [each for each in applied if each in ids]
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


def require_newest(names: Sequence[str], applied: Sequence[str]) -> None:
    """Refuse to take back migrations on which later ones may rest.

    Alembic would take those back unasked; after files of SQL none could be applied.

    Raises:
        ReleaseRefused: the database has a later one that is not among them.
    """
    there = [place for place, each in enumerate(applied) if each in names]
    others = [e for e in applied[min(there, default=0) :] if e not in names]
    if there and others:
        raise ReleaseRefused(
            f"migration {others[0]} was applied after {names[0]}",
            hint=f"Nothing was taken back. Take {others[0]} back by hand first, or "
            "release a version that works: `inv release --version REF`.",
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
            _drop_left(url, before, bounds, error)
            if error.sqlstate != database.WAITED or attempt == attempts:
                raise
            yield attempt
    if left := sorted(database.invalid_indexes(url) - before):
        raise MigrationFailed(
            f"migration {revision.id} left invalid indexes: {', '.join(left)}",
            hint=f"Drop it: DROP INDEX CONCURRENTLY {left[0]};",
        )


def _drop_left(
    url: str, before: set[str], bounds: Bounds, failure: MigrationFailed
) -> None:
    """Drop the invalid indexes that a failed migration left, if nobody uses them."""
    left = database.invalid_indexes(url) - before
    try:
        database.drop_indexes(url, left, lock_wait=bounds.lock_wait)
    except DatabaseError as error:
        raise failure.replace(
            hint="It left an invalid index that is in use. Drop it before the next "
            f"attempt: DROP INDEX CONCURRENTLY {min(left)};"
        ) from error
