"""Other values for a value, by its type: some of them the server will accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from opskit.postgres.connect import Connection, query

_NEXT_NUMBER: LiteralString = "(SELECT max(o.{n}) + 1 FROM ONLY {t} AS o)"
# {c} is the column of the row, {n} its bare name, {t} the table, {y} the type. Which
# of them the server accepts, and which really differ, shows when they are tried.
_BY_CATEGORY: dict[str, tuple[LiteralString, ...]] = {
    "A": ("array_append({c}, NULL)", "{c}[2:]", "'{{}}'"),
    "B": ("NOT {c}", "true"),
    "D": (
        "{c} + interval '1 day'",
        "{c} - interval '1 day'",
        "{c} + interval '1 second'",
    ),
    "E": (
        "(SELECT e FROM unnest(enum_range({c})) AS e WHERE e <> {c} LIMIT 1)",
        "enum_first({c})",
    ),
    "G": ("{c} + point(1, 1)",),
    "I": ("{c} + 1", "{c} - 1"),
    "N": ("{c} + 1", "{c} - 1", _NEXT_NUMBER, "0"),
    "R": ("'empty'", "'{{}}'"),
    "S": (
        "{c} || 'x'",
        "left({c}, -1)",
        "overlay({c} placing 'x' from 1 for 1)",
        "overlay({c} placing 'y' from 1 for 1)",
        "''",
    ),
    "T": ("{c} + interval '1 second'", "{c} - interval '1 second'"),
    "V": ("~ {c}",),
}
_BY_TYPE: dict[str, tuple[LiteralString, ...]] = {
    "bytea": (r"{c} || '\x00'",),
    "char": ("'x'", "'y'"),
    "json": ("json_build_array({c})",),
    "jsonb": ("jsonb_build_array({c})",),
    "macaddr": ("~ {c}",),
    "macaddr8": ("~ {c}",),
    "money": ("{c} + '1'::money", "{c} - '1'::money"),
    "oid": ("({c}::bigint + 1)::oid",),
    "pg_lsn": ("{c} + 1", "{c} - 1"),
    "tsquery": ("!! {c}",),
    "tsvector": ("{c} || 'opskit'::tsvector",),
    "uuid": ("overlay({c}::text placing 'ffff' from 1 for 4)",
             "overlay({c}::text placing '0000' from 1 for 4)"),
    "xml": ("xmlconcat({c}, {c})",),
}  # fmt: skip
_OF_ANOTHER_ROW: LiteralString = (
    "(SELECT o.{n} FROM ONLY {t} AS o "
    "WHERE ROW(o.{n})::text IS DISTINCT FROM ROW({c})::text LIMIT 1)"
)

# Something for a column that must hold something, as text in the type's own form.
_FIRST_BY_CATEGORY: dict[str, LiteralString] = {
    "A": "'{{}}'",
    "B": "false",
    "D": "'2000-01-01 00:00:00+00'",
    "E": "enum_first(NULL::{y})",
    "G": "'(0,0)'",
    "I": "'127.0.0.1'",
    "N": "0",
    "R": "'empty'",
    "S": "'x'",
    "T": "'1 second'",
    "V": "B'0'",
}
_FIRST_BY_TYPE: dict[str, LiteralString] = {
    "bytea": r"'\x00'",
    "json": "'{{}}'",
    "jsonb": "'{{}}'",
    "time": "'00:00:00'",
    "timetz": "'00:00:00+00'",
    "tsvector": "'x'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
    "xml": "'<x/>'",
}


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What decides how a table can be damaged."""

    schema: str
    name: str
    size_bytes: int
    is_unique: bool
    is_referenced: bool
    has_bytea: bool
    has_triggers: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The table's name as SQL."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column whose values can be written; `type_text` is its type as SQL."""

    name: str
    type_text: str
    base_type: str
    category: str
    is_nullable: bool
    is_unique: bool
    is_writable: bool


def others(column: Column) -> Sequence[LiteralString]:
    """Return expressions of {c}, {t} and {n} that may give another value."""
    own = _BY_TYPE.get(column.base_type) or _BY_CATEGORY.get(column.category, ())
    return (*own, _OF_ANOTHER_ROW)


def unused(column: Column) -> LiteralString:
    """Return an expression that likely gives a value that no row has yet."""
    if column.category == "N" and column.base_type not in _BY_TYPE:
        return _NEXT_NUMBER
    if column.category == "D":
        return "(SELECT max(o.{n}) + interval '1 day' FROM ONLY {t} AS o)"
    return others(column)[0]


def first(column: Column) -> LiteralString:
    """Return an expression for the first row of a table, which has none to vary."""
    return _FIRST_BY_TYPE.get(column.base_type) or _FIRST_BY_CATEGORY.get(
        column.category, "NULL"
    )


def table_facts(
    connection: Connection, *, silent: bool
) -> dict[tuple[str, str], TableFacts]:
    """Return every table by schema and name, but those whose rules would act.

    `silent` says that ordinary triggers and rules do not act in this session.
    """
    acting = ["R", "A"] if silent else ["O", "A"]
    rows = query(
        connection,
        """
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
            AND r.ev_enabled = ANY (%s::"char"[]))
        """,
        acting,
        acting,
    )
    return {
        (row[0], row[1]): TableFacts(
            schema=row[0],
            name=row[1],
            size_bytes=row[2],
            is_unique=row[3],
            is_referenced=row[4],
            has_bytea=row[5],
            has_triggers=row[6],
        )
        for row in rows
    }


def publications(connection: Connection) -> list[str]:
    """Return the publications that the session may drop."""
    rows = query(
        connection,
        """
        SELECT pubname FROM pg_publication
        WHERE pg_has_role(pubowner, 'USAGE') ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def columns(connection: Connection, table: TableFacts) -> list[Column]:
    """Return the columns of a table that are stored as they were written."""
    rows = query(
        connection,
        """
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
        ORDER BY a.attnum
        """,
        table.schema,
        table.name,
    )
    return [
        Column(
            name=row[0],
            type_text=row[1],
            base_type=row[2],
            category=row[3],
            is_nullable=row[4],
            is_unique=row[5],
            is_writable=row[6],
        )
        for row in rows
    ]
