"""Runs a drill: an equal copy of a set in a throw-away server, then mutants in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from opskit.catalog.manifest import DatabaseManifest
from opskit.checks import Check, compare, count, not_checked
from opskit.compare import definitions
from opskit.compare.contents import RestoredCopy
from opskit.compare.definitions import CopyToDescribe, describe
from opskit.config import DrillSettings, Query
from opskit.drill.report import DrillEvidence, DrillRecord
from opskit.drill.servers import (
    DrillServer,
    lacking,
    opening_server,
    place_beside,
    require_allowed,
)
from opskit.errors import (
    DatabaseError,
    DrillFailed,
    IntegrityError,
    OpskitError,
    ServerFault,
)
from opskit.mutants.planting import plant
from opskit.postgres import database, roles, scratch
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import (
    Connection,
    connect,
    limit_statements,
    translated,
    user_query,
)
from opskit.postgres.parameters import with_database
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions, Failure
from opskit.preflight.shortages import Shortage
from opskit.progress import bar
from opskit.restore import load
from opskit.restore.engine import (
    Bound,
    CopyRequest,
    Fetched,
    NoProgress,
    Restored,
    Terms,
    restored,
)
from opskit.restore.fill import Filled
from opskit.restore.job import FillJob
from opskit.restore.make import statements_ahead, with_shortages
from opskit.restore.surroundings import Place


def compare_definitions(
    restored: Restored, installations: Sequence[Installation]
) -> list[Check]:
    """Compare the definitions, with those of a database made of the archive's own.

    The programs are those that the set came from, as far as the server takes them.
    """
    place, copy, fetched = restored.place, restored.copy, restored.fetched
    concessions, manifest = restored.concessions, restored.copy.manifest
    source = manifest.inventory
    described = CopyToDescribe(
        url=copy.url,
        installation=load.choose_program(
            [each for each in installations if each.major >= place.major],
            client_major=manifest.client_major,
            server_major=manifest.client_major,
        ),
        folder=fetched.archive.parent,
        timeout_seconds=copy.limits.seconds,
        names=(source.database, place.name),
        first_roles=(source.first_role, roles.first_role(place.connection)),
        with_owners=not concessions.without_owners,
        with_tablespaces=not concessions.without_tablespaces,
        without_settings=bool(
            concessions.subjects("setting") or concessions.subjects("role")
        ),
    )
    kept = concessions.entries(fetched.contents.entries)
    ahead = ";".join(statements_ahead(kept, manifest, concessions))

    def make_reference() -> Contents:
        name = place.reference
        url = with_database(described.url, name)
        inventory = concessions.inventory(source)
        scratch.create(place.connection, name, inventory, run_id=place.run_id)
        try:
            database.make_bare(url, inventory)
            with connect(url, purpose="reference") as beside:
                limit_statements(beside, copy.limits.seconds)
                definitions.build(beside, fetched.contents, kept, ahead)
            return describe(replace(described, url=url))
        finally:
            database.drop(place.connection, name)

    return definitions.compare_definitions(
        fetched.contents,
        described,
        left_out=concessions.not_made,
        reference=make_reference,
    )


def compare_roles(place: Place, copy: RestoredCopy, concessions: Concessions) -> Check:
    """Compare the roles of the set with those of the server.

    On a server that is not thrown away there are others as well, and only the roles
    that the database needs are its concern.
    """
    inventory = copy.manifest.inventory
    allowed = concessions.subjects("role") | concessions.subjects("role-attributes")
    observed = {each.name: each for each in roles.take(place.connection)}
    expected = {each.name: each for each in inventory.roles}
    first = (inventory.first_role, roles.first_role(place.connection))
    ours = None
    if place.is_throwaway:
        ours = expected.pop(throwaway.SUPERUSER, None)
        observed.pop(throwaway.SUPERUSER, None)
        names = expected.keys() | observed.keys()
    else:
        names = set(inventory.needed_roles) - allowed
    differ = sorted(
        name
        for name in names
        if name not in expected
        or name not in observed
        or expected[name].differences(
            observed[name],
            majors=(copy.manifest.server_major, place.major),
            with_password=place.is_throwaway,
            with_parameters=name not in first,
        )
    )
    return Check(
        name="roles",
        passed=not differ,
        expected=str(len(names & expected.keys())),
        observed=str(len(names & observed.keys())),
        detail=", ".join(differ)
        or ("" if ours is None else "but for the drill's own role"),
    )


def run_queries(copy: RestoredCopy, queries: Sequence[Query]) -> list[Check]:
    if not queries:
        return []
    with connect(copy.url, purpose="queries") as connection:
        limit_statements(connection, copy.limits.seconds)
        # The user's text is written for the database's own search path.
        connection.execute("RESET search_path")
        return [_run_query(connection, query) for query in queries]


def _name(query: Query) -> str:
    return f"query {query.name}"


def _run_query(connection: Connection, query: Query) -> Check:
    name, expected = _name(query), _text(query.expect)
    try:
        with translated(name):
            rows = [list(row) for row in user_query(connection, query.sql)]
    except ServerFault:
        raise
    except DatabaseError as error:
        return Check(name=name, passed=False, expected=expected, detail=error.message)
    observed: Any = rows
    if not isinstance(query.expect, list) and len(rows) == 1 and len(rows[0]) == 1:
        observed = rows[0][0]
    # By their text: 12 and Decimal("12") are the same answer to a person.
    return compare(name, expected, _text(observed), query.sql)


def _text(value: object) -> str:
    if isinstance(value, list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value)


@dataclass(frozen=True, kw_only=True)
class DrillRequest(CopyRequest):
    """Which set to prove, and how; the settings say on what.

    So many mutants are planted to show that the comparison can fail. There must be
    room for so many `copies` of the database.
    """

    settings: DrillSettings
    mutants: int = 0
    copies: int = 1


def drill(request: DrillRequest, *, clock: Callable[[], datetime]) -> DrillEvidence:
    """Restore a set into a throw-away server and compare everything.

    What is wrong with the set is a failed check in the evidence, not an error.

    Raises:
        ClientToolError: there is no server of the set's major to drill on.
        DatabaseError: the server itself did not work, or lacks what the set needs.
    """
    started_at = clock()
    run = _Drill(request)
    try:
        with run.copy() as made:
            run.plant_mutants(made)
    except _Ended:
        pass  # a check says why
    except NoProgress as error:
        run.record.fail("time limit", error)
    return run.record.evidence(
        request.chosen,
        run_id=request.run_id,
        started_at=started_at,
        finished_at=clock(),
    )


@contextmanager
def equal_copy(request: DrillRequest) -> Iterator[Restored]:
    """Yield a copy of a set in a throw-away server that is equal to it.

    Raises:
        DrillFailed: it is not equal, or cannot be made.
        ClientToolError, DatabaseError: as `drill`.
    """
    run = _Drill(request)
    with ExitStack() as stack:
        try:
            made = stack.enter_context(run.copy())
        except (_Ended, NoProgress) as error:
            failed = [each.name for each in run.record.checks if each.failed]
            raise DrillFailed(
                f"{request.chosen.manifest.backup_id} does not come back: "
                f"{', '.join(failed[:1]) or error}",
                hint="Drill it with `inv restore-drill`, and read the report.",
            ) from error
        yield made


class _Ended(Exception):
    """A check did not pass, and there is nothing to go on with."""


class _Drill(Terms):
    """The terms of a drill: what is wrong with the set is a check that does not pass.

    The record holds what is known so far.
    """

    _server: DrillServer

    def __init__(self, request: DrillRequest) -> None:
        # All is asked of one store, whose copy of the set is proved.
        first = replace(request.chosen, copies=request.chosen.copies[:1])
        size_bytes = request.manifest.inventory.size_bytes
        self._request = replace(
            request,
            chosen=first,
            limits=replace(request.limits, room_bytes=request.copies * size_bytes),
            loading=request.settings.loading,
            compares_early=True,
            offline=True,
        )
        self._bound = Bound(request.limits.seconds)
        self.record = DrillRecord()

    @contextmanager
    def copy(self) -> Iterator[Restored]:
        """Yield the restored copy, all of it compared."""
        with restored(self._request, self, self._bound) as made:
            self.record.checks += made.checks
            failed = {check.name for check in self.record.checks if check.failed}
            queries = {_name(each) for each in self._request.settings.queries}
            if failed and failed <= queries and self._bound.passed():
                # Its own limit may have ended a query before all sessions were ended.
                raise ServerFault("the time for the drill is over")
            if failed:
                raise _Ended
            yield made

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase; where the set is to blame for an error, note it."""
        try:
            with self.record.phase(name):
                yield
        except IntegrityError as error:
            if name != "fetch":
                raise
            self._end("stored objects", error)
        except (ServerFault, NoProgress):
            raise
        except DatabaseError as error:
            if name not in ("surroundings", "restore") or self._bound.passed():
                raise
            self._end("restore", error)

    def _end(self, name: str, error: OpskitError) -> NoReturn:
        self.record.fail(name, error)
        raise _Ended from error

    @contextmanager
    def opening(self) -> Iterator[Callable[[Fetched], Place]]:
        """Start a server beside the reading; yield what waits for it."""
        request, manifest = self._request, self._request.manifest
        with (
            opening_server(
                request.settings,
                request.installations,
                manifest.inventory,
            ) as wait,
            ExitStack() as stack,
        ):

            def open_place(fetched: Fetched) -> Place:
                self.record.checks.append(
                    compare("stored objects", len(manifest.objects), fetched.objects,
                            "size and SHA-256 of each")
                )  # fmt: skip
                with self.phase("server"), bar("starting a server"):
                    self._server = wait()
                self.record.drill_server = self._server.full_description
                name = manifest.inventory.database
                return stack.enter_context(
                    place_beside(self._server, name, run_id=request.run_id)
                )

            yield open_place

    def accept_shortages(self, missing: Sequence[Shortage]) -> None:
        """Go on without what is allowed by name."""
        require_allowed(self._server.description, missing, self._request.loading.allow)

    def accept_definitions(
        self, job: FillJob, failures: Sequence[Failure]
    ) -> Concessions:
        """Return what is done without, as these definitions could not be made.

        What the server refuses of it is no finding about the set, unless the definition
        itself is broken.
        """
        refused = self._refused(failures)
        if broken := [each for each in refused if not each.is_shortage]:
            self._note_refused(broken)
            raise _Ended
        if refused:
            raise lacking(
                self._server.description, [each.as_shortage() for each in refused]
            )
        concessions = with_shortages(job, [each.as_shortage() for each in failures])
        unmade = concessions.unmade(job.entries)
        unmade += unmade_anyway(job.place, job.manifest)
        self.record.checks += [not_checked(check, reason) for check, reason in unmade]
        return concessions

    def accept_rows(self, copy: RestoredCopy, filled: Filled) -> None:
        """Note what could not be made after the rows."""
        refused = self._refused(e for e in filled.failures if not e.is_outside)
        self._note_refused(refused, filled.words)
        if refused:
            raise _Ended
        self.record.is_restored = True
        self.record.checks += [not_checked(e.name, e.reason) for e in filled.failures]
        self.record.tables = len(copy.tables)
        self.record.rows = sum(table.rows for table in copy.tables)

    def _refused(self, failures: Iterable[Failure]) -> list[Failure]:
        allowed = self._request.loading.allow
        return [each for each in failures if each.name not in allowed]

    def _note_refused(self, refused: Sequence[Failure], words: str = "") -> None:
        observed = f"{count(len(refused), 'entry', 'entries')} could not be made"
        details = "; ".join(each.error for each in refused)
        self.record.checks.append(
            compare(
                "restore",
                "no error",
                observed if refused else "no error",
                details or words,
            )
        )

    def compare_more(self, restored: Restored) -> list[Check]:
        request, copy = self._request, restored.copy
        place, source = restored.place, copy.manifest.source
        queries = [e for e in request.settings.queries if e.database in ("", source)]
        return [
            *compare_definitions(restored, request.installations),
            compare_roles(place, copy, restored.concessions),
            *run_queries(copy, queries),
        ]

    def plant_mutants(self, made: Restored) -> None:
        number, seed = self._request.mutants, self._request.run_id
        if not number:
            self.record.leave_out_mutants()
            return
        with self.phase("mutants"), bar("trying mutants", number, unit="mutants"):
            self.record.mutants = plant(made.copy, number=number, seed=seed)
            self.record.checks.append(self.record.mutants.check())


def unmade_anyway(place: Place, manifest: DatabaseManifest) -> list[tuple[str, str]]:
    """Return what is not checked whatever is allowed, and why."""
    inventory = manifest.inventory
    no_right = "the role that took the backup may not read them, so it has none"
    unmade = [(loss, no_right) for loss in inventory.not_dumped]
    unmade += [(each.name, each.reason) for each in inventory.beyond_dumps]
    unmade += [
        (
            f"owner of the extension {each.name} and of what is in it",
            f"it is {each.owner}'s, and becomes that of the role that restores it",
        )
        for each in inventory.extensions
        if each.owner not in (None, inventory.first_role)
    ]
    if not place.is_throwaway:
        reason = "their hashes differ from server to server"
        unmade.append(("passwords of roles", reason))
    return unmade
