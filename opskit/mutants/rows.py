"""Damages to the rows of tables: what a lossy or a muddled restore would do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.mutants.mutant import Candidate, Ground, Kind, Supply
from opskit.postgres import mutation_facts, mutation_rows
from opskit.postgres.connect import Connection
from opskit.postgres.mutation import Statement
from opskit.postgres.mutation_facts import Column, TableFacts

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


def kinds(ground: Ground, seed: str) -> list[Kind]:
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
    return [
        Kind(name=name, supply=_supply(ground, small, draw, f"{seed}/{name}"))
        for name, tables, draw in choices
        if (small := _small(tables))
    ]


def _tables(ground: Ground) -> list[Table]:
    facts = mutation_facts.table_facts(ground.connection, silent=ground.is_silent)
    publications = mutation_facts.publications(ground.connection)
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
                before=mutation_rows.clear_the_way(known, publications),
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
    find = mutation_rows.find_row
    found = find(ground.connection, table.facts, offset=offset, holds=holds)
    if found is None:  # fewer rows than that hold something, or are here
        found = find(ground.connection, table.facts, offset=0, holds=holds)
    return found


def _columns(ground: Ground, table: Table) -> list[Column]:
    """Return the columns that are compared, and can be written."""
    compared = set(table.record.columns)
    found = mutation_facts.columns(ground.connection, table.facts)
    return [each for each in found if each.name in compared]


def _cell(table: Table, column: Column, tid: str) -> str:
    return f"{table.name}, column {column.name}, row {tid}"


def _drop(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    if tid := _row(ground, table, rng):
        damage = mutation_rows.delete(table.facts, tid)
        yield _candidate(table, f"{table.name}, row {tid}", damage)


def _change(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    writable = [each for each in _columns(ground, table) if each.is_writable]
    if writable and (tid := _row(ground, table, rng)):
        column = rng.choice(writable)
        for expression in mutation_rows.others(column):
            damage = mutation_rows.change(table.facts, tid, column, expression)
            yield _candidate(table, _cell(table, column, tid), damage)


def _lose(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    writable = [each for each in _columns(ground, table) if each.is_writable]
    if nullable := [each for each in writable if each.is_nullable]:
        column = rng.choice(nullable)
        if tid := _row(ground, table, rng, column.name):
            damage = mutation_rows.change(table.facts, tid, column, "NULL")
            yield _candidate(table, _cell(table, column, tid), damage)


def _swap(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    columns = _columns(ground, table)
    writable = [each for each in columns if each.is_writable]
    loose = [each for each in writable if not each.is_unique]
    if len(columns) > 1 and writable and (tid := _row(ground, table, rng)):
        column = rng.choice(loose or writable)
        others = [each.name for each in columns if each is not column]
        partner = mutation_rows.find_partner(
            ground.connection, table.facts, tid, column.name, others
        )
        if partner is not None:
            damage = mutation_rows.swap(table.facts, tid, partner, column)
            target = f"{_cell(table, column, tid)} and {partner}"
            yield _candidate(table, target, damage, touches=2)


def _duplicate(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    if tid := _row(ground, table, rng):
        named = _columns(ground, table)
        damage = mutation_rows.insert_like(table.facts, tid, named, vary=False)
        yield _candidate(table, f"{table.name}, row {tid}", damage)


def _insert(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    named = _columns(ground, table)
    tid = _row(ground, table, rng)
    if tid is None:
        damage = mutation_rows.insert_first(table.facts, named)
        yield _candidate(table, table.name, damage)
    else:
        damage = mutation_rows.insert_like(table.facts, tid, named, vary=True)
        yield _candidate(table, f"{table.name}, like row {tid}", damage)


def _flip(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    columns = [each for each in _columns(ground, table) if each.is_writable]
    if binary := [each for each in columns if each.base_type == "bytea"]:
        column = rng.choice(binary)
        if tid := _row(ground, table, rng, column.name):
            damage = mutation_rows.flip(table.facts, tid, column)
            yield _candidate(table, _cell(table, column, tid), damage)


def _truncate(ground: Ground, table: Table, rng: random.Random) -> Iterable[Candidate]:
    del ground, rng  # there is but one way to empty a table
    damage = mutation_rows.truncate(table.facts)
    yield _candidate(table, table.name, damage, touches=None)
