"""Compares tables while the rest is still being loaded, each once its rows are in."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.compare.contents import RestoredCopy, unit_name, units_of
from opskit.errors import DatabaseError, Interrupted, ServerFault
from opskit.postgres import content
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import Connection, translated
from opskit.threads import Thread

_Look = Callable[[Connection], "list[_Equal]"]
# Functions of PostgreSQL that run statements which they are given as text.
_RUNS_TEXT = re.compile(r"_to_xml|\bts_stat\b|\bts_rewrite\b")


@dataclass(frozen=True)
class _Equal:
    """Tables that were equal, and which transaction had written each before."""

    tables: Sequence[TableRecord]
    writers: Sequence[str]
    check: Check
    is_early: bool

    def still_holds(self, connection: Connection) -> bool:
        """Return whether nobody has written into the tables since."""
        with translated(self.check.name):
            return all(
                content.is_as_written(
                    connection,
                    each.schema_name,
                    each.name,
                    each.columns,
                    rows=each.rows,
                    by=by,
                )
                for each, by in zip(self.tables, self.writers, strict=True)
            )


@contextmanager
def _left_for_later() -> Iterator[None]:
    """Leave a table that cannot be read to the comparison after the load."""
    try:
        yield
    except ServerFault:
        raise
    except DatabaseError:
        return


class Meanwhile:
    """Reads tables as they are announced; leaving the block ends that.

    Only what is equal counts, and is still as it was read when the load has ended: a
    function that runs in the load may write into any table, and so may others where it
    is not `alone`. Whatever differs, could not be read yet or was changed is left to
    the comparison that follows the load, and so is what nobody announced.
    """

    def __init__(
        self, copy: RestoredCopy, entries: Sequence[TocEntry], *, alone: bool
    ) -> None:
        self._copy = copy
        self._alone = alone and not any(
            _RUNS_TEXT.search(entry.definition) for entry in entries
        )
        self._equal: list[_Equal] = []
        self._todo: SimpleQueue[_Look | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._has_ended = threading.Event()
        self._stopped = threading.Event()
        data = {
            (e.schema, e.name): e.dump_id for e in entries if e.kind == "TABLE DATA"
        }
        self._missing: list[tuple[Sequence[TableRecord], set[int]]] = []
        self._unit_of: dict[int, int] = {}
        for unit in units_of(copy.tables):
            numbers = {data.get((each.schema_name, each.name), 0) for each in unit}
            # Where a condition chooses rows, others may be changed.
            if 0 not in numbers and not any(each.condition for each in unit):
                self._unit_of |= dict.fromkeys(numbers, len(self._missing))
                self._missing.append((unit, numbers))

    def __enter__(self) -> Meanwhile:
        # Whatever it reads now, the load must go without: half of the jobs at most.
        self._start(max(1, self._copy.limits.jobs // 2))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._join()

    def loaded(self, dump_id: int) -> None:
        """Note that an entry of the archive has been loaded; never waits."""
        number = self._unit_of.pop(dump_id, None)
        if number is not None:
            unit, missing = self._missing[number]
            missing.discard(dump_id)
            if not missing:
                self._todo.put(partial(self._read, unit))

    def settle(self) -> Mapping[str, Check]:
        """Finish what was announced, once the load has ended.

        Returns the passed checks of the tables that are as they were read, by their
        names.
        """
        self._has_ended.set()
        self._finish()
        early = [each for each in self._equal if each.is_early]
        if early and not self._nobody_wrote():
            self._equal = [each for each in self._equal if not each.is_early]
            for each in early:
                self._todo.put(partial(self._look_again, each))
            self._finish()
        return {each.check.name: each.check for each in self._equal}

    def _nobody_wrote(self) -> bool:
        """Return whether nothing can have written into a table that was loaded."""
        if not self._alone:
            return False
        with self._copy.connect() as connection:
            return not content.runs_own_code(connection)

    def _finish(self) -> None:
        """Do all that is to do, with as many threads as there are jobs."""
        self._start(self._copy.limits.jobs - len(self._threads))
        self._join()

    def _start(self, number: int) -> None:
        for _ in range(number):
            self._threads.append(Thread(self._work, name="compare"))

    def _join(self) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        look = self._todo.get()
        if look is None:
            return
        equal = []
        try:
            with self._copy.connect() as connection:
                encoding = self._copy.manifest.inventory.encoding
                content.use_encoding(connection, encoding)
                while look is not None:
                    self._alive()
                    with _left_for_later():
                        equal += look(connection)
                    look = self._todo.get()
                # A copy that was dropped, to be made anew, has ended this session.
                connection.execute("SELECT")
        except (DatabaseError, Interrupted):
            # The comparison after the load meets the same, and says so.
            return
        self._equal += equal

    def _read(
        self, unit: Sequence[TableRecord], connection: Connection
    ) -> list[_Equal]:
        is_early = not self._has_ended.is_set()
        with translated(unit_name(unit)):
            writers = [
                content.writer(connection, each.schema_name, each.name) for each in unit
            ]
        check, _was_read = contents.check_tables(connection, unit, self._alive)
        return [_Equal(unit, writers, check, is_early)] if check.passed else []

    def _look_again(self, equal: _Equal, connection: Connection) -> list[_Equal]:
        return [equal] if equal.still_holds(connection) else []

    def _alive(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the comparison was interrupted")
