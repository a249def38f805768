"""Digests of what a restored copy holds, read by COPY: a path of its own.

The manifest's digests come from the bytes of the archive; these come from the server
that loaded it. A fault in either reader makes the two differ.
"""

from __future__ import annotations

import codecs
import select
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import LiteralString

import psycopg
from psycopg import pq, sql

from opskit.postgres.archive.digest import (
    ContentDigest,
    LargeObjectDigest,
    LargeObjectsDigest,
    RowDigest,
)
from opskit.postgres.connect import (
    Connection,
    execute,
    query,
    query_column,
    query_value,
)
from opskit.progress import advance

BATCH_BYTES = 1024 * 1024
_PIECE_BYTES = 256 * 1024
# So often `alive` is asked at least.
_WAIT_MILLISECONDS = 1000


def rows_in_pieces(
    connection: Connection, statement: sql.Composed, *, alive: Callable[[], None]
) -> Iterator[bytes]:
    """Yield the text of a COPY TO STDOUT: small rows together, large ones cut.

    `alive` is called now and then; it may raise to end the reading. Raises
    psycopg.Error.
    """
    libpq = connection.pgconn
    next_row = libpq.get_copy_data
    arrival = select.poll()
    arrival.register(libpq.socket, select.POLLIN)
    with connection.cursor() as cursor, cursor.copy(statement):
        held = BytesIO()
        hold = held.write
        while True:
            size_bytes, row = next_row(1)
            while size_bytes > 0:
                if size_bytes < BATCH_BYTES:
                    hold(row)
                else:
                    # Joined or split as a whole, a huge row would be held twice more.
                    yield held.getvalue()
                    held.seek(0)
                    held.truncate()
                    for start in range(0, size_bytes, BATCH_BYTES):
                        yield bytes(row[start : start + BATCH_BYTES])
                size_bytes, row = next_row(1)
            if size_bytes < 0:
                break
            if held.tell() >= _PIECE_BYTES:
                yield held.getvalue()
                held.seek(0)
                held.truncate()
                alive()
            while not arrival.poll(_WAIT_MILLISECONDS):
                alive()
            libpq.consume_input()
        _require_end(libpq)
        yield held.getvalue()


def _require_end(libpq: pq.abc.PGconn) -> None:
    """Take the COPY's outcome to free the connection; psycopg.Error if it failed."""
    failed = None
    # All that is left of the answer is a few bytes, and on its way.
    while (result := libpq.get_result()) is not None:
        if result.status != pq.ExecStatus.COMMAND_OK:
            failed = result
    if failed is None:
        return
    state = failed.error_field(pq.DiagnosticField.SQLSTATE) or b""
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state.decode())
    except KeyError:
        kind = psycopg.OperationalError
    raise kind(failed.get_error_message())


def use_encoding(connection: Connection, encoding: str) -> None:
    """Read text in the encoding that the dump was written in."""
    if encoding == "SQL_ASCII":
        return  # its bytes come unconverted already, see `connect`
    execute(connection, "SET client_encoding = {encoding}", encoding=encoding)


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
    statement: LiteralString = "SELECT xmin::text FROM ONLY {}.{} LIMIT 1"
    row = execute(connection, statement, schema, name).fetchone()
    return row[0] if row else ""


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

    If that ended before a digest was taken of as many rows, the columns hold today what
    the digest is of: whoever adds or changes a row writes it anew.
    """
    count: LiteralString = (
        "count(*), count(*) FILTER (WHERE xmin IS DISTINCT FROM nullif({by}, '')::xid)"
    )
    of_rows = "{}, " * len(columns) + "xmin FROM ONLY {}.{}"
    statement = f"SELECT {count} FROM (SELECT {of_rows}) AS rows"  # noqa: S608
    counts = execute(connection, statement, *columns, schema, name, by=by)
    return counts.fetchone() == (rows, 0)


def runs_own_code(connection: Connection) -> bool:
    """Return whether functions of the database itself may run when it is loaded.

    What calls one depends on it in the catalog. Loading rows fires no trigger and
    computes no default, and a function that only others call needs one of those as
    well. Libraries may do anything.
    """
    return bool(query_value(connection, _OWN_CODE))


_OWN_CODE = """
    SELECT EXISTS (
        SELECT FROM pg_depend d
        LEFT JOIN pg_attrdef e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid
        LEFT JOIN pg_attribute a ON (a.attrelid, a.attnum) = (e.adrelid, e.adnum)
        WHERE d.refclassid = 'pg_proc'::regclass
          AND d.classid NOT IN ('pg_proc'::regclass, 'pg_trigger'::regclass)
          AND d.objid >= 16384 -- those below are every database's
          AND a.attgenerated IS DISTINCT FROM ''
    ) OR EXISTS (
        SELECT FROM pg_settings
        WHERE name LIKE '%preload_libraries' AND setting <> ''
    )"""


def rows_inserted(connection: Connection) -> dict[tuple[str, str], int]:
    """Return how many rows came into each table, also those that are gone again."""
    return {
        (schema, name): count
        for schema, name, count in query(
            connection, "SELECT schemaname, relname, n_tup_ins FROM pg_stat_user_tables"
        )
    }


def sequence_value(connection: Connection, schema: str, name: str) -> tuple[int, bool]:
    """Return the last value of a sequence, and whether it was handed out."""
    statement: LiteralString = "SELECT last_value, is_called FROM {}.{}"
    row = execute(connection, statement, schema, name).fetchone()
    assert row is not None  # a sequence always has its one row
    return int(row[0]), bool(row[1])


def large_objects_digest(connection: Connection) -> LargeObjectsDigest:
    """Return number, size and digest of all large objects, read piece by piece."""
    digest = LargeObjectDigest()
    for oid in query_column(
        connection, "SELECT oid FROM pg_largeobject_metadata ORDER BY oid"
    ):
        digest.begin(oid)
        offset = 0
        while True:
            ((piece,),) = query(
                connection, "SELECT lo_get(%s, %s, %s)", oid, offset, BATCH_BYTES
            )
            digest.update(bytes(piece))
            offset += len(piece)
            if len(piece) < BATCH_BYTES:
                break
        digest.end()
    return digest.result()


# Where Python has another name. It has no codec for the last two: what is not ASCII is
# escaped.
_CODECS = {"SQL_ASCII": "latin-1", "KOI8R": "koi8-r", "KOI8U": "koi8-u"}
_CODECS |= {"EUC_CN": "gb2312", "EUC_TW": "utf-8", "MULE_INTERNAL": "utf-8"}


def python_codec(encoding: str) -> str:
    """Return the codec of a PostgreSQL server encoding; LookupError if it is none.

    Callers decode with `surrogateescape`, so that bytes which no codec knows survive.
    """
    return codecs.lookup(_CODECS.get(encoding, encoding.replace("WIN", "cp"))).name
