"""Restores a set into a copy on a server: reads, makes, fills and compares it.

Restores and drills both do it by `restored`. Their `Terms` say where the copy is made,
and what happens when something is missing or fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from opskit.catalog.manifest import (
    DatabaseManifest,
    TableRecord,
    of_database,
)
from opskit.catalog.reader import SetReader, from_first_whole_copy
from opskit.catalog.sets import BackupSet
from opskit.checks import Check
from opskit.compare import contents, structure
from opskit.compare.contents import Meanwhile, RestoredCopy
from opskit.config import LoadSettings
from opskit.crypto.keys import Identities
from opskit.errors import (
    DatabaseError,
    OpskitError,
    ServerFault,
)
from opskit.log import logger
from opskit.postgres import locks
from opskit.postgres.archive import toc
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents
from opskit.postgres.connect import connect
from opskit.postgres.locks import Session
from opskit.postgres.schema import SchemaObject
from opskit.postgres.servers.programs import Installation
from opskit.postgres.snapshot import TableName
from opskit.preflight.concessions import Concessions, Failure, accept
from opskit.preflight.shortages import Shortage
from opskit.progress import bar
from opskit.restore import load, select, surroundings, unpack
from opskit.restore.fill import Filled, fill
from opskit.restore.job import FillJob, warn_of_code
from opskit.restore.make import make
from opskit.restore.surroundings import Place
from opskit.threads import Thread
from opskit.workspace import Limits

# What did not move in the last part of the time stands still. At least half of that
# part is waited for in steps: a pause of this machine, however long, takes one of them.
_FIRST_LOOK = 0.8
_APART, _STEPS = 0.1, 10
_PAUSE_SECONDS = 0.2
_STATEMENT_SHOWN = 200


class NoProgress(DatabaseError):
    """A statement stood still until the time was over: it is not a slow machine."""


class Bound:
    """The time that a run may take, from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._standing: list[Session] = []

    def passed(self) -> bool:
        """Whether it is over; nothing that fails from then on is the set's fault."""
        return not self._left_seconds(1)

    @contextmanager
    def over(self, url: str, databases: Sequence[str]) -> Iterator[None]:
        """End all sessions in some databases if the block takes too long.

        `url` leads to another database of the server.

        Raises:
            NoProgress: the time is over, and a statement made no progress.
            ServerFault: the time is over; with more of it, it might have gone well.
        """
        done = threading.Event()
        watch = Thread(self._watch, done, url, databases, name="bound")
        try:
            yield
        except OpskitError as error:
            if self.passed():
                raise self._fault() from error
            raise
        finally:
            done.set()
            watch.join()

    def _watch(self, done: threading.Event, url: str, databases: Sequence[str]) -> None:
        if done.wait(self._left_seconds(_FIRST_LOOK)):
            return
        try:
            with connect(url, purpose="bound") as connection:
                before = locks.working(connection, databases)
                if self._is_done_between(done):
                    return
                now = locks.working(connection, databases)
                self._standing = [each for each in now if each in before]
                while not done.wait(_PAUSE_SECONDS):
                    locks.end(connection, databases)
        except DatabaseError as error:
            # Each program and statement has a limit of its own as well.
            logger().warning("the time cannot be watched", failed=error.message)

    def _is_done_between(self, done: threading.Event) -> bool:
        """Wait between two looks; say whether the run has ended meanwhile."""
        for _ in range(_STEPS):
            if done.wait(self._seconds * _APART / _STEPS):
                return True
        return done.wait(self._left_seconds(1))

    def _left_seconds(self, share: float) -> float:
        return max(0.0, self._began + self._seconds * share - time.monotonic())

    def _fault(self) -> DatabaseError:
        what = f"the run took longer than {self._seconds:g} seconds and was stopped"
        if not self._standing:
            return ServerFault(
                what, hint="Raise timeout in [drill] if the machine needs longer."
            )
        statement = " ".join(self._standing[0].statement.split())[:_STATEMENT_SHOWN]
        return NoProgress(
            f"{what}; no progress in the last fifth of it",
            said=statement,
            hint="See which function of the database the statement runs; raise timeout "
            "in [drill] if it needs longer.",
        )


_TITLES = {
    "fetch": "reading the set",
    "surroundings": "making roles and tablespaces",
    "restore": "restoring",
    "compare": "comparing the copy",
}


@dataclass(frozen=True, kw_only=True)
class CopyRequest:
    """Which set is to become a copy, and how.

    Its stores are tried one after the other. With `tables`, only these are restored.
    Objects are compared `by_name` unless the set's list of them
    is of another version. Where it `compares_early`, tables are compared while others
    are still being loaded, and where it is `offline`, nothing that is loaded connects
    to foreign servers. `trust` is called where code of these roles will run with the
    rights of a superuser.
    """

    chosen: BackupSet
    run_id: str
    installations: Sequence[Installation]
    limits: Limits
    identities: Identities | None = None
    tables: tuple[tuple[str, str], ...] = ()
    loading: LoadSettings = field(default_factory=LoadSettings)
    by_name: bool = True
    compares_early: bool = False
    offline: bool = False
    trust: Callable[[Sequence[str]], None] = warn_of_code

    @property
    def manifest(self) -> DatabaseManifest:
        return of_database(self.chosen.manifest)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """The set as it was read; `objects` is how many were.

    `manifest` is the set's own, with the digests that an encrypted one hides.
    """

    manifest: DatabaseManifest
    archive: Path
    contents: Contents
    roles_sql: str
    schema: Sequence[SchemaObject]
    objects: int


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A copy with all its rows, what it lacks, and the checks that compared it."""

    place: Place
    copy: RestoredCopy
    fetched: Fetched
    concessions: Concessions
    roles_created: tuple[str, ...] = ()
    checks: Sequence[Check] = ()


class Terms:
    """Where a copy is made, and what happens when something is missing or fails."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Surround a phase: fetch, surroundings, restore, compare."""
        return nullcontext()

    def opening(self) -> AbstractContextManager[Callable[[Fetched], Place]]:
        """Open the server beside the reading; yield what waits for the place."""
        raise NotImplementedError

    def accept_shortages(self, missing: Sequence[Shortage]) -> None:
        """Raise an error unless the copy may be made without all of this."""
        raise NotImplementedError

    def accept_definitions(
        self, job: FillJob, failures: Sequence[Failure]
    ) -> Concessions:
        """Return what the copy does without, as these definitions could not be made.

        Raises an error where it may not.
        """
        raise NotImplementedError

    def accept_rows(self, copy: RestoredCopy, filled: Filled) -> None:
        """Raise an error unless the copy may lack what could not be made at the end."""
        raise NotImplementedError

    def compare_more(self, restored: Restored) -> list[Check]:
        """Compare what is not compared of every copy."""
        return []


@contextmanager
def restored(request: CopyRequest, terms: Terms, bound: Bound) -> Iterator[Restored]:
    """Yield a restored copy of a set, with the checks that compared it.

    A copy that differs is yielded as well: the caller must look at the checks.

    Raises:
        IntegrityError: the set is damaged.
        DatabaseError: the server refuses, or lacks what the set needs.
    """
    is_whole, own = not request.tables, request.loading
    with ExitStack() as stack:
        needed_bytes = request.manifest.dump_bytes
        folder = stack.enter_context(unpack.folder(request.limits, needed_bytes))
        open_place = stack.enter_context(terms.opening())
        with _phase(request, terms, "fetch"):
            fetched = _read(request, folder)
        place = open_place(fetched)
        manifest, entries = fetched.manifest, fetched.contents.entries
        wanted, tables = _wanted(request, fetched)
        lacking = surroundings.shortages(
            place, manifest.inventory, wanted, is_whole=is_whole
        )
        terms.accept_shortages(lacking)
        concessions = accept(wanted, lacking, manifest)
        stack.enter_context(bound.over(place.url_beside, [place.name, place.reference]))
        job = FillJob(
            place=place,
            manifest=manifest,
            archive=fetched.archive,
            entries=wanted,
            is_whole=is_whole,
            installations=request.installations,
            limits=request.limits,
            concessions=concessions,
            loading=own,
            trust=request.trust,
            is_over=bound.passed,
            offline=request.offline,
        )
        roles_created = _surround(request, terms, place, fetched, wanted)
        with _loading(request, terms, job):
            failures = make(job)
        concessions = terms.accept_definitions(job, failures)
        job = replace(job, concessions=concessions)
        copy = _copy(job, fetched, tables)
        early = None
        if request.compares_early:
            alone = place.is_throwaway and not (own.sql_before or own.sql_after)
            early = stack.enter_context(Meanwhile(copy, entries, alone=alone))
            job = replace(job, loaded=early.loaded)
        with _loading(request, terms, job):
            filled = fill(job)
        terms.accept_rows(copy, filled)
        made = Restored(
            place=place,
            copy=copy,
            fetched=fetched,
            concessions=replace(concessions, failures=filled.failures),
            roles_created=roles_created,
        )
        with _phase(request, terms, "compare"):
            equal = early.settle() if early else {}
            checks = [*_compare(request, made, equal), *terms.compare_more(made)]
        yield replace(made, checks=checks)


def _copy(
    job: FillJob, fetched: Fetched, tables: Sequence[TableRecord]
) -> RestoredCopy:
    concessions, entries = job.concessions, fetched.contents.entries
    # Single tables bring their own sequences; those are set by pg_restore.
    sequences = job.manifest.sequences if job.is_whole else ()
    return RestoredCopy(
        url=job.url,
        manifest=job.manifest,
        schema=fetched.schema,
        limits=job.limits,
        tables=concessions.kept(tables, "TABLE DATA", entries),
        sequences=concessions.kept(sequences, "SEQUENCE SET", entries),
    )


@contextmanager
def _loading(request: CopyRequest, terms: Terms, job: FillJob) -> Iterator[None]:
    with (
        _phase(request, terms, "restore"),
        surroundings.owners_raised(job.place, job.entries),
    ):
        yield


@contextmanager
def _phase(request: CopyRequest, terms: Terms, name: str) -> Iterator[None]:
    manifest = request.manifest
    totals = {"fetch": manifest.size_bytes}
    if not request.tables:
        totals["compare"] = manifest.dump_bytes
    with terms.phase(name), bar(_TITLES[name], totals.get(name)):
        yield


def _read(request: CopyRequest, folder: Path) -> Fetched:
    """Unpack the dump from the first store whose copy is whole, and read the rest."""
    manifest, archive = request.manifest, folder / "dump.pgdump"

    def read(reader: SetReader) -> Fetched:
        logger().info("reading", backup_id=manifest.backup_id, store=reader.store.name)
        unpack.unpack_dump(reader, archive)
        return Fetched(
            manifest=of_database(reader.opened()),
            archive=archive,
            contents=toc.read(archive),
            roles_sql=reader.read_text("roles"),
            schema=reader.read_schema() if request.by_name else (),
            objects=len(manifest.dump_bytes_of) + reader.read_others(),
        )

    return from_first_whole_copy(request.chosen, request.identities, read)


def _wanted(
    request: CopyRequest, fetched: Fetched
) -> tuple[Sequence[TocEntry], Sequence[TableRecord]]:
    entries, tables = fetched.contents.entries, fetched.manifest.tables
    if not request.tables:
        return entries, tables
    wanted, names = select.entries_for(entries, request.tables)
    return wanted, [e for e in tables if (e.schema_name, e.name) in names]


def _surround(
    request: CopyRequest,
    terms: Terms,
    place: Place,
    fetched: Fetched,
    entries: Sequence[TocEntry],
) -> tuple[str, ...]:
    """Make roles and tablespaces; return the roles made on a server that stays."""
    manifest, roles_sql = fetched.manifest, fetched.roles_sql
    # Missing programs are this machine's fault: that is known before anything is made.
    load.choose_program(
        request.installations,
        client_major=manifest.client_major,
        server_major=place.major,
    )
    inventory = manifest.inventory
    if place.is_throwaway:
        with _phase(request, terms, "surroundings"):
            surroundings.make_surroundings(place, roles_sql, inventory.tablespaces)
    elif place.creates_roles:
        return surroundings.create_roles(
            place.connection,
            roles_sql,
            inventory,
            entries,
            is_whole=not request.tables,
        )
    return ()


def _compare(
    request: CopyRequest, made: Restored, equal: Mapping[TableName, Check]
) -> list[Check]:
    """Compare the copy with the record of its set.

    `equal` are the tables that were compared while the others were being loaded.
    """
    copy, entries = made.copy, made.fetched.contents.entries
    if request.tables:
        return contents.compare_load(copy, equal)
    return [
        *structure.compare_with_archive(copy.manifest, entries),
        *contents.compare_load(copy, equal),
        contents.compare_large_objects(copy),
        *structure.compare_structure(
            copy, made.concessions, entries, by_name=request.by_name
        ),
    ]
