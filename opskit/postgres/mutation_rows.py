"""Statements that damage the rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from opskit.mutants import values as mutants_values
from opskit.postgres.connect import Connection
from opskit.postgres.mutation import Statement
from opskit.postgres.mutation_facts import Column, TableFacts


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


def others(column: Column) -> list[LiteralString]:
    """Return expressions that may give another value of the column."""
    return list(mutants_values.others(column.base_type, column.category))


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
    values = [
        _cast(_filled(_unused(each), table, each), each)
        if vary and each.is_unique
        else sql.Identifier("t", each.name)
        for each in named
    ]
    source = sql.SQL("SELECT {} FROM ONLY {} AS t WHERE t.ctid = {}").format(
        sql.SQL(", ").join(values), table.identifier, _tid(tid)
    )
    return _insert(table, named, source)


def insert_first(table: TableFacts, named: Sequence[Column]) -> Statement:
    """Return what inserts a row into a table that has none to be like."""
    values = [_cast(_filled(_first(each), table, each), each) for each in named]
    source = sql.SQL("VALUES ({})").format(sql.SQL(", ").join(values))
    return _insert(table, named, source)


def _insert(table: TableFacts, named: Sequence[Column], source: Statement) -> Statement:
    if not named:
        return sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table.identifier)
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE {}").format(
        table.identifier,
        sql.SQL(", ").join(sql.Identifier(each.name) for each in named),
        source,
    )


def _unused(column: Column) -> LiteralString:
    return mutants_values.unused(column.base_type, column.category)


def _first(column: Column) -> LiteralString:
    if column.is_nullable:
        return "NULL"
    return mutants_values.first(column.base_type, column.category)


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
