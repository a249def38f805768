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
from opskit.mutants.mutant import Candidate, Ground, Statement, Supply
from opskit.mutants.values import Column
from opskit.postgres.connect import Connection, query, query_column

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
    unit: Sequence[TableRecord]
    size_bytes: int
    is_unique: bool
    is_referenced: bool
    has_bytea: bool
    before: Sequence[Statement]

    @property
    def name(self) -> str:
        return f"{self.record.schema_name}.{self.record.name}"

    def sql(
        self, text: LiteralString, column: Column | None = None, **parts: Statement
    ) -> sql.Composed:
        """Return SQL: {t} is the table, {c} a column of its row t, {n} its name."""
        if column is not None:
            parts["c"] = sql.SQL("t.{}").format(sql.Identifier(column.name))
            parts["n"] = sql.SQL("{}").format(sql.Identifier(column.name))
            # The type's name was written by the server, quoted and qualified.
            parts["y"] = sql.SQL(column.type_text)
        return sql.SQL(text).format(t=_identifier(self.record), **parts)

    def value(self, expression: LiteralString, column: Column) -> Statement:
        """Return a value of the column's own type."""
        return self.sql("CAST({v} AS {y})", column, v=self.sql(expression, column))


def kinds(ground: Ground, seed: str) -> dict[str, Supply]:
    """Return each kind of damage to rows that some table can take."""
    every = _tables(ground)
    filled = [each for each in every if each.record.rows]
    alone = [each for each in filled if not each.is_referenced]
    choices: list[tuple[str, Sequence[Table], Way]] = [
        ("drop a row", filled, _Draw.drop),
        ("change a value", _wide(filled, 1), _Draw.change),
        ("lose a value", _wide(filled, 1), _Draw.lose),
        ("swap two values", _wide(filled, 2), _Draw.swap),
        ("duplicate a row", [e for e in filled if not e.is_unique], _Draw.duplicate),
        ("insert a row", every, _Draw.insert),
        ("flip a byte", [e for e in filled if e.has_bytea], _Draw.flip),
        ("truncate a table", alone, _Draw.truncate),
    ]
    return {
        name: _supply(ground, small, draw, f"{seed}/{name}")
        for name, tables, draw in choices
        if (small := _small(tables))
    }


def _wide(tables: Sequence[Table], columns: int) -> list[Table]:
    return [each for each in tables if len(each.record.columns) >= columns]


def _small(tables: Sequence[Table]) -> Sequence[Table]:
    small = [each for each in tables if each.size_bytes <= _SIZE_BYTES_MAX]
    by_size = sorted(tables, key=lambda each: (each.size_bytes, each.name))
    return small or by_size[:_LARGE_TABLES]


def _supply(ground: Ground, tables: Sequence[Table], draw: Way, seed: str) -> Supply:
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same mutants
    while True:
        drawn = list(draw(_Draw(ground, rng.choice(tables), rng)))
        yield from drawn
        if not drawn:
            yield None


def _identifier(record: TableRecord) -> sql.Identifier:
    return sql.Identifier(record.schema_name, record.name)


def _tables(ground: Ground) -> list[Table]:
    """Return the tables that can be damaged: not those whose rules would act."""
    # Ordinary triggers and rules do not act in a silent session.
    acting = ["R", "A"] if ground.is_silent else ["O", "A"]
    facts = {
        (schema, name): each
        for schema, name, *each in query(ground.connection, _FACTS, acting, acting)
    }
    names = query_column(ground.connection, _PUBLICATIONS)
    dropping = [sql.SQL("DROP PUBLICATION {}").format(
        sql.SQL(", ").join(map(sql.Identifier, names)))] if names else []  # fmt: skip
    units: dict[tuple[str, str], list[TableRecord]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for record in ground.copy.tables:
        unit = contents.unit_of(record)
        units.setdefault(unit, []).append(record)
        size_bytes, *_rest = facts.get((record.schema_name, record.name), [0])
        sizes[unit] = sizes.get(unit, 0) + size_bytes
    tables = []
    for record in ground.copy.tables:
        known = facts.get((record.schema_name, record.name))
        # Of an extension's table only some rows are compared.
        if known and record.condition is None:
            _size, is_unique, is_referenced, has_bytea, has_triggers = known
            silence = sql.SQL("ALTER TABLE ONLY {} DISABLE TRIGGER USER")
            silencing = [silence.format(_identifier(record))] if has_triggers else []
            table = Table(
                record=record,
                unit=units[contents.unit_of(record)],
                size_bytes=sizes[contents.unit_of(record)],
                is_unique=is_unique,
                is_referenced=is_referenced,
                has_bytea=has_bytea,
                # A published table without a key takes no UPDATE and no DELETE.
                before=[*dropping, *silencing],
            )
            tables.append(table)
    return sorted(tables, key=lambda each: each.name)


class _Draw:
    """Draws a damage to a table by chance; each way may have nothing to damage."""

    def __init__(self, ground: Ground, table: Table, rng: random.Random) -> None:
        self._connection, self._table, self._rng = ground.connection, table, rng

    def drop(self) -> Iterable[Candidate]:
        if tid := self._row():
            yield self._at(tid, "DELETE FROM ONLY {t} AS t WHERE t.ctid = {tid}")

    def change(self) -> Iterable[Candidate]:
        if (writable := self._writable()) and (tid := self._row()):
            column = self._rng.choice(writable)
            for expression in column.others:
                yield self._changed(tid, column, expression)

    def lose(self) -> Iterable[Candidate]:
        if nullable := [each for each in self._writable() if each.is_nullable]:
            column = self._rng.choice(nullable)
            if tid := self._row(column):
                yield self._changed(tid, column, "NULL")

    def swap(self) -> Iterable[Candidate]:
        columns = self._columns()
        writable = [each for each in columns if each.is_writable]
        loose = [each for each in writable if not each.is_unique]
        if len(columns) > 1 and writable and (tid := self._row()):
            column = self._rng.choice(loose or writable)
            if partner := self._partner(tid, column, columns):
                damage = self._table.sql(
                    "UPDATE ONLY {t} AS t SET {n} = b.{n} FROM ONLY {t} AS b "
                    "WHERE (t.ctid = {tid} AND b.ctid = {partner}) "
                    "OR (t.ctid = {partner} AND b.ctid = {tid})",
                    column,
                    tid=_tid(tid),
                    partner=_tid(partner),
                )
                target = f"{self._cell(tid, column)} and {partner}"
                yield self._candidate(target, damage, touches=2)

    def duplicate(self) -> Iterable[Candidate]:
        if tid := self._row():
            target = f"{self._table.name}, row {tid}"
            yield self._candidate(target, self._like(tid, vary=False))

    def insert(self) -> Iterable[Candidate]:
        name, columns = self._table.name, self._columns()
        if tid := self._row():
            damage = self._like(tid, vary=True)
            yield self._candidate(f"{name}, like row {tid}", damage)
        else:
            given = [self._table.value(each.first, each) for each in columns]
            source = sql.SQL("VALUES ({})").format(sql.SQL(", ").join(given))
            yield self._candidate(name, self._inserting(columns, source))

    def flip(self) -> Iterable[Candidate]:
        """Flip a bit in the middle byte of a bytea, if it has any byte."""
        columns = [each for each in self._writable() if each.base_type == "bytea"]
        if columns:
            column = self._rng.choice(columns)
            if tid := self._row(column):
                yield self._at(
                    tid,
                    "UPDATE ONLY {t} AS t SET {n} = set_byte({c}, octet_length({c}) / "
                    "2, get_byte({c}, octet_length({c}) / 2) # 1) "
                    "WHERE t.ctid = {tid} AND octet_length({c}) > 0",
                    column,
                )

    def truncate(self) -> Iterable[Candidate]:
        damage = self._table.sql("TRUNCATE ONLY {t}")
        yield self._candidate(self._table.name, damage, touches=None)

    def _columns(self) -> list[Column]:
        """Return the columns that are compared, stored as they were written."""
        record = self._table.record
        rows = query(self._connection, _COLUMNS, record.schema_name, record.name)
        columns = [Column(*row) for row in rows]
        return [each for each in columns if each.name in record.columns]

    def _writable(self) -> list[Column]:
        return [each for each in self._columns() if each.is_writable]

    def _row(self, holds: Column | None = None) -> str | None:
        """Return the place of a row, of one that is not NULL in a column."""
        rows_max = min(self._table.record.rows, _OFFSET_MAX)
        condition: LiteralString = "num_nonnulls({c}) = 1" if holds else "true"
        # From the first, where fewer rows than that hold something, or are here.
        for offset in (self._rng.randrange(max(1, rows_max)), 0):
            statement = self._table.sql(
                "SELECT t.ctid FROM ONLY {t} AS t WHERE {where} OFFSET {at} LIMIT 1",
                where=self._table.sql(condition, holds),
                at=sql.SQL("{}").format(offset),
            )
            if row := self._connection.execute(statement).fetchone():
                return str(row[0])
        return None

    def _partner(
        self, tid: str, column: Column, columns: Sequence[Column]
    ) -> str | None:
        """Return a row that differs from another in a column and in the other columns.

        Only then do the rows differ from before when the two values change places.
        """

        def row_of(alias: LiteralString, names: Iterable[str]) -> Statement:
            parts = [sql.Identifier(alias, name) for name in names]
            return sql.SQL("ROW({})::text").format(sql.SQL(", ").join(parts))

        others = [each.name for each in columns if each.name != column.name]
        statement = self._table.sql(
            "SELECT b.ctid FROM ONLY {t} AS a, ONLY {t} AS b WHERE a.ctid = {tid} "
            "AND {a} IS DISTINCT FROM {b} AND {others} IS DISTINCT FROM {theirs} "
            "LIMIT 1",
            tid=_tid(tid),
            a=row_of("a", [column.name]),
            b=row_of("b", [column.name]),
            others=row_of("a", others),
            theirs=row_of("b", others),
        )
        row = self._connection.execute(statement).fetchone()
        return None if row is None else str(row[0])

    def _changed(
        self, tid: str, column: Column, expression: LiteralString
    ) -> Candidate:
        """Return what changes a value, and touches no row where it would stay the same.

        The new value is compared as it will be stored and printed: in the column's own
        type, by that type's own output.
        """
        return self._at(
            tid,
            "UPDATE ONLY {t} AS t SET {n} = {value} WHERE t.ctid = {tid} "
            "AND ROW({value})::text IS DISTINCT FROM ROW({c})::text",
            column,
            value=self._table.value(expression, column),
        )

    def _like(self, tid: str, *, vary: bool) -> Statement:
        """Return what inserts a row like another; with `vary`, its keys are others.

        Every column gets a value, so that no default takes a number from a sequence,
        which a rollback would not give back.
        """
        table, columns = self._table, self._columns()
        given = [
            table.value(each.unused, each)
            if vary and each.is_unique
            else table.sql("{c}", each)
            for each in columns
        ]
        source = table.sql(
            "SELECT {given} FROM ONLY {t} AS t WHERE t.ctid = {tid}",
            given=sql.SQL(", ").join(given),
            tid=_tid(tid),
        )
        return self._inserting(columns, source)

    def _inserting(self, columns: Sequence[Column], source: Statement) -> Statement:
        if not columns:
            return self._table.sql("INSERT INTO {t} DEFAULT VALUES")
        return self._table.sql(
            "INSERT INTO {t} ({names}) OVERRIDING SYSTEM VALUE {source}",
            names=sql.SQL(", ").join(sql.Identifier(each.name) for each in columns),
            source=source,
        )

    def _cell(self, tid: str, column: Column) -> str:
        return f"{self._table.name}, column {column.name}, row {tid}"

    def _at(
        self,
        tid: str,
        text: LiteralString,
        column: Column | None = None,
        **parts: Statement,
    ) -> Candidate:
        target = f"{self._table.name}, row {tid}"
        damage = self._table.sql(text, column, tid=_tid(tid), **parts)
        return self._candidate(self._cell(tid, column) if column else target, damage)

    def _candidate(
        self, target: str, damage: Statement, *, touches: int | None = 1
    ) -> Candidate:
        unit = self._table.unit

        def look(connection: Connection) -> Check | None:
            check, was_read = contents.check_tables(connection, unit)
            return check if was_read else None

        return Candidate(
            target=target,
            statements=[*self._table.before, damage],
            look=look,
            names=[".".join(contents.unit_of(self._table.record))],
            touches=touches,
        )


Way = Callable[[_Draw], Iterable[Candidate]]


def _tid(tid: str) -> Statement:
    return sql.SQL("{}::tid").format(sql.Literal(tid))


_FACTS: LiteralString = """
    SELECT n.nspname, c.relname, pg_table_size(c.oid),
      EXISTS (SELECT FROM pg_index i
        WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)),
      EXISTS (SELECT FROM pg_constraint k
        WHERE k.contype = 'f' AND k.confrelid = c.oid),
      EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
        AND a.atttypid = 'bytea'::regtype AND a.attgenerated = ''
        AND a.attnum > 0 AND NOT a.attisdropped),
      EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid
        AND NOT t.tgisinternal AND t.tgenabled = ANY (%s::"char"[]))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname !~ '^pg_'
      AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid
        AND r.ev_enabled = ANY (%s::"char"[]))"""
_PUBLICATIONS: LiteralString = """
    SELECT pubname FROM pg_publication
    WHERE pg_has_role(pubowner, 'USAGE') ORDER BY 1"""
_COLUMNS: LiteralString = """
    WITH RECURSIVE base AS (
      SELECT a.attrelid, a.attnum, a.atttypid AS type FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0
        AND NOT a.attisdropped AND a.attgenerated = ''
      UNION ALL
      SELECT b.attrelid, b.attnum, t.typbasetype FROM base b
      JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd')
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname,
      t.typcategory, NOT a.attnotnull,
      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid
        AND (i.indisunique OR i.indisexclusion) AND a.attnum = ANY (i.indkey)),
      a.attidentity <> 'a'
    FROM base b JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd'
    JOIN pg_attribute a ON a.attrelid = b.attrelid AND a.attnum = b.attnum
    ORDER BY a.attnum"""
