"""Migrations as the database knows them: what was applied, and how one is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from opskit.errors import DatabaseError
from opskit.postgres.connect import (
    Connection,
    connect,
    execute,
    has_row,
    query,
    query_column,
    translated,
)
from opskit.postgres.parameters import arguments, parse, session_options

# SQLSTATE of a statement that waited for a lock for longer than it may.
WAITED = "55P03"
# In a schema of its own, which no tool takes for the service's.
_TABLE: LiteralString = """
    CREATE SCHEMA IF NOT EXISTS opskit;
    CREATE TABLE IF NOT EXISTS opskit.migrations (
        id text PRIMARY KEY, sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now())"""


def digests(connection: Connection) -> dict[str, str]:
    """Return the digests of the files that were applied, in their order."""
    if not _exists(connection, "opskit.migrations"):
        return {}
    rows = query(
        connection, "SELECT id, sha256 FROM opskit.migrations ORDER BY applied_at, id"
    )
    return dict(rows)


def alembic_versions(connection: Connection) -> list[str]:
    """Return what Alembic's own table names, in whichever schema it is."""
    schemas = query_column(
        connection,
        """
        SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relname = 'alembic_version' AND relkind = 'r' ORDER BY nspname""",
    )
    found: list[str] = []
    for schema in schemas:
        rows = execute(connection, "SELECT version_num FROM {}.alembic_version", schema)
        found += [row[0] for row in rows]
    return found


def sessions(connection: Connection, application: str) -> list[int]:
    """Return the server processes that work for an application in this database."""
    return query_column(
        connection,
        """
        SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = %s ORDER BY pid""",
        application,
    )


def _exists(connection: Connection, name: str) -> bool:
    return has_row(connection, "SELECT to_regclass(%s) WHERE to_regclass(%s) "
                   "IS NOT NULL", name, name)  # fmt: skip


def run(
    url: str,
    scripts: Sequence[str],
    *,
    application: str,
    options: str,
    record: tuple[str, str | None],
    transaction: bool,
) -> None:
    """Run the statements of a migration, and record it with its digest.

    A digest of None takes the record away. In one transaction with the record, if
    there is to be one.

    Raises:
        DatabaseError: a statement failed.
    """
    parameters = parse(url)
    parameters["application_name"] = application
    parameters["options"] = f"{session_options(url)} {options}".strip()
    with (
        translated("the migration"),
        psycopg.connect(**arguments(parameters), autocommit=True) as connection,
        connection.transaction() if transaction else nullcontext(),
    ):
        for script in scripts:
            connection.execute(script.encode())
        _record(connection, *record)


def record(url: str, name: str, digest: str | None, *, application: str) -> None:
    """Record that a migration was applied, or with None that it was taken back."""
    with connect(url, purpose=application) as connection:
        _record(connection, name, digest)


def _record(
    connection: psycopg.Connection[tuple[object, ...]], name: str, digest: str | None
) -> None:
    connection.execute(_TABLE)
    connection.execute("DELETE FROM opskit.migrations WHERE id = %s", [name])
    if digest is not None:
        connection.execute(
            "INSERT INTO opskit.migrations (id, sha256) VALUES (%s, %s)", [name, digest]
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How many rows there are, and the digest of all, whatever their order."""

    number: int
    sha256: str


_DIGESTED: LiteralString = """
    SELECT count(*), encode(sha256(convert_to(coalesce(
             string_agg(line, E'\\n' ORDER BY line COLLATE "C"), ''), 'UTF8')), 'hex')
    FROM (SELECT row({columns})::text AS line FROM {rows}) lines"""


def rows_of_table(connection: Connection, table: str, columns: Sequence[str]) -> Rows:
    """Return the rows of a table in these columns.

    Raises:
        DatabaseError: there is no such table or column.
    """
    name = _table(connection, table)
    statement = sql.SQL(_DIGESTED).format(columns=_listed(columns), rows=name)
    return _rows(connection.execute(statement))


def rows_of_json(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    records: Sequence[Mapping[str, object]],
) -> Rows:
    """Return what the rows of a table are if they hold these records; as above."""
    name = _table(connection, table)
    rows = sql.SQL("json_populate_recordset(NULL::{}, {}::json)").format(
        name, sql.Literal(json.dumps(records))
    )
    statement = sql.SQL(_DIGESTED).format(columns=_listed(columns), rows=rows)
    return _rows(connection.execute(statement))


def _table(connection: Connection, table: str) -> sql.Identifier:
    found = query(
        connection,
        """
        SELECT nspname, relname FROM pg_class c
          JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)""",
        table,
    )
    if not found:
        raise DatabaseError(f"there is no table {table}")
    return sql.Identifier(*found[0])


def _listed(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _rows(cursor: psycopg.Cursor[TupleRow]) -> Rows:
    ((number, sha256),) = cursor.fetchall()
    return Rows(number=number, sha256=sha256)


def invalid_indexes(url: str) -> set[str]:
    """Return the indexes that a failed CREATE INDEX CONCURRENTLY left, quoted."""
    with connect(url, purpose="migrate") as connection:
        return set(
            query_column(
                connection,
                """
                SELECT format('%I.%I', nspname, relname)
                FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                  JOIN pg_namespace n ON n.oid = relnamespace
                WHERE NOT indisvalid AND relkind = 'i'
                  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p
                                  WHERE p.index_relid = indexrelid)""",
            )
        )


def drop_indexes(url: str, names: set[str], *, lock_wait: timedelta) -> None:
    """Drop indexes, named as `invalid_indexes` does, without blocking anybody.

    Raises:
        DatabaseError: a transaction that uses the table did not end in time.
    """
    if names:
        with connect(url, purpose="migrate", lock_wait=lock_wait) as connection:
            for name in sorted(names):
                connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}".encode())
