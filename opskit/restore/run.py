"""Restores a set into a real server: beside, compared, then given its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from shlex import quote

from opskit.catalog.manifest import TableRecord
from opskit.catalog.reader import SetReader
from opskit.catalog.sets import BackupSet
from opskit.checks import Check, count
from opskit.compare import contents, structure
from opskit.crypto.keys import Identities
from opskit.errors import IntegrityError, StoreError, UsageError
from opskit.log import logger
from opskit.postgres import database, schema
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, with_database
from opskit.postgres.servers.programs import Installation
from opskit.preflight.concessions import Concessions, Failure
from opskit.progress import bar
from opskit.restore import beside as restore_beside
from opskit.restore import select, unpack
from opskit.restore.beside import swap
from opskit.restore.fill import fill
from opskit.restore.job import FillJob
from opskit.restore.make import make
from opskit.restore.rights import Bound, warn_of_code
from opskit.restore.unpack import unpack_dump

_FAILURES_SHOWN = 5
_NEVER_REPLACED = ("postgres", "template0", "template1")


@dataclass(frozen=True, kw_only=True)
class RestoreRequest:
    """What to restore where. `server_url` leads to any database of the server.

    `settings` are those of the sessions that load, `sql_before` and `sql_after` the
    user's own statements. `accepted` names what the copy may lack, `command` is how the
    user called this.
    """

    chosen: BackupSet
    server_url: str = field(repr=False)
    target: str
    run_id: str
    tables: tuple[tuple[str, str], ...] = ()
    replace: bool = False
    installations: Sequence[Installation]
    jobs: int
    timeout_seconds: float
    work_dir: Path | None = None
    identities: Identities | None = None
    accepted: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    sql_before: Sequence[str] = ()
    sql_after: Sequence[str] = ()
    command: str = ""
    trust: Callable[[Sequence[str]], None] = warn_of_code


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
    bound = Bound(request.timeout_seconds)
    with database.maintenance(request.server_url) as connection:
        require_target(connection, request)
        restore_beside.sweep(connection, request.server_url, request.target)
        restore_beside.require_able(
            connection,
            request.chosen.manifest.inventory,
            request.target,
            is_whole=not request.tables,
            accepted=request.accepted,
        )
        with unpack.folder(request.work_dir) as folder:
            archive, reader = _unpack(request, folder)
            chosen = replace(request.chosen, manifest=reader.manifest)
            request = replace(request, chosen=chosen)
            entries = toc.read(archive).entries
            wanted = _wanted(request, entries)
            concessions = restore_beside.require_surroundings(
                connection,
                request.chosen.manifest,
                wanted,
                is_whole=not request.tables,
                accepted=request.accepted,
            )
            roles = restore_beside.create_roles(
                connection, reader, wanted, is_whole=not request.tables
            )
            with (
                restore_beside.beside(
                    connection, request.server_url, request.target
                ) as beside,
                bound.over(
                    with_database(request.server_url, connection.info.dbname), [beside]
                ),
            ):
                job = _fill_job(request, beside, archive, wanted, concessions)
                job = replace(job, is_over=bound.passed)
                concessions, checks = _made(connection, request, job, reader, entries)
                replaced = swap(
                    connection,
                    server_url=request.server_url,
                    beside=beside,
                    target=request.target,
                    run_id=request.run_id,
                    clock=clock,
                )
    copied = _selected(request, entries)
    return RestoreResult(
        target=request.target,
        replaced=replaced,
        tables=len(copied),
        rows=sum(each.rows for each in copied),
        checks=tuple(checks),
        roles_created=roles,
        without=tuple(concessions.names),
    )


def _made(
    connection: Connection,
    request: RestoreRequest,
    job: FillJob,
    reader: SetReader,
    entries: Sequence[TocEntry],
) -> tuple[Concessions, list[Check]]:
    """Make the copy, load it and compare it; return what it lacks, and the checks."""
    concessions = restore_beside.require_definitions(
        job, make(connection, job), request.accepted
    )
    filled = fill(connection, replace(job, concessions=concessions))
    concessions = _with_failures(request, concessions, filled.failures)
    return concessions, _compare(request, filled.url, reader, entries, concessions)


def _with_failures(
    request: RestoreRequest, concessions: Concessions, failures: Sequence[Failure]
) -> Concessions:
    """Accept what the user accepts.

    Raises:
        IntegrityError: an entry after the data failed, and nobody accepted that.
    """
    refused = [each for each in failures if each.name not in request.accepted]
    for each in failures:
        logger().warning(
            "an entry could not be made", name=each.name, reason=each.error
        )
    if refused:
        names = dict.fromkeys([*request.accepted, *(each.name for each in refused)])
        flags = " ".join(f"--accept-failures {quote(name)}" for name in names)
        # By name alone: the server's words may hold rows, and this goes on record.
        raise IntegrityError(
            "all rows were loaded, but "
            f"{count(len(refused), 'entry', 'entries')} after them could not be made: "
            f"{'; '.join(each.name for each in refused[:_FAILURES_SHOWN])}",
            hint="The copy was dropped and nothing was replaced. To keep it without "
            f"them: `{request.command} {flags}`",
            details={"failures": [each.as_json() for each in failures]},
        )
    return replace(concessions, failures=tuple(failures))


def require_target(connection: Connection, request: RestoreRequest) -> bool:
    """Return whether the target holds anything; refuse what must not be replaced.

    Raises:
        UsageError: see `restore`.
    """
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
    occupied = restore_beside.occupied(connection, request.server_url, request.target)
    if occupied and not request.replace:
        raise UsageError(
            f"the database {request.target} exists and is not empty",
            hint="Restore to another name, or add --replace: it restores beside, "
            "compares, swaps the names and keeps the old database.",
        )
    return occupied


def _unpack(request: RestoreRequest, folder: Path) -> tuple[Path, SetReader]:
    """Unpack the dump from the first store whose copy is whole; return its reader.

    The reader's manifest holds what that of an encrypted set seals.
    """
    manifest = request.chosen.manifest
    unpack.require_space(folder, manifest.dump_bytes)
    archive = folder / "dump.pgdump"
    *others, last = request.chosen.stores
    for store in (*others, last):
        logger().info("reading", backup_id=manifest.backup_id, store=store.name)
        reader = SetReader(
            manifest=manifest, store=store, identities=request.identities
        )
        reader.require_identities()
        try:
            with bar("reading the set", manifest.size_bytes):
                unpack_dump(reader, archive)
                reader.read_others()
            reader = replace(reader, manifest=reader.opened())
        except (IntegrityError, StoreError) as error:
            if store is last:
                raise
            logger().error("trying the next store", failed=error.message)
        else:
            break
    return archive, reader


def _fill_job(
    request: RestoreRequest,
    name: str,
    archive: Path,
    entries: Sequence[TocEntry],
    concessions: Concessions,
) -> FillJob:
    return FillJob(
        server_url=request.server_url,
        name=name,
        manifest=request.chosen.manifest,
        archive=archive,
        entries=entries,
        is_whole=not request.tables,
        installations=request.installations,
        jobs=request.jobs,
        timeout_seconds=request.timeout_seconds,
        concessions=concessions,
        settings=request.settings,
        sql_before=request.sql_before,
        sql_after=request.sql_after,
        run_id=request.run_id,
        trust=request.trust,
    )


def _compare(
    request: RestoreRequest,
    url: str,
    reader: SetReader,
    entries: Sequence[TocEntry],
    concessions: Concessions,
) -> list[Check]:
    manifest = request.chosen.manifest
    tables = concessions.kept(_selected(request, entries), "TABLE DATA", entries)
    by_name = manifest.schema_format == schema.FORMAT
    if not by_name:
        # Nobody is kept from the data by that.
        logger().warning(
            "objects are not compared by name and state: another version of opskit "
            "wrote the list",
            tool_version=manifest.tool_version,
        )
    copy = contents.RestoredCopy(
        url=url,
        manifest=manifest,
        schema=reader.read_schema() if by_name else (),
        jobs=request.jobs,
        tables=tables,
        # Single tables bring their own sequences only; those are set by pg_restore.
        sequences=()
        if request.tables
        else concessions.kept(manifest.sequences, "SEQUENCE SET", entries),
        timeout_seconds=request.timeout_seconds,
    )
    with bar("comparing the copy", manifest.dump_bytes if not request.tables else None):
        checks = contents.compare_load(copy)
    if not request.tables:
        checks += [
            *contents.compare_with_archive(manifest, entries),
            contents.compare_large_objects(copy),
            *structure.compare_structure(copy, concessions, entries, by_name=by_name),
        ]
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
    return checks


def _wanted(request: RestoreRequest, entries: Sequence[TocEntry]) -> Sequence[TocEntry]:
    if not request.tables:
        return entries
    wanted, _names = select.entries_for(entries, request.tables)
    return wanted


def _selected(
    request: RestoreRequest, entries: Sequence[TocEntry]
) -> tuple[TableRecord, ...]:
    tables = request.chosen.manifest.tables
    if not request.tables:
        return tables
    _entries, names = select.entries_for(entries, request.tables)
    return tuple(each for each in tables if (each.schema_name, each.name) in names)
