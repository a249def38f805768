"""Compares a restored copy with its manifest: exactly, and saying what differs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from types import MappingProxyType

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
from opskit.threads import Pool
from opskit.workspace import Limits


def units_of(tables: Iterable[TableRecord]) -> list[Sequence[TableRecord]]:
    """Return what is compared at once: a table, or the partitions below one root.

    Rows that were loaded through the root may have come to another partition, as the
    hash of an enum differs from one server to the next; taken together they are equal.
    """
    units: dict[tuple[str, str], list[TableRecord]] = {}
    for table in tables:
        units.setdefault(table.via_root or (table.schema_name, table.name), []).append(
            table
        )
    return list(units.values())


def unit_name(tables: Sequence[TableRecord]) -> str:
    """Return the name of the check that a unit gets."""
    first = tables[0]
    if first.via_root is not None:
        return f"partitions below {'.'.join(first.via_root)}"
    return f"table {first.schema_name}.{first.name}"


_NAMES_SHOWN = 20


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
    copy: RestoredCopy, equal: Mapping[str, Check] = MappingProxyType({})
) -> list[Check]:
    """Compare every table, sequence and large object; one check each.

    `equal` holds the checks that tables have passed already, by their names.
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
    copy: RestoredCopy, equal: Mapping[str, Check] = MappingProxyType({})
) -> list[Check]:
    """Compare as `compare_contents`, right after the load: nobody else wrote rows.

    The server's counters say so, which later transactions move also if they are
    rolled back.
    """
    checks = compare_contents(copy, equal)
    with copy.connect() as connection:
        inserted = content.rows_inserted(connection)
    units = {unit_name(unit): unit for unit in units_of(copy.tables)}
    return [
        _loaded_alone(check, units.get(check.name, ()), inserted) for check in checks
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
    rows = sum(table.rows for table in copy.tables)
    detail = f"{rows} rows by the manifest"
    if not copy.manifest.tables:
        detail = "the manifest lists no table: the source had none"
    elif not copy.tables:
        return Check(
            name="tables compared",
            passed=False,
            expected=f"some of {len(copy.manifest.tables)}",
            observed="0",
            detail="every table was left out: that proves nothing",
        )
    return compare("tables compared", len(copy.tables), tables_read, detail)


def compare_with_archive(
    manifest: DatabaseManifest, entries: Iterable[TocEntry]
) -> list[Check]:
    """Compare which tables and sequences the manifest lists with those of the archive.

    What the manifest does not list, nothing else would compare.
    """
    held: dict[str, set[tuple[str, str]]] = {"TABLE DATA": set(), "SEQUENCE SET": set()}
    for each in entries:
        if each.kind in held:
            held[each.kind].add((each.schema, each.name))
    return [
        _listed("tables of the archive", manifest.tables, held["TABLE DATA"]),
        _listed("sequences of the archive", manifest.sequences, held["SEQUENCE SET"]),
    ]


def _listed(
    name: str,
    records: Iterable[TableRecord | SequenceRecord],
    held: set[tuple[str, str]],
) -> Check:
    listed = {(each.schema_name, each.name) for each in records}
    differ = sorted(f"{schema}.{name}" for schema, name in listed ^ held)
    return Check(
        name=name,
        passed=not differ,
        expected=str(len(listed)),
        observed=str(len(held)),
        detail=", ".join(differ[:_NAMES_SHOWN]),
    )


def compare_large_objects(copy: RestoredCopy) -> Check:
    """Compare all large objects by number, size and digest."""
    with copy.connect() as connection:
        return check_large_objects(connection, copy.manifest.large_objects)


def check_large_objects(connection: Connection, expected: LargeObjectsRecord) -> Check:
    """Compare all large objects as the session sees them."""
    observed = content.large_objects_digest(connection)
    return compare(
        "large objects",
        f"{expected.count} objects, {expected.size_bytes} bytes, "
        f"digest {expected.digest}",
        f"{observed.count} objects, {observed.size_bytes} bytes, "
        f"digest {observed.digest}",
    )


def _compare_tables(
    copy: RestoredCopy, equal: Mapping[str, Check]
) -> list[tuple[Check, int]]:
    """Digest the tables on several connections at once, the result in their order.

    With each check comes how many tables were read for it.
    """
    units = units_of(copy.tables)
    todo: SimpleQueue[tuple[int, Sequence[TableRecord]]] = SimpleQueue()
    results: dict[int, tuple[Check, int]] = {}
    for number, unit in enumerate(units):
        if (known := equal.get(unit_name(unit))) is not None:
            results[number] = known, len(unit)
        else:
            todo.put((number, unit))
    stopped = threading.Event()

    def alive() -> None:
        if stopped.is_set():
            raise Interrupted("the comparison was interrupted")

    def work() -> None:
        with copy.connect() as connection:
            content.use_encoding(connection, copy.manifest.inventory.encoding)
            while True:
                alive()
                try:
                    number, unit = todo.get_nowait()
                except Empty:
                    return
                check, was_read = check_tables(connection, unit, alive)
                results[number] = check, len(unit) if was_read else 0

    workers = min(copy.limits.jobs, todo.qsize())
    with Pool(max(1, workers)) as pool:
        try:
            for done in [pool.submit(work) for _ in range(workers)]:
                done.result()
        except BaseException:
            stopped.set()  # the other threads end at their next look
            raise
    return [results[number] for number in range(len(units))]


def check_tables(
    connection: Connection,
    tables: Sequence[TableRecord],
    alive: Callable[[], None] = lambda: None,
) -> tuple[Check, bool]:
    """Compare one table, or several taken together, as the session sees them.

    The second value tells whether they could be read at all.
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
        missing = Check(
            name=name, passed=False, expected=expected, detail=error.message
        )
        return missing, False
    difference = ""
    if observed.rows != recorded.rows:
        difference = f"{observed.rows - recorded.rows:+d} rows"
    elif observed.digest != recorded.digest:
        difference = "the same number of rows, but other values"
    seen = f"{observed.rows} rows, digest {observed.digest}"
    return compare(name, expected, seen, difference), True


def check_sequence(connection: Connection, record: SequenceRecord) -> Check:
    """Compare one sequence as the session sees it."""
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
        return Check(name=name, passed=False, expected=expected, detail=error.message)
    return compare(name, expected, _sequence_text(*observed))


def _sequence_text(last_value: int, is_called: bool) -> str:
    return f"{last_value}, {'handed out' if is_called else 'not yet handed out'}"
