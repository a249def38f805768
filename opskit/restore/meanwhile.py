"""Compares tables while the rest is still being loaded, each once its rows are in."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from queue import SimpleQueue
from types import TracebackType

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.errors import DatabaseError, Interrupted
from opskit.postgres import content
from opskit.postgres.toc_entry import TocEntry
from opskit.restore import compare
from opskit.restore.compare import RestoredCopy
from opskit.restore.units import units_of


def rows_hold_still(entries: Sequence[TocEntry], sql_after: Sequence[str]) -> bool:
    """Return whether a table that was loaded stays as it is to the end of the load.

    Statements of the user's, and functions that run where a materialized view is
    filled, may change rows; then everything is read when all of them are through.
    """
    fills = any(entry.kind == "MATERIALIZED VIEW DATA" for entry in entries)
    return not sql_after and not fills


class Meanwhile:
    """Reads tables as they are announced; leaving the block ends that.

    Only what is equal counts. Whatever differs, or could not be read yet, is left to
    the comparison that follows the load, and so is what nobody announced.
    """

    def __init__(self, copy: RestoredCopy, entries: Iterable[TocEntry]) -> None:
        self._copy = copy
        self._equal: dict[str, Check] = {}
        self._todo: SimpleQueue[Sequence[TableRecord] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        data = {
            (e.schema, e.name): e.dump_id for e in entries if e.kind == "TABLE DATA"
        }
        self._missing: list[tuple[Sequence[TableRecord], set[int]]] = []
        self._unit_of: dict[int, int] = {}
        for unit in units_of(copy.tables):
            numbers = {data.get((each.schema_name, each.name), 0) for each in unit}
            if 0 not in numbers:
                self._unit_of |= dict.fromkeys(numbers, len(self._missing))
                self._missing.append((unit, numbers))

    def __enter__(self) -> Meanwhile:
        # Whatever it reads now, the load must go without: half of the jobs at most.
        self._start(max(1, self._copy.jobs // 2))
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
        """Take notice that an entry of the archive has been loaded; never waits."""
        number = self._unit_of.pop(dump_id, None)
        if number is not None:
            unit, missing = self._missing[number]
            missing.discard(dump_id)
            if not missing:
                self._todo.put(unit)

    def settle(self) -> Mapping[str, Check]:
        """Finish what was announced; return the passed checks by their names."""
        self._start(self._copy.jobs - len(self._threads))
        self._join()
        return self._equal

    def _start(self, number: int) -> None:
        for _ in range(number):
            thread = threading.Thread(target=self._work, name="compare", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _join(self) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        unit = self._todo.get()
        if unit is None:
            return
        try:
            with self._copy.connect() as connection:
                encoding = self._copy.manifest.inventory["encoding"]
                content.use_encoding(connection, encoding)
                while unit is not None:
                    self._alive()
                    check, _ = compare.check_tables(connection, unit, self._alive)
                    if check.passed:
                        self._equal[check.name] = check
                    unit = self._todo.get()
        except (DatabaseError, Interrupted):
            # The comparison after the load meets the same, and says so.
            return

    def _alive(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the comparison was interrupted")
