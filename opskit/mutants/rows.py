"""Damages to the rows of tables: what a lossy or a muddled restore would do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.mutants import values
from opskit.mutants.mutant import Candidate, Ground, Statement, Supply
from opskit.mutants.values import Column, TableFacts
from opskit.postgres.connect import Connection


def find_row(
    connection: Connection,
    table: TableFacts,
    *,
    offset: int,
    holds: str | None = None,
) -> str | None:
    """Return the place of a row, counted from the first; with `holds` not NULL."""
    condition: Statement = sql.SQL("true")
    if holds is not None:
        condition = sql.SQL("num_nonnulls(t.{}) = 1").format(sql.Identifier(holds))
    statement = sql.SQL(
        "SELECT t.ctid FROM ONLY {} AS t WHERE {} OFFSET {} LIMIT 1"
    ).format(table.identifier, condition, sql.Literal(offset))
    row = connection.execute(statement).fetchone()
    return None if row is None else str(row[0])


def find_partner(
    connection: Connection,
    table: TableFacts,
    tid: str,
    column: str,
    others: Sequence[str],
) -> str | None:
    """Return a row that differs from another in a column and in the other columns.

    Only then do the rows differ from before when the two values change places.
    """

    def row_of(alias: LiteralString, names: Sequence[str]) -> Statement:
        parts = [sql.Identifier(alias, name) for name in names]
        return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(parts))

    statement = sql.SQL(
        "SELECT b.ctid FROM ONLY {0} AS a, ONLY {0} AS b WHERE a.ctid = {1} "
        "AND {2} IS DISTINCT FROM {3} AND {4} IS DISTINCT FROM {5} LIMIT 1"
    ).format(
        table.identifier,
        _tid(tid),
        row_of("a", [column]),
        row_of("b", [column]),
        row_of("a", others),
        row_of("b", others),
    )
    row = connection.execute(statement).fetchone()
    return None if row is None else str(row[0])


def clear_the_way(table: TableFacts, publications: Sequence[str]) -> list[Statement]:
    """Return what keeps the table's own triggers and its publications from acting.

    A published table without a key takes no UPDATE and no DELETE.
    """
    found: list[Statement] = []
    if publications:
        names = sql.SQL(", ").join(map(sql.Identifier, publications))
        found.append(sql.SQL("DROP PUBLICATION {}").format(names))
    if table.has_triggers:
        found.append(
            sql.SQL("ALTER TABLE ONLY {} DISABLE TRIGGER USER").format(table.identifier)
        )
    return found


def delete(table: TableFacts, tid: str) -> Statement:
    """Return what deletes one row."""
    return sql.SQL("DELETE FROM ONLY {} WHERE ctid = {}").format(
        table.identifier, _tid(tid)
    )


def truncate(table: TableFacts) -> Statement:
    """Return what empties a table."""
    return sql.SQL("TRUNCATE ONLY {}").format(table.identifier)


def change(
    table: TableFacts, tid: str, column: Column, expression: LiteralString
) -> Statement:
    """Return what changes a value, and touches no row where it would stay the same.

    The new value is compared as it will be stored and printed: in the column's own
    type, by that type's own output.
    """
    value = _cast(_filled(expression, table, column), column)
    return sql.SQL(
        "UPDATE ONLY {table} AS t SET {column} = {value} WHERE t.ctid = {tid} "
        "AND ROW({value})::text IS DISTINCT FROM ROW(t.{column})::text"
    ).format(
        table=table.identifier,
        column=sql.Identifier(column.name),
        value=value,
        tid=_tid(tid),
    )


def flip(table: TableFacts, tid: str, column: Column) -> Statement:
    """Return what flips a bit in the middle byte of a bytea, if it has any byte."""
    return sql.SQL(
        "UPDATE ONLY {table} AS t SET {column} = set_byte(t.{column}, "
        "octet_length(t.{column}) / 2, "
        "get_byte(t.{column}, octet_length(t.{column}) / 2) # 1) "
        "WHERE t.ctid = {tid} AND octet_length(t.{column}) > 0"
    ).format(table=table.identifier, column=sql.Identifier(column.name), tid=_tid(tid))


def swap(table: TableFacts, first: str, second: str, column: Column) -> Statement:
    """Return what lets two rows change the values of a column."""
    return sql.SQL(
        "UPDATE ONLY {table} AS a SET {column} = b.{column} FROM ONLY {table} AS b "
        "WHERE (a.ctid = {first} AND b.ctid = {second}) "
        "OR (a.ctid = {second} AND b.ctid = {first})"
    ).format(
        table=table.identifier,
        column=sql.Identifier(column.name),
        first=_tid(first),
        second=_tid(second),
    )


def insert_like(
    table: TableFacts, tid: str, named: Sequence[Column], *, vary: bool
) -> Statement:
    """Return what inserts a row like another; its keys vary if told to.

    Every column gets a value, so that no default takes a number from a sequence,
    which a rollback would not give back.
    """
    given = [
        _cast(_filled(values.unused(each), table, each), each)
        if vary and each.is_unique
        else sql.Identifier("t", each.name)
        for each in named
    ]
    source = sql.SQL("SELECT {} FROM ONLY {} AS t WHERE t.ctid = {}").format(
        sql.SQL(", ").join(given), table.identifier, _tid(tid)
    )
    return _insert_row(table, named, source)


def insert_first(table: TableFacts, named: Sequence[Column]) -> Statement:
    """Return what inserts a row into a table that has none to be like."""
    given = [_cast(_filled(_first(each), table, each), each) for each in named]
    source = sql.SQL("VALUES ({})").format(sql.SQL(", ").join(given))
    return _insert_row(table, named, source)


def _insert_row(
    table: TableFacts, named: Sequence[Column], source: Statement
) -> Statement:
    if not named:
        return sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table.identifier)
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}").format(
        table.identifier,
        sql.SQL(", ").join(sql.Identifier(each.name) for each in named),
        source,
    )


def _first(column: Column) -> LiteralString:
    return "NULL" if column.is_nullable else values.first(column)


def _filled(expression: LiteralString, table: TableFacts, column: Column) -> Statement:
    return sql.SQL(expression).format(
        c=sql.Identifier("t", column.name),
        n=sql.Identifier(column.name),
        t=table.identifier,
        y=sql.SQL(column.type_text),
    )


def _cast(value: Statement, column: Column) -> Statement:
    # The type's name was written by the server, quoted and qualified.
    return sql.SQL("CAST({} AS {})").format(value, sql.SQL(column.type_text))


def _tid(tid: str) -> Statement:
    return sql.SQL("{}::tid").format(sql.Literal(tid))


# A table is read again for each of its mutants: larger ones only if all are larger.
_SIZE_BYTES_MAX = 32 * 1024 * 1024
_LARGE_TABLES = 3
# A row is found by counting from the first.
_OFFSET_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the manifest and what is known of it in the copy.

    `unit` holds the tables that are compared together with it, itself included: the
    partitions that rows may change between when they are loaded through their root.
    `before` makes the server ready to take the damage.
    """

    record: TableRecord
    facts: TableFacts
    unit: Sequence[TableRecord]
    size_bytes: int
    before: Sequence[Statement]

    @property
    def name(self) -> str:
        """The name as the comparison writes it."""
        return f"{self.record.schema_name}.{self.record.name}"


Draw = Callable[[Ground, Table, random.Random], Iterable[Candidate]]


def kinds(ground: Ground, seed: str) -> dict[str, Supply]:
    """Return each kind of damage to rows that some table can take."""
    every = _tables(ground)
    filled = [each for each in every if each.record.rows]
    loose = [each for each in filled if not each.facts.is_unique]
    alone = [each for each in filled if not each.facts.is_referenced]
    binary = [each for each in filled if each.facts.has_bytea]
    choices: list[tuple[str, Sequence[Table], Draw]] = [
        ("drop a row", filled, _drop),
        ("change a value", _wide(filled, 1), _change),
        ("lose a value", _wide(filled, 1), _lose),
        ("swap two values", _wide(filled, 2), _swap),
        ("duplicate a row", loose, _duplicate),
        ("insert a row", every, _insert),
        ("flip a byte", binary, _flip),
        ("truncate a table", alone, _truncate),
    ]
    return {
        name: _supply(ground, small, draw, f"{seed}/{name}")
        for name, tables, draw in choices
        if (small := _small(tables))
    }


def _tables(ground: Ground) -> list[Table]:
    facts = values.table_facts(ground.connection, silent=ground.is_silent)
    publications = values.publications(ground.connection)
    units: dict[tuple[str, str], list[TableRecord]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for record in ground.copy.tables:
        unit = _unit(record)
        units.setdefault(unit, []).append(record)
        known = facts.get((record.schema_name, record.name))
        sizes[unit] = sizes.get(unit, 0) + (known.size_bytes if known else 0)
    tables = []
    for record in ground.copy.tables:
        # Of an extension's table only some rows are compared.
        known = facts.get((record.schema_name, record.name))
        if known and record.condition is None:
            table = Table(
                record=record,
                facts=known,
                unit=units[_unit(record)],
                size_bytes=sizes[_unit(record)],
                before=clear_the_way(known, publications),
            )
            tables.append(table)
    return sorted(tables, key=lambda each: each.name)


def _unit(record: TableRecord) -> tuple[str, str]:
    return record.via_root or (record.schema_name, record.name)


def _wide(tables: Sequence[Table], columns: int) -> list[Table]:
    return [each for each in tables if len(each.record.columns) >= columns]


def _small(tables: Sequence[Table]) -> Sequence[Table]:
    small = [each for each in tables if each.size_bytes <= _SIZE_BYTES_MAX]
    by_size = sorted(tables, key=lambda each: (each.size_bytes, each.name))
    return small or by_size[:_LARGE_TABLES]


def _supply(ground: Ground, tables: Sequence[Table], draw: Draw, seed: str) -> Supply:
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    while True:
        drawn = list(draw(ground, rng.choice(tables), rng))
        yield from drawn
        if not drawn:
            yield None


def _candidate(
    table: Table, target: str, damage: Statement, *, touches: int | None = 1
) -> Candidate:
    def look(connection: Connection) -> Check | None:
        check, was_read = contents.check_tables(connection, table.unit)
        return check if was_read else None

    return Candidate(
        target=target,
        statements=[*table.before, damage],
        look=look,
        names=[".".join(_unit(table.record))],
        touches=touches,
    )


def _row(
    ground: Ground, table: Table, rng: random.Random, holds: str | None = None
) -> str | None:
    offset = rng.randrange(max(1, min(table.record.rows, _OFFSET_MAX)))
    found = find_row(ground.connection, table.facts, offset=offset, holds=holds)
    if found is None:  # fewer rows than that hold something, or are here
        found = find_row(ground.connection, table.facts, offset=0, holds=holds)
    return found


def _columns(ground: Ground, table: Table) -> list[Column]:
    """Return the columns that are compared, and can be written."""
    compared = set(table.record.columns)
    found = values.columns(ground.connection, table.facts)
    return [each for each in found if each.name in compared]


def _cell(table: Table, column: Column, tid: str) -> str:
    return f"{table.name}, column {column.name}, row {tid}"


def _drop(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    if tid := _row(ground, table, rng):
        damage = delete(table.facts, tid)
        yield _candidate(table, f"{table.name}, row {tid}", damage)


def _change(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    writable = [each for each in _columns(ground, table) if each.is_writable]
    if writable and (tid := _row(ground, table, rng)):
        column = rng.choice(writable)
        for expression in values.others(column):
            damage = change(table.facts, tid, column, expression)
            yield _candidate(table, _cell(table, column, tid), damage)


def _lose(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    writable = [each for each in _columns(ground, table) if each.is_writable]
    if nullable := [each for each in writable if each.is_nullable]:
        column = rng.choice(nullable)
        if tid := _row(ground, table, rng, column.name):
            damage = change(table.facts, tid, column, "NULL")
            yield _candidate(table, _cell(table, column, tid), damage)


def _swap(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    columns = _columns(ground, table)
    writable = [each for each in columns if each.is_writable]
    loose = [each for each in writable if not each.is_unique]
    if len(columns) > 1 and writable and (tid := _row(ground, table, rng)):
        column = rng.choice(loose or writable)
        others = [each.name for each in columns if each is not column]
        partner = find_partner(ground.connection, table.facts, tid, column.name, others)
        if partner is not None:
            damage = swap(table.facts, tid, partner, column)
            target = f"{_cell(table, column, tid)} and {partner}"
            yield _candidate(table, target, damage, touches=2)


def _duplicate(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    if tid := _row(ground, table, rng):
        named = _columns(ground, table)
        damage = insert_like(table.facts, tid, named, vary=False)
        yield _candidate(table, f"{table.name}, row {tid}", damage)


def _insert(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    named = _columns(ground, table)
    tid = _row(ground, table, rng)
    if tid is None:
        damage = insert_first(table.facts, named)
        yield _candidate(table, table.name, damage)
    else:
        damage = insert_like(table.facts, tid, named, vary=True)
        yield _candidate(table, f"{table.name}, like row {tid}", damage)


def _flip(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    columns = [each for each in _columns(ground, table) if each.is_writable]
    if binary := [each for each in columns if each.base_type == "bytea"]:
        column = rng.choice(binary)
        if tid := _row(ground, table, rng, column.name):
            damage = flip(table.facts, tid, column)
            yield _candidate(table, _cell(table, column, tid), damage)


def _truncate(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    del ground, rng  # there is but one way to empty a table
    damage = truncate(table.facts)
    yield _candidate(table, table.name, damage, touches=None)
