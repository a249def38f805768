"""Restores a set into a real server: beside, compared, then given its name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from shlex import quote

from opskit.catalog.manifest import TableRecord
from opskit.catalog.reader import SetReader
from opskit.checks import Check, count
from opskit.compare.contents import RestoredCopy
from opskit.errors import DatabaseError, IntegrityError, UsageError
from opskit.log import logger
from opskit.postgres import database, roles, schema, scratch
from opskit.postgres.connect import Connection, connect, server_major
from opskit.postgres.parameters import with_database
from opskit.preflight import shortages
from opskit.preflight.concessions import Concessions, Failure
from opskit.preflight.shortages import NEVER_DONE_WITHOUT, Shortage
from opskit.restore.engine import Bound, CopyRequest, Fetched, Terms, restored
from opskit.restore.fill import Filled
from opskit.restore.job import FillJob
from opskit.restore.make import with_shortages
from opskit.restore.surroundings import Place, with_members


def holds_data(connection: Connection, server_url: str, target: str) -> bool:
    if not database.exists(connection, target):
        return False
    with connect(with_database(server_url, target), purpose="restore") as found:
        return not database.is_empty(found)


def not_accepted(
    shortages: Iterable[Shortage], accepted: Collection[str]
) -> list[Shortage]:
    """Return what a role may not do and nobody accepts.

    Who does without an extension does not need the right to create it.
    """
    return [e for e in shortages if e.name.removeprefix("right ") not in accepted]


def _require_able(connection: Connection, request: RestoreRequest) -> None:
    """Refuse before anything is read what the role or the server could not do."""
    needed = shortages.role_shortages(
        connection, request.manifest.inventory, is_whole=not request.tables
    )
    if lacking := not_accepted(needed, request.loading.allow):
        raise DatabaseError(
            "the set cannot be restored here: "
            + "; ".join(each.detail for each in lacking),
            hint=f"{lacking[0].hint} Nothing was read or touched.",
            details={"missing": [each.name for each in lacking]},
        )
    if obstacles := scratch.obstacles(connection, request.target):
        raise DatabaseError(
            f"the database {request.target} cannot be replaced now: it has "
            + ", and ".join(obstacles),
            hint="End it, if need be as a role that may, and run this again; or "
            "restore to another name.",
        )


@contextmanager
def beside(connection: Connection, server_url: str, target: str) -> Iterator[str]:
    """Yield a name for a copy beside the target; on an error the copy is dropped."""
    name = database.derived_name(target, f"_restoring_{secrets.token_hex(4)}")
    try:
        yield name
    except BaseException:
        scratch.drop_copy(connection, server_url, name)
        raise


def sweep(connection: Connection, server_url: str, target: str) -> None:
    """Drop what killed runs left on a server, and open what they had closed."""
    looks_like = re.escape(database.derived_name(target, "_restoring_" + 8 * "x")[:-8])
    scratch.sweep(connection, server_url, looks_like=f"{looks_like}[0-9a-f]{{8}}")


def swap(
    connection: Connection,
    *,
    server_url: str,
    beside: str,
    target: str,
    run_id: str,
    clock: Callable[[], datetime],
) -> str | None:
    """Rename `beside` to `target`; return the name that the old database is kept under.

    Both renames are one transaction; on an error everything is as it was. An old
    database that still holds nothing is dropped.

    Raises:
        DatabaseError: the role may not, or somebody stays in the old database.
    """
    kept = None
    if database.exists(connection, target):
        kept = database.derived_name(target, f"_before_{clock():%Y%m%dt%H%M%Sz}")
    scratch.take_name(connection, copy=beside, target=target, kept=kept, run_id=run_id)
    if kept is None:
        return None
    # Judged now, when nobody knows its name: something may have been written meanwhile.
    with connect(with_database(server_url, kept), purpose="restore") as old:
        empty = database.is_empty(old)
    if not empty:
        return kept
    database.drop(connection, kept)
    return None


_FAILURES_SHOWN = 5
_DONE_WITHOUT = ("extension-version", "setting")
_NEVER_REPLACED = ("postgres", "template0", "template1")


@dataclass(frozen=True, kw_only=True)
class RestoreRequest(CopyRequest):
    """What to restore where. `server_url` leads to any database of the server.

    `command` is how the user called this.
    """

    server_url: str = field(repr=False)
    target: str
    replace: bool = False
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """What was restored, compared, and where the database it replaced is now."""

    target: str
    replaced: str | None
    tables: int
    rows: int
    checks: tuple[Check, ...]
    roles_created: tuple[str, ...]
    without: tuple[str, ...]


def restore(request: RestoreRequest, *, clock: Callable[[], datetime]) -> RestoreResult:
    """Restore a set into a new database under the name asked for.

    It is loaded under another name, compared with the manifest exactly, and only then
    renamed, so nobody ever sees half of it. An existing empty database is replaced by
    it; one that holds anything only with `replace`, and is kept under a name that
    carries the time.

    Raises:
        UsageError: the target holds data and `replace` is not set; nothing was touched.
        IntegrityError: the set is damaged, or the copy does not equal its manifest.
        DatabaseError: the server refuses.
    """
    bound = Bound(request.limits.seconds)
    manifest = request.manifest
    request = replace(request, by_name=manifest.schema_format == schema.FORMAT)
    if not request.by_name:
        # Nobody is kept from the data by that.
        logger().warning(
            "objects are not compared by name and state: another version of opskit "
            "wrote the list",
            tool_version=manifest.tool_version,
        )
    with database.maintenance(request.server_url) as connection:
        require_target(connection, request)
        sweep(connection, request.server_url, request.target)
        _require_able(connection, request)
        with restored(request, _Terms(request, connection), bound) as made:
            _require_equal(made.checks)
            replaced = swap(
                connection,
                server_url=request.server_url,
                beside=made.place.name,
                target=request.target,
                run_id=request.run_id,
                clock=clock,
            )
    return RestoreResult(
        target=request.target,
        replaced=replaced,
        tables=len(made.copy.tables),
        rows=sum(each.rows for each in made.copy.tables),
        checks=tuple(made.checks),
        roles_created=made.roles_created,
        without=tuple(made.concessions.names),
    )


class _Terms(Terms):
    """A restore goes beside the target, and may lack what the user accepts by name."""

    def __init__(self, request: RestoreRequest, connection: Connection) -> None:
        self._request, self._connection = request, connection

    @contextmanager
    def opening(self) -> Iterator[Callable[[Fetched], Place]]:
        """Yield what gives the copy a name, under which an error drops it."""
        request, connection = self._request, self._connection
        url = request.server_url
        with ExitStack() as stack:
            yield lambda _fetched: Place(
                server_url=url,
                connection=connection,
                name=stack.enter_context(beside(connection, url, request.target)),
                run_id=request.run_id,
                creates_roles=True,
            )

    def accept_shortages(self, missing: Sequence[Shortage]) -> None:
        """Go on without what is accepted, an extension's version and a setting.

        These must not keep anybody from the data.
        """
        if refused := refused_shortages(missing, self._request.loading.allow):
            raise DatabaseError(
                "the server lacks what the set needs",
                said="; ".join(each.detail for each in refused),
                hint=f"{refused[0].hint} Nothing was touched. To restore without, add "
                + _flags(each.name for each in refused),
                details={"missing": [each.name for each in refused]},
            )
        for each in missing:
            logger().warning("restoring without", missing=each.name, reason=each.detail)

    def accept_definitions(
        self, job: FillJob, failures: Sequence[Failure]
    ) -> Concessions:
        """Return what the restore does without, with what stands before the rows."""
        allow = self._request.loading.allow
        if refused := [each for each in failures if each.name not in allow]:
            raise DatabaseError(
                "the server refuses what stands before the rows",
                said="; ".join(each.error for each in refused),
                hint="No rows were loaded, and the copy was dropped. Put statements "
                "that have to come before into sql_before. To restore without them, "
                "and all that needs them, add " + _flags(each.name for each in refused),
                details={"failures": [each.as_json() for each in refused]},
            )
        return with_shortages(job, [each.as_shortage() for each in failures])

    def accept_rows(self, copy: RestoredCopy, filled: Filled) -> None:
        """Accept what the user accepts of the entries after the rows."""
        failures, allow = filled.failures, self._request.loading.allow
        for each in failures:
            logger().warning(
                "an entry could not be made", name=each.name, reason=each.error
            )
        if refused := [each for each in failures if each.name not in allow]:
            names = [each.name for each in refused]
            flags = _flags(dict.fromkeys([*allow, *names]))
            # By name alone: the server's words may hold rows, and this goes on record.
            raise IntegrityError(
                "all rows were loaded, but "
                f"{count(len(refused), 'entry', 'entries')} after them could not be "
                f"made: {'; '.join(names[:_FAILURES_SHOWN])}",
                hint="The copy was dropped and nothing was replaced. To keep it "
                f"without them: `{self._request.command} {flags}`",
                details={"failures": [each.as_json() for each in failures]},
            )


def refused_shortages(
    missing: Iterable[Shortage], accepted: Sequence[str]
) -> list[Shortage]:
    """Return what a restore does not do without."""
    return [
        each
        for each in missing
        if each.what not in _DONE_WITHOUT
        and (each.name not in accepted or each.what in NEVER_DONE_WITHOUT)
    ]


def _flags(names: Iterable[str]) -> str:
    return " ".join(f"--accept-failures {quote(name)}" for name in names)


def _require_equal(checks: Sequence[Check]) -> None:
    """Refuse a copy that differs from the record of its set."""
    failed = [check for check in checks if check.failed]
    for check in failed:
        logger().error("the copy differs", **check.as_json())
    if failed:
        # By name alone: the message goes into the ledger, whose copy lies in the open.
        raise IntegrityError(
            f"the restored copy is not what the manifest says: {failed[0].name}"
            + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""),
            hint="The copy was dropped and nothing was replaced; "
            "drill the set to see all.",
            details={"checks": [check.as_json() for check in failed]},
        )


def require_target(connection: Connection, request: RestoreRequest) -> bool:
    """Return whether the target holds anything; refuse what must not be replaced."""
    if request.replace and request.tables:
        raise UsageError(
            "--table and --replace do not go together: replacing a database by one "
            "that holds only some of its tables would lose the others",
            hint="Restore the tables into a new database and copy the rows from there.",
        )
    if request.target in _NEVER_REPLACED:
        raise UsageError(
            f"{request.target} belongs to the server itself and is never replaced",
            hint="Restore to another name.",
        )
    occupied = holds_data(connection, request.server_url, request.target)
    if occupied and not request.replace:
        raise UsageError(
            f"the database {request.target} exists and is not empty",
            hint="Restore to another name, or add --replace: it restores beside, "
            "compares, swaps the names and keeps the old database.",
        )
    return occupied


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """Where a set would be read, what would be made of it, and what is missing.

    `exists` says that there is a database of the target's name, `is_occupied` that it
    holds something and would be kept under another name. For what is `refused` of that
    which is `missing`, and for the `obstacles`, a restore would end at once.
    """

    store: str
    server_major: int
    exists: bool
    is_occupied: bool
    tables: Sequence[TableRecord]
    roles_created: Sequence[str]
    missing: Sequence[Shortage]
    refused: Sequence[Shortage]
    obstacles: Sequence[str]


def plan(request: RestoreRequest) -> RestorePlan:
    """Return what `restore` would do with the same request; nothing is touched.

    Raises:
        UsageError: the target would be refused.
        ConfigurationError: the set is encrypted and there is no identity.
        DatabaseError: the server refuses.
    """
    manifest, store = request.manifest, request.chosen.stores[0]
    SetReader(
        manifest=manifest, store=store, identities=request.identities
    ).require_identities()
    with database.maintenance(request.server_url) as connection:
        is_occupied = require_target(connection, request)
        needed = shortages.role_shortages(
            connection, manifest.inventory, is_whole=not request.tables
        )
        lacking = shortages.shortages(
            connection, manifest.inventory, (), creates_roles=True, is_throwaway=False
        )
        # Only the dump shows what single tables need of it.
        allow = request.loading.allow
        refused = refused_shortages(() if request.tables else lacking, allow)
        wanted = with_members(
            set(manifest.inventory.needed_roles), manifest.inventory.roles
        )
        return RestorePlan(
            store=store.name,
            server_major=server_major(connection),
            exists=database.exists(connection, request.target),
            is_occupied=is_occupied,
            tables=_tables(request),
            roles_created=sorted(wanted - roles.names(connection)),
            missing=[*needed, *lacking],
            refused=[*not_accepted(needed, allow), *refused],
            obstacles=scratch.obstacles(connection, request.target),
        )


def _tables(request: RestoreRequest) -> Sequence[TableRecord]:
    """Return the tables with rows; only the dump shows a partitioned one's parts."""
    wanted = request.tables
    tables = request.manifest.tables
    return [t for t in tables if not wanted or (t.schema_name, t.name) in wanted]
