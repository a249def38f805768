"""Digests of what a restored copy holds, read by COPY: a path of its own.

The manifest's digests come from the bytes of the archive; these come from the server
that loaded it. A fault in either reader makes the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import sql

from opskit.postgres.archive.digest import (
    ContentDigest,
    LargeObjectDigest,
    LargeObjectsDigest,
    RowDigest,
)
from opskit.postgres.connect import Connection, query
from opskit.postgres.copy_out import BATCH_BYTES, rows_in_pieces
from opskit.progress import advance


def use_encoding(connection: Connection, encoding: str) -> None:
    """Read text in the encoding that the dump was written in."""
    if encoding == "SQL_ASCII":
        return  # its bytes come unconverted already, see `connect`
    connection.execute(
        sql.SQL("SET client_encoding = {}").format(sql.Literal(encoding))
    )


def table_digest(
    connection: Connection,
    schema: str,
    name: str,
    columns: Sequence[str],
    *,
    condition: str | None = None,
    alive: Callable[[], None] = lambda: None,
) -> ContentDigest:
    """Return rows and digest of a table, its columns in the order given.

    With a condition (a WHERE clause of an extension's own) only those rows count.
    `alive` is called now and then; it may raise to end the reading.

    Raises:
        DatabaseError: by the connection's own context, if the table is not readable.
    """
    table = sql.Identifier(schema, name)
    listed = sql.SQL(", ").join(map(sql.Identifier, columns))
    if condition is not None:
        # As pg_dump does it; the text comes from the source's own catalog.
        chosen = sql.SQL(condition)
        rows_of = sql.SQL("(SELECT {} FROM {} {})").format(listed, table, chosen)
    else:
        rows_of = sql.SQL("{} ({})" if columns else "{}").format(table, listed)
    statement = sql.SQL("COPY {} TO STDOUT").format(rows_of)
    digest = RowDigest()
    for piece in rows_in_pieces(connection, statement, alive=alive):
        digest.update(piece)
        advance(len(piece))
    return digest.result()


def writer(connection: Connection, schema: str, name: str) -> str:
    """Return the transaction that wrote one of a table's rows, empty without rows."""
    found = connection.execute(
        sql.SQL("SELECT xmin::text FROM ONLY {} LIMIT 1").format(
            sql.Identifier(schema, name)
        )
    ).fetchone()
    return found[0] if found else ""


def is_as_written(
    connection: Connection,
    schema: str,
    name: str,
    columns: Sequence[str],
    *,
    rows: int,
    by: str,
) -> bool:
    """Return whether a table has so many rows, all written by one transaction.

    If that transaction had ended before a digest was taken of as many rows, the columns
    hold today what the digest is of: whoever adds or changes a row writes it anew.

    Raises:
        DatabaseError: by the connection's own context, if a column is gone.
    """
    found = connection.execute(
        sql.SQL("SELECT count(*), {} FROM (SELECT {} FROM ONLY {}) AS rows").format(
            sql.SQL("count(*) FILTER (WHERE xmin <> {}::xid)").format(sql.Literal(by))
            if by
            else sql.SQL("0"),
            sql.SQL(", ").join(map(sql.Identifier, ["xmin", *columns])),
            sql.Identifier(schema, name),
        )
    ).fetchone()
    return found == (rows, 0)


def rows_inserted(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many rows the server has counted that came into each table.

    Rows that are gone again, for instance by a TRUNCATE, are counted as well.
    """
    return {
        (schema, name): count
        for schema, name, count in query(
            connection, "SELECT schemaname, relname, n_tup_ins FROM pg_stat_user_tables"
        )
    }


def sequence_value(connection: Connection, schema: str, name: str) -> tuple[int, bool]:
    """Return the last value of a sequence, and whether it was handed out."""
    row = connection.execute(
        sql.SQL("SELECT last_value, is_called FROM {}").format(
            sql.Identifier(schema, name)
        )
    ).fetchone()
    assert row is not None  # a sequence always has its one row
    return int(row[0]), bool(row[1])


def large_objects_digest(
    connection: Connection, *, alive: Callable[[], None] = lambda: None
) -> LargeObjectsDigest:
    """Return number, size and digest of all large objects, read piece by piece."""
    digest = LargeObjectDigest()
    for (oid,) in query(
        connection, "SELECT oid FROM pg_largeobject_metadata ORDER BY oid"
    ):
        digest.begin(oid)
        offset = 0
        while True:
            alive()
            ((piece,),) = query(
                connection, "SELECT lo_get(%s, %s, %s)", oid, offset, BATCH_BYTES
            )
            digest.update(bytes(piece))
            offset += len(piece)
            if len(piece) < BATCH_BYTES:
                break
        digest.end()
    return digest.result()
