"""Rehearsal: pending migrations run on the newest drilled set, and what that cost."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from opskit.checks import Check, not_checked
from opskit.compare import contents
from opskit.config.release import AcceptedWarning, BudgetSettings
from opskit.drill.run import DrillRequest, equal_copy
from opskit.errors import MigrationFailed, ReleaseRefused, ServerFault
from opskit.log import logger
from opskit.postgres import database, witness
from opskit.postgres.connect import connect, is_server_fault, query, query_value
from opskit.postgres.migrations import WAITED, drop_indexes, invalid_indexes
from opskit.postgres.parameters import with_database
from opskit.release.changes import changes, schema_of
from opskit.release.classes import kind_of, require_installed, warnings
from opskit.release.filled import fill_checks
from opskit.release.locks import (
    BLOCKS_WRITES,
    HeldLock,
    Statement,
    held_locks,
    rewrites,
    scans,
    statements,
)
from opskit.release.report import Cost, Rehearsal, budget_checks, warning_checks
from opskit.release.revisions import Bounds, Revision, Tool, pending
from opskit.restore.engine import Restored

_WRITER_LOCK_WAIT = timedelta(seconds=1)
_SECOND = "_opskit_second"
# One to be alone with, one beside a writer.
_COPIES = 2
# Tables and partitioned ones: LOCK TABLE takes no other relation with rows.
_LOCKABLE = "rp"


@dataclass(frozen=True, kw_only=True)
class RehearsalRequest:
    """Which set to rehearse on, with which tool, within which budgets.

    Migrations run as the role `user`, if the set has one of that name. `production` are
    the version and settings of the database's own server, as far as they are known.
    """

    drill: DrillRequest
    tool: Tool
    until: str
    user: str
    bounds: Bounds
    budgets: BudgetSettings
    accept: Sequence[AcceptedWarning] = ()
    production: Mapping[str, str] = field(default_factory=dict)


def rehearse(request: RehearsalRequest, *, clock: Callable[[], datetime]) -> Rehearsal:
    """Run the pending migrations on a restored copy, twice, and back and forth again.

    What a migration does wrong is a check that did not pass, not an error.

    Raises:
        ReleaseRefused: there is nothing to rehearse, or on no such server.
        DrillFailed: the set itself does not come back.
        DatabaseError: the throw-away server did not work.
        ExtraMissing: what judges statements is not installed.
    """
    require_installed()
    settings = request.drill.settings
    if settings.server == "existing":
        raise ReleaseRefused(
            "a rehearsal needs a server of its own, and [drill] names an existing one",
            hint='Set server = "auto" or "container" in [drill].',
        )
    own = {**settings.settings, **witness.SETTINGS}
    drill = replace(
        request.drill,
        settings=settings.model_copy(update={"settings": own}),
        copies=_COPIES,
    )
    manifest = drill.chosen.manifest
    made = Rehearsal(
        backup_id=manifest.backup_id,
        started_at=clock(),
        production=dict(request.production),
    )
    with equal_copy(drill) as restored:
        try:
            _Run(request, restored, made).all()
        except ServerFault as error:
            raise _broken_off(error, settings.work_dir) from error
    return made


def _broken_off(error: ServerFault, work_dir: Path | None) -> ServerFault:
    """Return what is said of a rehearsal whose server failed: it is no verdict."""
    folder = work_dir or Path(tempfile.gettempdir())
    free_bytes = shutil.disk_usage(folder).free
    return error.replace(
        summary="the rehearsal broke off, which says nothing about the migrations: "
        f"{error.summary}; {free_bytes // 2**20} MiB are free in {folder}",
        hint="See why the throw-away server failed. If the disk is full, free some "
        "space, or name a folder with more in [drill] work_dir. Then rehearse again.",
    )


class _Run:
    """One rehearsal on its copy."""

    def __init__(
        self, request: RehearsalRequest, restored: Restored, made: Rehearsal
    ) -> None:
        self._request, self._restored, self._made = request, restored, made
        place = restored.place
        self._name, self._beside = place.name, place.url_beside
        self._connection = place.connection
        self._columns: set[str] = set()  # before the first migration
        self._spans: dict[str, tuple[datetime, datetime]] = {}
        roles = {
            row[0] for row in query(place.connection, "SELECT rolname FROM pg_roles")
        }
        self._user = request.user if request.user in roles else ""

    def all(self) -> None:
        """Do everything that a rehearsal consists of, as far as it comes."""
        made, name = self._made, self._name
        with connect(self._restored.copy.url, purpose="rehearsal") as own:
            made.machine = database.speed_settings(own)
            made.database_bytes = database.size_bytes(own, name)
            self._columns = witness.columns(own)
            made.revisions = pending(self._request.tool, own, until=self._request.until)
        if not made.revisions:
            raise ReleaseRefused(
                f"{made.backup_id} lacks no migration: there is nothing to rehearse",
                hint="Name a set from before the newest migration with --backup.",
            )
        second = self._second()
        applied = self._first()
        self._untouched()
        if applied:
            self._back_and_forth()
            self._with_writer(second)

    def _url(self, name: str) -> str:
        return with_database(self._beside, name, user=self._user)

    def _second(self) -> str:
        """Make a second copy for the run with a writer."""
        name = database.derived_name(self._name, _SECOND)
        self._connection.execute(
            f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(self._name)}".encode()
        )
        return name

    def _first(self) -> bool:
        """Apply all revisions, alone; return whether that went well."""
        made = self._made
        with self._costed():
            applied = all(self._apply(each) for each in made.revisions)
        assert made.cost is not None
        made.checks += budget_checks(self._request.budgets, made.cost)
        return applied

    def _apply(self, revision: Revision) -> bool:
        """Apply one revision and note what it did; return whether that went well."""
        logger().info("rehearsal", revision=revision.id)
        made, url, failure = self._made, self._restored.copy.url, ""
        before, begin = schema_of(url), witness.position(self._connection)
        began, began_at = time.monotonic(), self._now()
        try:
            self._request.tool.apply(
                self._url(self._name), revision, self._request.bounds
            )
        except MigrationFailed as error:
            self._require_no_fault(self._name, begin)
            failure = error.message
        made.timings[revision.id] = round(time.monotonic() - began, 3)
        self._spans[revision.id] = began_at, self._now()
        made.changes[revision.id] = changes(before, schema_of(url))
        made.checks.append(
            Check(
                name=f"migration {revision.id}",
                passed=not failure,
                expected="applied",
                observed="failed" if failure else "applied",
                detail=failure,
            )
        )
        if not failure:
            made.checks += fill_checks(url, revision)
        return not failure

    def _require_no_fault(self, name: str, begin: int) -> bool:
        """Raise ServerFault if a migration failed for the server's own reasons.

        Whatever the tool says of it, the server's log has the SQLSTATE. Return whether
        a statement waited in vain for a lock.
        """
        lines = witness.read_log(self._connection, name, begin)
        for line in lines:
            if is_server_fault(line.sqlstate, ""):
                raise ServerFault(
                    "the throw-away server failed",
                    said=line.message,
                    sqlstate=line.sqlstate,
                )
        return any(line.sqlstate == WAITED for line in lines)

    @contextmanager
    def _costed(self) -> Iterator[None]:
        url = self._restored.copy.url
        with connect(url, purpose="rehearsal") as own:
            own.execute("ANALYZE")
            before = witness.relations(own)
            figures = self._figures()
            size_bytes = witness.disk_bytes(own, self._name)
        begin = witness.position(self._connection)
        with (
            witness.witnessed(url),
            witness.sampled(self._beside, self._name) as seen,
        ):
            yield
        witness.wait_for_sessions(self._connection, self._name)
        ran = statements(witness.read_log(self._connection, self._name, begin))
        with connect(url, purpose="rehearsal") as own:
            after = witness.relations(own)
            last_bytes = witness.disk_bytes(own, self._name)
        wal, temporary = (
            now - then for now, then in zip(self._figures(), figures, strict=True)
        )
        self._describe(ran, before)
        held = held_locks(ran, before, seen)
        changed = rewrites(ran, before, after)
        self._made.cost = Cost(
            locks=tuple(held),
            rewrites=tuple(changed),
            scans=scans(before, after),
            seconds=sum(self._made.timings.values()),
            wal_bytes=wal,
            temporary_bytes=temporary,
            growth_bytes=max(
                0, last_bytes - size_bytes, seen.size_bytes_max - size_bytes
            ),
            invalid_indexes=tuple(sorted(invalid_indexes(url))),
            touched=frozenset(_touched(held, before, after)),
            tables=frozenset(e.name for e in before.values() if e.kind in _LOCKABLE),
        )

    def _describe(
        self, ran: Sequence[Statement], before: Mapping[int, witness.Relation]
    ) -> None:
        """Tell what the statements of each revision do, by when they ran."""
        made = self._made
        for revision in made.revisions:
            began_at, ended_at = self._spans.get(revision.id, (None, None))
            if began_at is None or ended_at is None:
                continue
            own = [e for e in ran if began_at <= e.began_at <= ended_at]
            if not own:
                made.checks.append(_nothing_reached(revision))
            made.kinds[revision.id] = kind_of(own)
            made.warnings += warnings(revision.id, own, before)
        made.checks += warning_checks(
            made.warnings, made.revisions, self._request.accept
        )

    def _now(self) -> datetime:
        """Return the time by the server's clock, cut off as its log does."""
        now = query_value(self._connection, "SELECT clock_timestamp()")
        assert isinstance(now, datetime)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def _figures(self) -> tuple[int, int]:
        ((wal, temporary),) = query(
            self._connection,
            """
            SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8, temp_bytes
            FROM pg_stat_database WHERE datname = %s""",
            self._name,
        )
        return wal, temporary

    def _untouched(self) -> None:
        """Compare what no statement touched with the set, exactly."""
        cost, copy = self._made.cost, self._restored.copy
        assert cost is not None
        names = {
            f"{_plain(each.schema_name)}.{_plain(each.name)}": each
            for each in copy.tables
        }
        rest = tuple(each for name, each in names.items() if name not in cost.touched)
        if not rest:
            self._made.checks.append(
                not_checked("untouched tables", "the migrations touch every table")
            )
            return
        compared = contents.compare_contents(replace(copy, tables=rest, sequences=()))
        bad = [each for each in compared if not each.passed]
        self._made.checks.append(
            Check(
                name="untouched tables",
                passed=not bad,
                expected=f"{len(rest)} tables as in the set",
                observed=f"{len(rest) - len(bad)} tables",
                detail="; ".join(f"{e.name}: {e.detail}" for e in bad),
            )
        )

    def _back_and_forth(self) -> None:
        """Take the migrations back and apply them again, where all have a way back."""
        name, made = "down and up again", self._made
        if missing := [each.id for each in made.revisions if not each.has_way_back]:
            made.checks.append(not_checked(name, f"{missing[0]} has no way back"))
            return
        url, tool, bounds = (
            self._url(self._name),
            self._request.tool,
            self._request.bounds,
        )
        begin = witness.position(self._connection)
        try:
            for revision in reversed(made.revisions):
                tool.undo(url, revision, bounds)
            with connect(url, purpose="rehearsal") as own:
                differing = sorted(witness.columns(own) ^ self._columns)
            if differing:
                raise MigrationFailed(
                    f"the way back does not lead back: {', '.join(differing)}"
                )
            for revision in made.revisions:
                tool.apply(url, revision, bounds)
        except MigrationFailed as error:
            self._require_no_fault(self._name, begin)
            made.checks.append(
                Check(name=name, passed=False, observed="failed", detail=error.message)
            )
            return
        made.checks.append(
            Check(name=name, passed=True, expected="applied", observed="applied")
        )

    def _with_writer(self, name: str) -> None:
        """Apply all while an idle session holds what a writer holds on the tables.

        A revision that waited in vain is applied without it, so that the next one has
        its turn.
        """
        cost, made = self._made.cost, self._made
        assert cost is not None
        blocked = {e.table for e in cost.locks if e.mode in BLOCKS_WRITES}
        begin = witness.position(self._connection)
        url = with_database(self._beside, name)
        invalid = invalid_indexes(url)
        with connect(url, purpose="rehearsal", autocommit=False) as writer:
            for revision in made.revisions:
                for table in sorted(blocked & cost.tables):
                    if query_value(writer, "SELECT to_regclass(%s)", table):
                        writer.execute(
                            f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode()
                        )
                failure, waited = self._failure_beside(name, revision)
                if waited:
                    # Dropping an index that is left waits for whoever holds its table.
                    writer.rollback()
                    own = self._url(name)
                    left = invalid_indexes(own) - invalid
                    drop_indexes(own, left, lock_wait=self._request.bounds.lock_wait)
                    failure, _ = self._failure_beside(name, revision)
                if failure:
                    made.checks.append(_failed_beside(revision, failure, waited=waited))
                    break
        ran = statements(witness.read_log(self._connection, name, begin))
        made.waits = [each.text for each in ran if each.waited_in_vain]

    def _failure_beside(self, name: str, revision: Revision) -> tuple[str, bool]:
        """Apply a revision to the second copy.

        Return why it failed, if it did, and whether it waited in vain for a lock.
        """
        bounds = replace(self._request.bounds, lock_wait=_WRITER_LOCK_WAIT)
        begin = witness.position(self._connection)
        try:
            self._request.tool.apply(self._url(name), revision, bounds)
        except MigrationFailed as error:
            return error.message, self._require_no_fault(name, begin)
        return "", False


def _nothing_reached(revision: Revision) -> Check:
    return Check(
        name=f"statements of {revision.id}",
        passed=False,
        expected="some",
        observed="none",
        detail="nothing was sent to the copy: see whether the tool takes its address "
        "from the environment, and whether that was another database",
    )


def _failed_beside(revision: Revision, failure: str, *, waited: bool) -> Check:
    """Return the check of a revision that failed on the second copy.

    What waited in vain may have left something that is in its own way.
    """
    return Check(
        name=f"migration {revision.id} beside a writer",
        passed=None if waited else False,
        expected="applied",
        observed="failed",
        detail=f"it waited for a lock, then failed: {failure}" if waited else failure,
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(name: str) -> str:
    from pglast.stream import maybe_double_quote_name

    return str(maybe_double_quote_name(name))


def _touched(
    held: Sequence[HeldLock],
    before: dict[int, witness.Relation],
    after: dict[int, witness.Relation],
) -> Iterator[str]:
    """Yield the tables that a statement changed or may have changed."""
    yield from (each.table for each in held if each.mode in BLOCKS_WRITES)
    for oid, relation in before.items():
        now = after.get(oid)
        if now is None or (now.written, now.filenode) != (
            relation.written,
            relation.filenode,
        ):
            yield relation.table
