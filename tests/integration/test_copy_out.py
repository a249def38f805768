"""COPY read from libpq: whole, in pieces, broken off, and refused half-way."""

from __future__ import annotations

import re
from typing import LiteralString

import pytest
from psycopg import sql

from opskit.errors import DatabaseError, Interrupted
from opskit.postgres.connect import Connection, connect, query_value, translated
from opskit.postgres.content import BATCH_BYTES, rows_in_pieces
from tests.conftest import MakeDatabase

_HUGE = "SELECT repeat('x', 3 * 1024 * 1024) UNION ALL SELECT 'a' UNION ALL SELECT 'b'"
_MANY = "SELECT i, repeat('y', 100) FROM generate_series(1, 50000) i"
# Not in FROM: the server would make all rows before it sends the first.
_ENDLESS = "SELECT generate_series(1, 100000000)"
_BREAKS = "SELECT 1 / (30000 - i) FROM generate_series(1, 50000) i"


def _copy(select: LiteralString) -> sql.Composed:
    return sql.SQL("COPY ({}) TO STDOUT").format(sql.SQL(select))


def _read(connection: Connection, select: LiteralString) -> list[bytes]:
    return list(rows_in_pieces(connection, _copy(select), alive=lambda: None))


def test_pieces_hold_what_psycopg_reads(make_database: MakeDatabase) -> None:
    """Put together, the pieces are what psycopg's own reading gives."""
    with connect(make_database(), purpose="test") as connection:
        with connection.cursor() as cursor, cursor.copy(_copy(_MANY)) as rows:
            expected = b"".join(rows)

        pieces = _read(connection, _MANY)

    assert b"".join(pieces) == expected
    assert 1 < len(pieces) < 100


def test_a_huge_row_is_cut_and_keeps_its_place(make_database: MakeDatabase) -> None:
    """No piece is larger than a batch where a row is; what follows comes after it."""
    with connect(make_database(), purpose="test") as connection:
        pieces = _read(connection, _HUGE)

    assert b"".join(pieces) == b"x" * 3 * 1024 * 1024 + b"\na\nb\n"
    assert max(map(len, pieces)) == BATCH_BYTES


@pytest.mark.parametrize(
    ("select", "words"),
    [
        (_BREAKS, "rows: division by zero"),
        ("SELECT * FROM public.nowhere", 'relation "public.nowhere" does not exist'),
    ],
)
def test_what_the_server_refuses_is_raised(
    make_database: MakeDatabase, select: LiteralString, words: str
) -> None:
    """At once or half-way, with its words; the connection is as good as before."""
    with connect(make_database(), purpose="test") as connection:
        with pytest.raises(DatabaseError, match=re.escape(words)), translated("rows"):
            _read(connection, select)
        after = _read(connection, "SELECT 1")

    assert after == [b"1\n"]


def test_reading_ends_where_alive_raises(make_database: MakeDatabase) -> None:
    """The COPY is cancelled, and the connection serves the next statement."""
    calls: list[int] = []

    def alive() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted("enough")

    with connect(make_database(), purpose="test") as connection:
        with pytest.raises(Interrupted):
            list(rows_in_pieces(connection, _copy(_ENDLESS), alive=alive))
        after = query_value(connection, "SELECT 7")

    assert after == 7


def test_a_server_that_goes_away_is_an_error(make_database: MakeDatabase) -> None:
    """A session that is ended in the middle of its rows is no end of the table."""
    url = make_database()
    with (
        connect(url, purpose="test") as other,
        connect(url, purpose="test") as connection,
    ):
        pid = connection.info.backend_pid

        def end_it() -> None:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))

        with pytest.raises(DatabaseError, match="terminat"), translated("rows"):
            list(rows_in_pieces(connection, _copy(_ENDLESS), alive=end_it))
