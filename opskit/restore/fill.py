"""Fills what was made of an archive: its rows, and what comes after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from opskit.errors import DatabaseError, ServerFault
from opskit.log import logger
from opskit.postgres import database, extensions, scratch, survey
from opskit.postgres.archive.toc import (
    not_validated,
    of_kind,
    with_dependents,
)
from opskit.postgres.connect import connect, statements_by_role
from opskit.postgres.database import RowCheck
from opskit.preflight.concessions import Failure
from opskit.progress import measured
from opskit.restore import load
from opskit.restore.job import (
    FillJob,
    Rights,
    choose,
)
from opskit.restore.make import Steps, failure, load_again, make, run_all

_WITH_ROW_CHECKS = ("TABLE", "FOREIGN TABLE", "DOMAIN")


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A copy with all its rows, and the entries after the data that it lacks."""

    url: str = field(repr=False)
    words: str
    failures: tuple[Failure, ...]


def fill(job: FillJob) -> Filled:
    """Load all rows into what `make` made, and after them as much as can be made.

    What fails with parallel jobs may be a matter of their timing, and a CHECK may
    refuse rows that were there: it is tried once more with one job, and with all checks
    put back after the rows. What rows break then is a failure of the constraint.

    Raises:
        ServerFault: the server or a machine failed.
        DatabaseError: the server or pg_restore refuses rows.
    """
    try:
        return _fill(job)
    except ServerFault:
        raise
    except DatabaseError as error:
        if job.is_over():
            raise
        logger().warning(
            "loading once more with one job, checks after rows", failed=error.message
        )
        _make_again(job)
    return _fill(job.as_last_try())


def _make_again(job: FillJob) -> None:
    place = job.place
    scratch.drop_made(
        place.connection, place.server_url, place.name, run_id=place.run_id
    )
    make(job)


def _fill(job: FillJob) -> Filled:
    url, place = job.url, job.place
    size_bytes = job.manifest.inventory.size_bytes if job.is_whole else None
    given = _rights(job, url)
    handlers = _disconnected(given, job)
    with measured(
        "loading", size_bytes, lambda: database.size_bytes(place.connection, place.name)
    ):
        loaded = _load(given, job)
    failures = _put_back(given, job, loaded.taken)
    failures += load_again(given, job, loaded.failed)
    job.require_time()
    if handlers:
        with connect(url, purpose="restore") as copy:
            extensions.connect_again(copy, handlers)
    run_all(url, job.loading.sql_after, job.limits.seconds)
    if job.is_whole:
        failures += _set_properties(job)
    failures += [
        Failure(entry=entry, error="", is_outside=True)
        for entry in job.concessions.entries(job.entries)
        if entry.dump_id in job.outside
    ]
    return Filled(url=url, words=loaded.words, failures=tuple(failures))


def _rights(job: FillJob, url: str) -> Rights:
    ourselves = Rights(
        url=url,
        connection=job.place.connection,
        login_url=job.plain_url,
        settings=job.silencing(),
    )
    return choose(ourselves, job.concessions.entries(job.entries), job.trust)


def _put_back(given: Rights, job: FillJob, taken: Sequence[RowCheck]) -> list[Failure]:
    made_with = {
        (e.schema, e.name): e for e in job.entries if e.kind in _WITH_ROW_CHECKS
    }
    failures = []
    for each in taken:
        entry = replace(
            made_with[each.schema, each.of],
            kind="CHECK CONSTRAINT",
            name=f"{each.of} {each.name}",
        )
        with given.by(entry) as url:
            error = load.make(
                url,
                entry,
                each.statement.encode(),
                encoding="UTF8",
                timeout_seconds=job.limits.seconds,
            )
        if error is not None:
            heirs = frozenset(made_with[heir].dump_id for heir in each.heirs)
            failures.append(replace(failure(entry, error), also=heirs))
    return failures


def _set_properties(job: FillJob) -> list[Failure]:
    failures, place = [], job.place
    for entry in job.entries:
        script = database.property_script(
            [entry],
            job.manifest.inventory.database,
            place.name,
            without_settings=job.concessions.subjects("setting"),
            without_roles=job.concessions.subjects("role"),
            with_grants=not job.concessions.without_owners,
        )
        error = load.make_each(
            entry,
            statements_by_role(script),
            lambda each: scratch.run_about(
                place.connection, place.name, each, run_id=place.run_id
            ),
        )
        if error is not None:
            failures.append(failure(entry, error))
    return failures


def _disconnected(given: Rights, job: FillJob) -> extensions.Handlers:
    """Put foreign servers out of reach; return the handlers to be given back."""
    if not (job.offline and survey.is_superuser(given.connection)):
        return {}
    with connect(given.url, purpose="restore") as copy:
        return extensions.disconnect(copy)


def _load(given: Rights, job: FillJob) -> Steps:
    """Load the rows, and in steps what comes after them or last of all."""
    loaded = Steps(given, job)
    kept = loaded.kept
    # Event triggers act on what is restored after them, some for replicas too, and
    # before PostgreSQL 17 nothing else turns them off. A function that runs in the load
    # may count a sequence on, whose value depends on no rows.
    waiting = not_validated(kept) | of_kind(kept, "EVENT TRIGGER", "SEQUENCE SET")
    last = with_dependents(kept, waiting)
    if job.last_try:
        with connect(given.url, purpose="restore") as inside:
            loaded.taken = database.take_off_checks(inside)
    rows = {e.dump_id: (e.schema, e.name) for e in kept if e.kind == "TABLE DATA"}
    tables = job.manifest.tables
    configuration = {(e.schema_name, e.name) for e in tables if e.extension}
    # A type of an extension may read it for each value of another table.
    loaded.step({each for each, name in rows.items() if name in configuration})
    if given.login_url or job.last_try:
        with given.for_rows() as rows_url:
            loaded.step(loaded.left & rows.keys(), rows_url)
    loaded.step(loaded.left - last)
    for entry in filter(given.checks, kept):
        with given.by(entry) as url:
            loaded.step({entry.dump_id}, url)
    loaded.step(last & loaded.left)
    return loaded
