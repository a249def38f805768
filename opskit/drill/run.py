"""Runs a drill: fetch, server, surroundings, load, exact comparison, mutants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from opskit.catalog.catalog import BackupSet
from opskit.checks import Check, compare
from opskit.config import Query
from opskit.drill import comparison
from opskit.drill.copy import make_surroundings, require_surroundings, scratch_name
from opskit.drill.evidence import Evidence, Unmade
from opskit.drill.mutants import MutantReport, plant
from opskit.drill.queries import run_queries
from opskit.drill.reading import Fetched, read_set
from opskit.drill.servers import DrillServer, ServerRequest, open_server
from opskit.errors import DatabaseError, IntegrityError
from opskit.log import logger
from opskit.postgres.connect import Connection
from opskit.postgres.programs import Installation
from opskit.restore import fetch, load
from opskit.restore.compare import RestoredCopy
from opskit.restore.concessions import Concessions
from opskit.restore.fill import FillJob, fill

_MACHINE_FAULTS = ("No space left", "took longer than", "server closed the connection")
# What has to be done before a service can use a restored database.
_RESTORE_PHASES = ("fetch", "server", "surroundings", "restore")


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


@dataclass(kw_only=True)
class _Run:
    """What a drill has found so far."""

    request: DrillRequest
    run_id: str
    checks: list[Check] = field(default_factory=list)
    unmade: list[Unmade] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    drill_server: str = ""
    mutants: MutantReport | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        logger().info("drill", phase=name)
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - began, 3)


def drill(
    request: DrillRequest,
    *,
    run_id: str,
    clock: Callable[[], datetime],
    tamper: Callable[[str], None] | None = None,
) -> Evidence:
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
    found = _Run(request=request, run_id=run_id)
    _run(found, tamper)
    rto = sum(found.phases.get(name, 0.0) for name in _RESTORE_PHASES)
    return Evidence(
        kind="drill",
        run_id=run_id,
        manifest=manifest,
        started_at=started_at,
        finished_at=clock(),
        checks=tuple(found.checks),
        unmade=tuple(found.unmade),
        phases=found.phases,
        rto_seconds=round(rto, 3) if "restore" in found.phases else None,
        rpo_seconds=round((started_at - manifest.snapshot_at).total_seconds(), 3),
        drill_server=found.drill_server,
        mutants=None if found.mutants is None else found.mutants.as_json(),
    )


def _run(found: _Run, tamper: Callable[[str], None] | None) -> None:
    request = found.request
    manifest = request.chosen.manifest
    with ExitStack() as stack:
        folder = stack.enter_context(fetch.folder(request.server.work_dir))
        needed_bytes = manifest.dump_bytes + int(manifest.inventory["size_bytes"])
        fetch.require_space(folder, needed_bytes)
        fetched = _fetch(found, folder)
        if fetched is None:
            return
        with found.phase("server"):
            running = stack.enter_context(
                open_server(request.server, request.installations, manifest)
            )
        found.drill_server = running.description
        connection, name = stack.enter_context(
            scratch_name(running, str(manifest.inventory["database"]))
        )
        entries = fetched.contents.entries
        concessions = require_surroundings(
            connection, running, manifest.inventory, entries, request.allowed
        )
        found.unmade += [
            Unmade(name=check, reason=reason)
            for check, reason in concessions.unmade(entries)
        ]
        url = _restore(found, running, connection, name, fetched, concessions)
        if url is None:
            return
        if tamper is not None:
            tamper(url)
        copy = RestoredCopy(
            url=url,
            manifest=manifest,
            schema=fetched.schema,
            jobs=request.jobs,
            tables=concessions.kept(manifest.tables, "TABLE DATA", entries),
            sequences=concessions.kept(manifest.sequences, "SEQUENCE SET", entries),
            timeout_seconds=request.timeout_seconds,
        )
        _compare(found, running, connection, name, copy, fetched, concessions)


def _fetch(found: _Run, folder: Path) -> Fetched | None:
    """Read the set's objects; one that is damaged is a finding."""
    chosen = found.request.chosen
    try:
        with found.phase("fetch"):
            fetched = read_set(chosen.manifest, chosen.stores[0], folder)
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


def _restore(
    found: _Run,
    running: DrillServer,
    connection: Connection,
    name: str,
    fetched: Fetched,
    concessions: Concessions,
) -> str | None:
    """Load the archive and return the copy's URL; a failure is a finding."""
    request = found.request
    manifest = request.chosen.manifest
    # Missing programs are this machine's fault, not the set's: no finding.
    load.choose_program(
        request.installations,
        client_major=manifest.client_major,
        server_major=running.major,
    )
    job = FillJob(
        server_url=running.url(name),
        name=name,
        manifest=manifest,
        archive=fetched.archive,
        entries=fetched.contents.entries,
        installations=request.installations,
        jobs=request.jobs,
        timeout_seconds=request.timeout_seconds,
        concessions=concessions,
        sql_before=request.sql_before,
        sql_after=request.sql_after,
    )
    try:
        if running.is_throwaway:
            with found.phase("surroundings"):
                make_surroundings(
                    connection, fetched.roles_sql, manifest.inventory["tablespaces"]
                )
        with found.phase("restore"):
            url, words = fill(connection, job)
    except DatabaseError as error:
        if any(each in error.message for each in _MACHINE_FAULTS):
            raise  # of this machine, which says nothing of the set
        found.checks.append(Check(name="restore", passed=False, detail=str(error)))
        return None
    found.checks.append(
        Check(
            name="restore",
            passed=True,
            expected="no error",
            observed="no error",
            detail=words,
        )
    )
    return url


def _compare(
    found: _Run,
    running: DrillServer,
    connection: Connection,
    name: str,
    copy: RestoredCopy,
    fetched: Fetched,
    concessions: Concessions,
) -> None:
    request = found.request
    with found.phase("compare"):
        found.checks += comparison.compare_everything(
            connection,
            copy,
            fetched.contents,
            comparison.copy_to_describe(
                connection,
                copy,
                name=name,
                installations=request.installations,
                server_major=running.major,
                folder=fetched.archive.parent,
                concessions=concessions,
            ),
            concessions,
        )
        found.checks.append(comparison.compare_roles(connection, running, copy))
        found.checks += run_queries(
            copy.url, request.queries, timeout_seconds=request.timeout_seconds
        )
    if not all(check.passed for check in found.checks):
        return  # it has just shown that it can fail
    if not request.mutants:
        found.unmade.append(
            Unmade(name="mutants", reason="none were asked for ([drill] mutants = 0)")
        )
        return
    with found.phase("mutants"):
        found.mutants = plant(copy, number=request.mutants, seed=found.run_id)
        found.checks.append(found.mutants.check())
