"""Loads some entries of an archive after others, and those that fail once more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from opskit.errors import DatabaseError, ServerFault
from opskit.postgres import database
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import connect, limit_statements, server_major
from opskit.postgres.row_checks import RowCheck
from opskit.postgres.sessions import OWN_STATEMENTS
from opskit.preflight.concessions import Failure
from opskit.restore import again, load, verdict
from opskit.restore.fill_job import FillJob
from opskit.restore.rights import Rights

# Of a wrapper without its handler, and of a view that was not filled for want of one.
_NO_HANDLER_OR_ROWS = "55000"
# Of a library or another file that is not there.
UNDEFINED_FILE = "58P01"
HOW_TO_READ = ("ENCODING", "STDSTRINGS", "SEARCHPATH")


class Steps:
    """What was loaded step by step: what pg_restore said, and what is still to do.

    `failed` are entries after the data, `taken` constraints to be put back.
    """

    def __init__(self, given: Rights, job: FillJob) -> None:
        self.failed: set[int] = set()
        self.taken: list[RowCheck] = []
        self.kept = [
            each
            for each in job.concessions.entries(job.entries)
            if each.dump_id not in job.outside
        ]
        self.left = {
            e.dump_id
            for e in self.kept
            if not e.before_data and e.kind not in HOW_TO_READ
        }
        self._words: list[str] = []
        self._given, self._job = given, job

    @property
    def words(self) -> str:
        """What pg_restore said in all steps."""
        return "\n".join(filter(None, self._words))

    def step(self, wanted: Collection[int], url: str = "") -> None:
        """Load these entries, if there are any, and what tells how to read them."""
        if not wanted:
            return
        entries = [e for e in self.kept if e.kind in HOW_TO_READ or e.dump_id in wanted]
        load_job = _load_job(self._given, self._job, entries)
        load_job = replace(load_job, url=url or self._given.url)
        try:
            said, failed = load.load(load_job)
        except ServerFault:
            raise
        except DatabaseError as error:
            if not self._job.last_try or self._job.is_over():
                raise
            raise verdict.judged(self._given.connection, load_job, error) from error
        self._words.append(said)
        self.failed.update(failed)
        self.left.difference_update(wanted)


def load_again(given: Rights, job: FillJob, failed: Collection[int]) -> list[Failure]:
    """Try entries once more, each by itself, now that all others are there."""
    head = [entry for entry in job.entries if entry.kind in HOW_TO_READ]
    inventory = job.manifest.inventory
    failures = []
    for entry in again.in_order(each for each in job.entries if each.dump_id in failed):
        script = load.script(_load_job(given, job, [*head, entry]))
        try:
            with given.by(entry) as url:
                error = again.make(
                    url,
                    entry,
                    again.with_search_path(script, head, inventory),
                    encoding=inventory["encoding"],
                    timeout_seconds=job.timeout_seconds,
                )
        except ServerFault as fault:
            if not (entry.before_data and fault.sqlstate == UNDEFINED_FILE):
                raise
            error = fault
        if error is not None:
            is_outside = (
                job.offline
                and entry.kind == "MATERIALIZED VIEW DATA"
                and error.sqlstate == _NO_HANDLER_OR_ROWS
            )
            failures.append(failure(entry, error, is_outside=is_outside))
    return failures


def failure(
    entry: TocEntry, error: DatabaseError, *, is_outside: bool = False
) -> Failure:
    return Failure(
        entry=entry,
        error=error.message,
        sqlstate=error.sqlstate,
        is_outside=is_outside,
    )


def _load_job(given: Rights, job: FillJob, entries: Iterable[TocEntry]) -> load.LoadJob:
    use_list = job.archive.with_name("entries.list")
    use_list.write_text("".join(f"{entry.dump_id};\n" for entry in entries))
    return load.LoadJob(
        archive=job.archive,
        url=given.url,
        installation=load.choose_program(
            job.installations,
            client_major=job.manifest.client_major,
            server_major=server_major(given.connection),
        ),
        jobs=job.jobs,
        timeout_seconds=job.timeout_seconds,
        use_list=use_list,
        no_tablespaces=job.concessions.without_tablespaces,
        no_owners=job.concessions.without_owners,
        finished=job.loaded,
        may_fail=frozenset(
            e.dump_id for e in job.entries if e.before_data or e.after_data
        ),
    )


def run_all(url: str, statements: Sequence[str], timeout_seconds: float) -> None:
    if statements:
        with connect(url, purpose=OWN_STATEMENTS) as connection:
            limit_statements(connection, timeout_seconds)
            connection.execute("RESET search_path")
            for statement in statements:
                database.run_script(connection, statement)
