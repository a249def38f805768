"""What has to be known of a table before its rows can be damaged."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from opskit.postgres.connect import Connection, query


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
