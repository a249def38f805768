"""What a drill's server lacks for a database: asked, and tried without the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from opskit.catalog.manifest import Manifest
from opskit.drill.servers import DrillServer
from opskit.drill.surroundings import make_surroundings, owners_raised, place_beside
from opskit.postgres import client, globals
from opskit.postgres.archive import toc
from opskit.postgres.connect import connect
from opskit.postgres.conninfo import client_connection, client_environment
from opskit.postgres.inventory import Inventory
from opskit.postgres.servers.programs import Installation, find_client
from opskit.preflight import shortages as preflight_shortages
from opskit.preflight.concessions import accept
from opskit.preflight.shortages import Shortage
from opskit.restore import fetch
from opskit.restore.fill_job import FillJob
from opskit.restore.make import make

# A migration that holds its tables longer is not waited for.
_LOCK_WAIT = timedelta(seconds=10)
_SECONDS_MAX = 600.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A live database, what is known of it, and what a drill of it is given."""

    url: str = field(repr=False)
    major: int
    inventory: Inventory
    installations: Sequence[Installation]
    allowed: Sequence[str] = ()
    sql_before: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    work_dir: Path | None = None
    run_id: str


def shortages(trial: Trial, running: DrillServer) -> list[Shortage]:
    """Return what the server lacks; where all of it is allowed, after a trial.

    Everything that stands before the rows is made on the server, from a dump of the
    live database's definitions.

    Raises:
        DatabaseError: the definitions cannot be dumped, or not be made at all.
    """
    program = find_client(trial.installations, server_major=trial.major)
    with fetch.folder(trial.work_dir) as folder:
        archive = folder / "dump.pgdump"
        roles_sql = _dump(trial, program, archive)
        entries = toc.read(archive).entries
        known: dict[str, Any] = {
            "inventory": trial.inventory,
            "client_version": program.version,
            "tables": (),
            "sequences": (),
        }
        manifest = Manifest.model_construct(**known)
        with place_beside(
            running, str(trial.inventory["database"]), run_id=trial.run_id
        ) as place:
            found = preflight_shortages.shortages(
                place.connection,
                trial.inventory,
                entries,
                creates_roles=running.is_throwaway,
                is_throwaway=running.is_throwaway,
            )
            if any(each.name not in trial.allowed for each in found):
                return found
            if running.is_throwaway:
                make_surroundings(place, roles_sql, trial.inventory["tablespaces"])
            job = FillJob(
                server_url=running.url(place.name),
                name=place.name,
                manifest=manifest,
                archive=archive,
                entries=entries,
                installations=trial.installations,
                jobs=1,
                timeout_seconds=_SECONDS_MAX,
                concessions=accept(entries, found, manifest),
                sql_before=trial.sql_before,
                run_id=place.run_id,
            )
            with owners_raised(place, entries):
                failures = make(place.connection, job)
    return found + [each.as_shortage() for each in failures]


def _dump(trial: Trial, program: Installation, archive: Path) -> str:
    """Dump the definitions into a file; return the roles as SQL."""
    client.run(
        [
            program.program("pg_dump"),
            "--format=custom",
            "--compress=0",
            "--schema-only",
            "--no-password",
            f"--lock-wait-timeout={_LOCK_WAIT.seconds}s",
            *(f"--exclude-table={each}" for each in trial.exclude_tables),
            f"--file={archive}",
            f"--dbname={client_connection(trial.url)}",
        ],
        client_environment(trial.url),
        doing="pg_dump of the definitions",
        timeout_seconds=_SECONDS_MAX,
    )
    with connect(trial.url, purpose="doctor") as connection:
        found = globals.dump(trial.url, program, connection, lock_wait=_LOCK_WAIT)
    return found.roles_sql.decode("utf-8", "surrogateescape")
