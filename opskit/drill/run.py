"""Runs a drill: fetch, throw-away server, roles, pg_restore, exact comparison."""

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
from opskit.drill.evidence import Evidence
from opskit.drill.queries import run_queries
from opskit.errors import DatabaseError, IntegrityError
from opskit.log import logger
from opskit.postgres import database, globals, server
from opskit.postgres.connect import connect
from opskit.postgres.inventory import take_roles
from opskit.postgres.programs import Installation, find_server
from opskit.postgres.server import Server
from opskit.restore import fetch, load
from opskit.restore.compare import (
    RestoredCopy,
    compare_contents,
    compare_large_objects,
)
from opskit.restore.structure import compare_structure

_MAINTENANCE = "template1"


@dataclass(frozen=True, kw_only=True)
class DrillRequest:
    """Which set to prove, and on what."""

    chosen: BackupSet
    installations: Sequence[Installation]
    server_kind: str
    accept_newer_major: bool
    jobs: int
    timeout_seconds: float
    queries: Sequence[Query] = ()
    work_dir: Path | None = None


@dataclass(kw_only=True)
class _Run:
    """What a drill has found so far."""

    checks: list[Check] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    drill_server: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        logger().info("drill", phase=name)
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - began, 3)


_MACHINE_FAULTS = ("No space left", "took longer than", "server closed the connection")
# What has to be done before a service can use a restored database.
_RESTORE_PHASES = ("fetch", "server", "roles", "restore")


def drill(
    request: DrillRequest,
    *,
    run_id: str,
    clock: Callable[[], datetime],
    tamper: Callable[[str], None] | None = None,
) -> Evidence:
    """Restore a set into a throw-away server and compare everything.

    What is wrong with the set is a failed check in the evidence, not an error. `tamper`
    is called with the copy's URL before the comparison; by it, tests (and later the
    drill itself) show that a comparison can fail.

    Raises:
        ClientToolError: there is no server of the set's major to drill on.
        DatabaseError: the throw-away server itself did not work.
    """
    manifest = request.chosen.manifest
    installation = find_server(
        request.installations,
        major=manifest.server_major,
        kind=request.server_kind,
        accept_newer=request.accept_newer_major,
    )
    started_at = clock()
    found = _Run()
    found.drill_server = _describe(installation, manifest.server_major)
    _run(request, installation, found, tamper)
    rto = sum(found.phases.get(name, 0.0) for name in _RESTORE_PHASES)
    return Evidence(
        kind="drill",
        run_id=run_id,
        manifest=manifest,
        started_at=started_at,
        finished_at=clock(),
        checks=tuple(found.checks),
        phases=found.phases,
        rto_seconds=round(rto, 3) if "restore" in found.phases else None,
        rpo_seconds=round((started_at - manifest.snapshot_at).total_seconds(), 3),
        drill_server=found.drill_server,
    )


def _describe(installation: Installation, major: int) -> str:
    kind = "embedded" if installation.embedded else "installed"
    newer = "" if installation.major == major else f", newer than the source's {major}"
    return f"PostgreSQL {installation.version} ({kind}{newer})"


def _run(
    request: DrillRequest,
    installation: Installation,
    found: _Run,
    tamper: Callable[[str], None] | None,
) -> None:
    manifest, store = request.chosen.manifest, request.chosen.stores[0]
    with fetch.folder(request.work_dir) as folder:
        needed_bytes = manifest.dump_bytes + int(manifest.inventory["size_bytes"])
        fetch.require_space(folder, needed_bytes)
        archive = folder / "dump.pgdump"
        try:
            with found.phase("fetch"):
                fetch.unpack_dump(manifest, store, archive)
                roles_sql = fetch.read_text(manifest, store, "roles")
                objects = fetch.read_schema(manifest, store)
                objects_read = 1 + fetch.read_others(manifest, store)
        except IntegrityError as error:
            found.checks.append(
                Check(name="stored objects", passed=False, detail=str(error))
            )
            return
        found.checks.append(
            compare("stored objects", len(manifest.objects), objects_read,
                    "size and SHA-256 of each")
        )  # fmt: skip
        with _server(found, installation, request.work_dir) as running:
            if not _restore(request, running, roles_sql, archive, found):
                return
            url = running.url(str(manifest.inventory["database"]))
            if tamper is not None:
                tamper(url)
            copy = RestoredCopy(
                url=url,
                manifest=manifest,
                schema=objects,
                jobs=request.jobs,
                tables=manifest.tables,
                sequences=manifest.sequences,
                timeout_seconds=request.timeout_seconds,
            )
            with found.phase("compare"):
                found.checks += compare_contents(copy)
                found.checks.append(compare_large_objects(copy))
                found.checks += compare_structure(copy)
                found.checks.append(_compare_roles(running, copy))
                found.checks += run_queries(
                    url, request.queries, timeout_seconds=request.timeout_seconds
                )


@contextmanager
def _server(
    found: _Run, installation: Installation, base: Path | None
) -> Iterator[Server]:
    with ExitStack() as stack:
        with found.phase("server"):
            running = stack.enter_context(server.throwaway(installation, base=base))
        yield running


def _restore(
    request: DrillRequest, running: Server, roles_sql: str, archive: Path, found: _Run
) -> bool:
    """Load roles and archive as `RESTORE.md` does; a failure is a finding."""
    manifest = request.chosen.manifest
    major = running.installation.major
    url = running.url(_MAINTENANCE)
    # Missing programs are this machine's fault, not the set's: no finding.
    program = load.choose_program(
        request.installations, client_major=manifest.client_major, server_major=major
    )
    try:
        with found.phase("roles"), connect(url, purpose="drill") as connection:
            existing = database.existing_roles(connection)
            script = globals.for_missing_roles(roles_sql, existing)
            database.run_script(connection, script)
            # The archive creates its database itself, and may well be called postgres.
            database.drop(connection, "postgres")
        with found.phase("restore"):
            words = load.load(
                load.LoadJob(
                    archive=archive,
                    url=url,
                    server_major=major,
                    installation=program,
                    jobs=request.jobs,
                    timeout_seconds=request.timeout_seconds,
                    create=True,
                    no_tablespaces=True,
                )
            )
    except DatabaseError as error:
        if any(words in error.message for words in _MACHINE_FAULTS):
            raise  # of this machine, which says nothing of the set
        found.checks.append(Check(name="restore", passed=False, detail=str(error)))
        return False
    found.checks.append(
        Check(
            name="restore",
            passed=True,
            expected="no error",
            observed="no error",
            detail=words,
        )
    )
    return True


def _compare_roles(running: Server, copy: RestoredCopy) -> Check:
    with connect(running.url(_MAINTENANCE), purpose="compare") as connection:
        observed = {each["name"]: each for each in take_roles(connection)}
    expected = {each["name"]: each for each in copy.manifest.inventory["roles"]}
    ours = expected.pop(server.SUPERUSER, None)
    observed.pop(server.SUPERUSER, None)
    names = expected.keys() | observed.keys()
    differ = sorted(name for name in names if expected.get(name) != observed.get(name))
    return Check(
        name="roles",
        passed=not differ,
        expected=str(len(expected)),
        observed=str(len(observed)),
        detail=", ".join(differ)
        or ("" if ours is None else "but for the drill's own role"),
    )
