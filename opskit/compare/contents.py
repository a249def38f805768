"""Compares a restored copy with its manifest: exactly, and saying what differs.

`Meanwhile` does so while the rest is still being loaded, each table once it is in.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import NamedTuple

from opskit.catalog.manifest import (
    DatabaseManifest,
    LargeObjectsRecord,
    SequenceRecord,
    TableRecord,
)
from opskit.checks import Check, compare
from opskit.errors import DatabaseError, Interrupted, ServerFault
from opskit.postgres import content
from opskit.postgres.archive.digest import ContentDigest, total
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import (
    Connection,
    connect,
    limit_statements,
    translated,
)
from opskit.postgres.schema import SchemaObject
from opskit.postgres.snapshot import TableName
from opskit.threads import Pool, Thread
from opskit.workspace import Limits


def units_of(tables: Iterable[TableRecord]) -> list[Sequence[TableRecord]]:
    """Return what is compared at once: a table, or the partitions below one root.

    Rows that were loaded through the root may have come to another partition, as the
    hash of an enum differs from one server to the next; taken together they are equal.
    """
    units: dict[TableName, list[TableRecord]] = {}
    for table in tables:
        units.setdefault(unit_of(table), []).append(table)
    return list(units.values())


def unit_of(table: TableRecord) -> TableName:
    """Return what the table is compared with: itself, or the root above it."""
    return table.via_root or (table.schema_name, table.name)


def unit_name(tables: Sequence[TableRecord]) -> str:
    """Return the name of the check that a unit gets."""
    kind = "table" if tables[0].via_root is None else "partitions below"
    return f"{kind} {'.'.join(unit_of(tables[0]))}"


@dataclass(frozen=True, kw_only=True)
class RestoredCopy:
    """Where the copy is, and what it must be equal to."""

    url: str
    manifest: DatabaseManifest
    schema: Sequence[SchemaObject]
    limits: Limits
    tables: Sequence[TableRecord]
    sequences: Sequence[SequenceRecord]

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection to the copy whose statements are bounded."""
        with connect(self.url, purpose="compare") as connection:
            limit_statements(connection, self.limits.seconds)
            yield connection


def compare_contents(
    copy: RestoredCopy, equal: Mapping[TableName, Check] = MappingProxyType({})
) -> list[Check]:
    """Compare every table, sequence and large object; one check each.

    `equal` holds the checks that units have passed already, as `unit_of` names them.
    """
    tables = _compare_tables(copy, equal)
    with copy.connect() as connection:
        sequences = [check_sequence(connection, record) for record in copy.sequences]
    return [
        _tables_compared(copy, sum(tables_read for _check, tables_read in tables)),
        *(check for check, _tables_read in tables),
        *sequences,
    ]


def compare_load(
    copy: RestoredCopy, equal: Mapping[TableName, Check] = MappingProxyType({})
) -> list[Check]:
    """Compare as `compare_contents`, right after the load: nobody else wrote rows.

    The server's counters say so, which later transactions move also if they are
    rolled back.
    """
    checks = compare_contents(copy, equal)
    with copy.connect() as connection:
        inserted = content.rows_inserted(connection)
    # By their places: two tables may have names that read alike.
    loaded = [(), *units_of(copy.tables), *[()] * len(copy.sequences)]
    return [
        _loaded_alone(check, tables, inserted)
        for check, tables in zip(checks, loaded, strict=True)
    ]


def _loaded_alone(
    check: Check,
    tables: Sequence[TableRecord],
    inserted: Mapping[tuple[str, str], int],
) -> Check:
    """Return the check, failed if others than the load wrote into the tables.

    Where parallel jobs load, it is a matter of time whether such rows stay: pg_restore
    empties a table before it loads it.
    """
    rows = sum(each.rows for each in tables)
    counted = sum(inserted.get((each.schema_name, each.name), 0) for each in tables)
    if not check.passed or counted <= rows or any(each.extension for each in tables):
        return check
    detail = (
        f"{counted - rows} more rows were inserted during the load than the dump "
        "holds: a function of the database writes into it"
    )
    return replace(check, passed=False, detail=detail)


def _tables_compared(copy: RestoredCopy, tables_read: int) -> Check:
    rows, name = sum(table.rows for table in copy.tables), "tables compared"
    if not copy.manifest.tables:
        detail = "the manifest lists no table: the source had none"
    elif copy.tables:
        detail = f"{rows} rows by the manifest"
    else:
        some = f"some of {len(copy.manifest.tables)}"
        return compare(name, some, 0, "every table was left out: that proves nothing")
    return compare(name, len(copy.tables), tables_read, detail)


def compare_large_objects(copy: RestoredCopy) -> Check:
    with copy.connect() as connection:
        return check_large_objects(connection, copy.manifest.large_objects)


def check_large_objects(connection: Connection, expected: LargeObjectsRecord) -> Check:
    """Compare all large objects as the session sees them."""
    return compare(
        "large objects",
        *(
            f"{each.count} objects, {each.size_bytes} bytes, digest {each.digest}"
            for each in (expected, content.large_objects_digest(connection))
        ),
    )


def _compare_tables(
    copy: RestoredCopy, equal: Mapping[TableName, Check]
) -> list[tuple[Check, int]]:
    """Digest the tables on several connections at once, the result in their order.

    With each check comes how many tables were read for it.
    """
    units = units_of(copy.tables)
    results = {
        number: (equal[unit_of(unit[0])], len(unit))
        for number, unit in enumerate(units)
        if unit_of(unit[0]) in equal
    }
    left = SimpleQueue[int]()
    for number in range(len(units)):
        if number not in results:
            left.put(number)
    stopped = threading.Event()

    def work() -> None:
        with copy.connect() as connection:
            content.use_encoding(connection, copy.manifest.inventory.encoding)
            while True:
                require_going(stopped)
                try:
                    number = left.get_nowait()
                except Empty:
                    return
                check, was_read = check_tables(
                    connection, units[number], lambda: require_going(stopped)
                )
                results[number] = check, len(units[number]) if was_read else 0

    workers = min(copy.limits.jobs, left.qsize())
    with Pool(max(1, workers)) as pool:
        try:
            for done in [pool.submit(work) for _ in range(workers)]:
                done.result()
        except BaseException:
            stopped.set()  # the other threads end at their next look
            raise
    return [results[number] for number in range(len(units))]


def require_going(stopped: threading.Event) -> None:
    """Raise Interrupted once a comparison is to end."""
    if stopped.is_set():
        raise Interrupted("the comparison was interrupted")


def check_tables(
    connection: Connection,
    tables: Sequence[TableRecord],
    alive: Callable[[], None] = lambda: None,
) -> tuple[Check, bool]:
    """Compare one table, or several taken together, as the session sees them.

    The second value says whether they could be read at all.
    """
    name = unit_name(tables)
    recorded = total(
        ContentDigest(rows=each.rows, digest=each.digest) for each in tables
    )
    expected = f"{recorded.rows} rows, digest {recorded.digest}"
    try:
        with translated(name):
            observed = total(
                content.table_digest(
                    connection,
                    each.schema_name,
                    each.name,
                    each.columns,
                    condition=each.condition,
                    alive=alive,
                )
                for each in tables
            )
    except ServerFault:
        raise
    except DatabaseError as error:
        return _unreadable(name, expected, error), False
    difference = ""
    if observed.rows != recorded.rows:
        difference = f"{observed.rows - recorded.rows:+d} rows"
    elif observed.digest != recorded.digest:
        difference = "the same number of rows, but other values"
    seen = f"{observed.rows} rows, digest {observed.digest}"
    return compare(name, expected, seen, difference), True


def _unreadable(name: str, expected: str, error: DatabaseError) -> Check:
    return Check(name=name, passed=False, expected=expected, detail=error.message)


def check_sequence(connection: Connection, record: SequenceRecord) -> Check:
    name = f"sequence {record.schema_name}.{record.name}"
    expected = _sequence_text(record.last_value, record.is_called)
    try:
        with translated(name):
            observed = content.sequence_value(
                connection, record.schema_name, record.name
            )
    except ServerFault:
        raise
    except DatabaseError as error:
        return _unreadable(name, expected, error)
    return compare(name, expected, _sequence_text(*observed))


def _sequence_text(last_value: int, is_called: bool) -> str:
    return f"{last_value}, {'handed out' if is_called else 'not yet handed out'}"


_Look = Callable[[Connection], "list[_Equal]"]
# Functions of PostgreSQL that run statements which they are given as text.
_RUNS_TEXT = re.compile(r"_to_xml|\bts_stat\b|\bts_rewrite\b")


class _Equal(NamedTuple):
    """Tables that were equal, and which transaction had written each before."""

    tables: Sequence[TableRecord]
    writers: Sequence[str]
    check: Check
    is_early: bool


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

    def __exit__(self, *_error: object) -> None:
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

    def settle(self) -> Mapping[TableName, Check]:
        """Finish what was announced, once the load has ended.

        Returns the passed checks of the units that are as they were read, as `unit_of`
        names them.
        """
        self._has_ended.set()
        self._finish()
        early = [each for each in self._equal if each.is_early]
        if early and not self._nobody_wrote():
            self._equal = [each for each in self._equal if not each.is_early]
            for each in early:
                self._todo.put(partial(self._look_again, each))
            self._finish()
        return {unit_of(each.tables[0]): each.check for each in self._equal}

    def _nobody_wrote(self) -> bool:
        """Return whether nothing can have written into a table that was loaded."""
        if not self._alone:
            return False
        with self._copy.connect() as connection:
            return not content.runs_own_code(connection)

    def _finish(self) -> None:
        self._start(self._copy.limits.jobs - len(self._threads))
        self._join()

    def _start(self, number: int) -> None:
        self._threads += [Thread(self._work, name="compare") for _ in range(number)]

    def _join(self) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        equal: list[_Equal] = []
        look = self._todo.get()
        if look is None:
            return
        try:
            with self._copy.connect() as connection:
                encoding = self._copy.manifest.inventory.encoding
                content.use_encoding(connection, encoding)
                while look is not None:
                    require_going(self._stopped)
                    try:
                        equal += look(connection)
                    except ServerFault:
                        raise
                    except DatabaseError:
                        pass  # the comparison after the load will read it
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
        check, _was_read = check_tables(
            connection, unit, lambda: require_going(self._stopped)
        )
        return [_Equal(unit, writers, check, is_early)] if check.passed else []

    def _look_again(self, equal: _Equal, connection: Connection) -> list[_Equal]:
        """Return the same if nobody has written into the tables since."""
        with translated(equal.check.name):
            still_holds = all(
                content.is_as_written(
                    connection,
                    each.schema_name,
                    each.name,
                    each.columns,
                    rows=each.rows,
                    by=by,
                )
                for each, by in zip(equal.tables, equal.writers, strict=True)
            )
        return [equal] if still_holds else []
