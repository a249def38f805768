"""Reads what COPY sends, in pieces; the loop around each row is as short as can be.

psycopg's own iterator costs several times as much for each row as the server needs to
write it. It begins the COPY here and ends it, also where it is broken off; the rows in
between are taken from libpq itself.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from io import BytesIO

import psycopg
from psycopg import pq, sql

from opskit.postgres.connect import Connection

BATCH_BYTES = 1024 * 1024
_PIECE_BYTES = 256 * 1024
# So often `alive` is asked at least.
_WAIT_MILLISECONDS = 1000


def rows_in_pieces(
    connection: Connection, statement: sql.Composed, *, alive: Callable[[], None]
) -> Iterator[bytes]:
    """Yield the text of a COPY TO STDOUT: small rows together, large ones cut.

    `alive` is called now and then; it may raise to end the reading.

    Raises:
        psycopg.Error: the server refused or broke off; for `translated`.
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
    """Take the outcome of the COPY, which leaves the connection ready for the next.

    Raises:
        psycopg.Error: it did not come to its end.
    """
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
