"""Runs a drill: fetch, server, surroundings, load, exact comparison, mutants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from opskit.catalog.manifest import Manifest
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet
from opskit.checks import Check, compare, count, not_checked
from opskit.compare.contents import RestoredCopy
from opskit.compare.meanwhile import Meanwhile
from opskit.config import Query
from opskit.crypto.keys import Identities
from opskit.drill import comparison
from opskit.drill.comparison import run_queries
from opskit.drill.report import DrillEvidence, DrillFigures
from opskit.drill.servers import ServerRequest, opening_server
from opskit.drill.surroundings import (
    Fetched,
    Place,
    lacking,
    make_surroundings,
    owners_raised,
    place_beside,
    read_set,
    require_surroundings,
    unmade_anyway,
)
from opskit.errors import DatabaseError, IntegrityError, ServerFault
from opskit.evidence import set_subject
from opskit.log import logger
from opskit.mutants.mutant import MutantReport
from opskit.mutants.planting import plant
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions, Failure
from opskit.progress import Bar, bar
from opskit.restore import load, unpack
from opskit.restore.fill import Filled, fill
from opskit.restore.job import FillJob, copy_url
from opskit.restore.make import make, with_shortages
from opskit.restore.rights import Bound, NoProgress

_TITLES = {
    "fetch": "reading the set",
    "server": "starting a server",
    "surroundings": "making roles and tablespaces",
    "restore": "restoring",
    "compare": "comparing the copy",
}


@dataclass(frozen=True, kw_only=True)
class DrillRequest:
    """Which set to prove, and on what.

    `allowed` names what the drill may do without, see `[drill] allow`; `mutants` is how
    many are planted to show that the comparison can fail.
    """

    chosen: BackupSet
    installations: Sequence[Installation]
    server: ServerRequest
    jobs: int
    timeout_seconds: float
    queries: Sequence[Query] = ()
    allowed: Sequence[str] = ()
    mutants: int = 0
    sql_before: Sequence[str] = ()
    sql_after: Sequence[str] = ()
    identities: Identities | None = None


@dataclass(kw_only=True)
class Findings:
    """What a drill has found so far, and how long its phases took."""

    request: DrillRequest
    run_id: str
    checks: list[Check] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    drill_server: str = ""
    mutants: MutantReport | None = None
    tables: int = 0
    rows: int = 0
    restored: bool = False

    def open(self, manifest: Manifest) -> None:
        """Go on with what an encrypted set's manifest seals."""
        chosen = replace(self.request.chosen, manifest=manifest)
        self.request = replace(self.request, chosen=chosen)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        logger().info("drill", phase=name)
        try:
            with self._shown(name):
                yield
        finally:
            before = self.phases.get(name, 0.0)
            self.phases[name] = round(before + time.monotonic() - began, 3)

    def _shown(self, phase: str) -> AbstractContextManager[Bar]:
        """Show how far a phase is, where that is known."""
        manifest = self.request.chosen.manifest
        if phase == "mutants":
            return bar("trying mutants", self.request.mutants, unit="mutants")
        totals = {"fetch": manifest.size_bytes, "compare": manifest.dump_bytes}
        return bar(_TITLES.get(phase, phase), totals.get(phase))


_Result = TypeVar("_Result")
# What has to be done before a service can use a restored database.
_RESTORE_PHASES = ("fetch", "server", "surroundings", "restore")


def drill(
    request: DrillRequest,
    *,
    run_id: str,
    clock: Callable[[], datetime],
    tamper: Callable[[str], None] | None = None,
) -> DrillEvidence:
    """Restore a set into a throw-away server and compare everything.

    What is wrong with the set is a failed check in the evidence, not an error. `tamper`
    is called with the copy's URL before the comparison; by it, tests show that a
    comparison can fail.

    Raises:
        ClientToolError: there is no server of the set's major to drill on.
        DatabaseError: the server itself did not work, or lacks what the set needs.
    """
    manifest = request.chosen.manifest
    started_at = clock()
    found = Findings(request=request, run_id=run_id)
    try:
        _run(found, Bound(request.timeout_seconds), tamper)
    except NoProgress as error:
        found.checks.append(
            Check(name="time limit", passed=False, detail=error.message)
        )
    rto = sum(found.phases.get(name, 0.0) for name in _RESTORE_PHASES)
    return DrillEvidence(
        kind="drill",
        run_id=run_id,
        subject=set_subject(manifest, request.chosen.manifest_sha256),
        started_at=started_at,
        finished_at=clock(),
        checks=tuple(found.checks),
        figures=DrillFigures(
            drill_server=found.drill_server,
            tables=found.tables,
            rows=found.rows,
            mutants=None if found.mutants is None else found.mutants.as_json(),
            rto_seconds=round(rto, 3) if found.restored else None,
            rpo_seconds=round((started_at - manifest.snapshot_at).total_seconds(), 3),
            phases=found.phases,
        ),
    )


def _run(found: Findings, bound: Bound, tamper: Callable[[str], None] | None) -> None:
    request = found.request
    manifest = request.chosen.manifest
    with ExitStack() as stack:
        folder = stack.enter_context(unpack.folder(request.server.work_dir))
        needed_bytes = manifest.dump_bytes + manifest.inventory.size_bytes
        unpack.require_space(folder, needed_bytes)
        server = stack.enter_context(
            opening_server(
                replace(request.server, preload=manifest.inventory.preloaded),
                request.installations,
                major=manifest.server_major,
                system_identifier=manifest.inventory.system_identifier,
            )
        )
        fetched = _fetch(found, folder)
        if fetched is None:
            return
        found.open(fetched.manifest)
        request, manifest = found.request, fetched.manifest
        with found.phase("server"):
            running = server()
        found.drill_server = running.full_description
        place = stack.enter_context(
            place_beside(running, manifest.inventory.database, run_id=found.run_id)
        )
        entries = fetched.contents.entries
        concessions = require_surroundings(place, manifest, entries, request.allowed)
        job = _fill_job(request, place, fetched, concessions)
        job = replace(job, is_over=bound.passed)
        stack.enter_context(bound.over(place.url_beside, [place.name, place.reference]))
        made = _make(found, place, fetched, job)
        if made is None:
            return
        concessions = made
        job = replace(job, concessions=concessions)
        found.checks += [
            not_checked(check, reason)
            for check, reason in (
                *concessions.unmade(entries),
                *unmade_anyway(place, manifest),
            )
        ]
        copy = RestoredCopy(
            url=copy_url(place.connection, job),
            manifest=manifest,
            schema=fetched.schema,
            jobs=request.jobs,
            tables=concessions.kept(manifest.tables, "TABLE DATA", entries),
            sequences=concessions.kept(manifest.sequences, "SEQUENCE SET", entries),
            timeout_seconds=request.timeout_seconds,
        )
        meanwhile = stack.enter_context(
            Meanwhile(
                copy,
                entries,
                alone=place.server.is_throwaway
                and not (request.sql_before or request.sql_after or tamper),
            )
        )
        job = replace(job, loaded=meanwhile.loaded)
        failures = _fill(found, place, job)
        if failures is None:
            return
        found.restored = True
        concessions = replace(concessions, failures=failures)
        found.checks += [not_checked(e.name, e.reason) for e in failures]
        if tamper is not None:
            tamper(copy.url)
        found.tables = len(copy.tables)
        found.rows = sum(table.rows for table in copy.tables)
        _compare(found, place, copy, fetched, concessions, meanwhile)


def _fetch(found: Findings, folder: Path) -> Fetched | None:
    """Read the set's objects; one that is damaged is a finding."""
    chosen = found.request.chosen
    reader = SetReader(
        manifest=chosen.manifest,
        store=chosen.stores[0],
        identities=found.request.identities,
    )
    reader.require_identities()
    try:
        with found.phase("fetch"):
            fetched = read_set(reader, folder)
    except IntegrityError as error:
        found.checks.append(
            Check(name="stored objects", passed=False, detail=str(error))
        )
        return None
    found.checks.append(
        compare("stored objects", len(chosen.manifest.objects), fetched.objects,
                "size and SHA-256 of each")
    )  # fmt: skip
    return fetched


def _fill_job(
    request: DrillRequest, place: Place, fetched: Fetched, concessions: Concessions
) -> FillJob:
    return FillJob(
        server_url=place.server.url(place.name),
        name=place.name,
        manifest=request.chosen.manifest,
        archive=fetched.archive,
        entries=fetched.contents.entries,
        installations=request.installations,
        jobs=request.jobs,
        timeout_seconds=request.timeout_seconds,
        concessions=concessions,
        sql_before=request.sql_before,
        sql_after=request.sql_after,
        run_id=place.run_id,
        offline=True,
    )


def _make(
    found: Findings, place: Place, fetched: Fetched, job: FillJob
) -> Concessions | None:
    """Make what stands before the rows; return what is done without.

    What the server refuses of it is no finding about the set, unless the definition
    itself is broken: then there is a failed check, and nothing to go on with.

    Raises:
        DatabaseError: the server lacks something that is not allowed to be missing.
    """
    # Missing programs are this machine's fault, not the set's: no finding.
    load.choose_program(
        job.installations,
        client_major=job.manifest.client_major,
        server_major=place.server.major,
    )

    def make_all() -> list[Failure]:
        if place.server.is_throwaway:
            with found.phase("surroundings"):
                make_surroundings(
                    place, fetched.roles_sql, job.manifest.inventory.tablespaces
                )
        with found.phase("restore"), owners_raised(place, job.entries):
            return make(place.connection, job)

    failures = _attempted(found, job, make_all)
    if failures is None:
        return None
    refused = [e for e in failures if e.name not in found.request.allowed]
    broken = [each for each in refused if not each.is_shortage]
    if broken:
        _refused(found, broken, "")
        return None
    if refused:
        raise lacking(place.server.description, [e.as_shortage() for e in refused])
    return with_shortages(job, [each.as_shortage() for each in failures])


def _fill(found: Findings, place: Place, job: FillJob) -> tuple[Failure, ...] | None:
    """Load the rows; return what is allowed to fail after them, None if more did."""

    def fill_all() -> Filled:
        with found.phase("restore"), owners_raised(place, job.entries):
            return fill(place.connection, job)

    filled = _attempted(found, job, fill_all)
    if filled is None:
        return None
    refused = [
        each
        for each in filled.failures
        if not each.is_outside and each.name not in found.request.allowed
    ]
    _refused(found, refused, filled.words)
    return None if refused else filled.failures


def _attempted(
    found: Findings, job: FillJob, step: Callable[[], _Result]
) -> _Result | None:
    """Take a step of the restore; where the set is to blame for an error, note it."""
    try:
        return step()
    except (ServerFault, NoProgress):
        raise
    except DatabaseError as error:
        if job.is_over():
            raise
        found.checks.append(Check(name="restore", passed=False, detail=str(error)))
        return None


def _refused(found: Findings, refused: Sequence[Failure], words: str) -> None:
    """Add the check that names the entries that could not be made."""
    found.checks.append(
        compare(
            "restore",
            "no error",
            f"{count(len(refused), 'entry', 'entries')} could not be made"
            if refused
            else "no error",
            "; ".join(each.error for each in refused) or words,
        )
    )


def _compare(
    found: Findings,
    place: Place,
    copy: RestoredCopy,
    fetched: Fetched,
    concessions: Concessions,
    meanwhile: Meanwhile,
) -> None:
    request = found.request
    with found.phase("compare"):
        found.checks += comparison.compare_everything(
            place,
            copy,
            fetched,
            concessions,
            installations=request.installations,
            equal=meanwhile.settle(),
        )
        found.checks += run_queries(
            copy.url, request.queries, timeout_seconds=request.timeout_seconds
        )
    if any(check.failed for check in found.checks):
        return  # it has just shown that it can fail
    if not request.mutants:
        found.checks.append(
            not_checked("mutants", "none were asked for ([drill] mutants = 0)")
        )
        return
    with found.phase("mutants"):
        found.mutants = plant(copy, number=request.mutants, seed=found.run_id)
        found.checks.append(found.mutants.check())
