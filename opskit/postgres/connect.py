"""psycopg connections; its errors are translated here and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, tuple_row

from opskit.errors import DatabaseError, OpskitError, ServerFault
from opskit.masking import mask
from opskit.postgres import hints
from opskit.postgres.conninfo import (
    PINNED_SETTINGS,
    bounded,
    database_name,
    parse,
    pinned_options,
)
from opskit.postgres.faults import is_server_fault

Connection = psycopg.Connection[TupleRow]

# A server's own limits must not end a long dump; the first major that knows each.
_LIMITS_LIFTED = {
    "statement_timeout": 0,
    "idle_in_transaction_session_timeout": 0,
    "idle_session_timeout": 14,
    "transaction_timeout": 17,
}


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what psycopg raises in the block into a DatabaseError.

    Raises:
        ServerFault: the server or a machine failed, or the connection was lost.
        DatabaseError: the server refused; with its own words and what to do.
    """
    try:
        yield
    except OpskitError:
        raise
    except psycopg.Error as error:
        words = mask(" ".join(str(error).split()))
        kind = ServerFault if _is_servers(error) else DatabaseError
        raise kind(
            f"{doing}: {words}",
            hint=hints.of_error(error, words),
            sqlstate=error.sqlstate or "",
        ) from error


def _is_servers(error: psycopg.Error) -> bool:
    if error.sqlstate:
        return is_server_fault(error.sqlstate, error.diag.source_file or "")
    # Without a code no server answered: it was not reached, or the connection is lost.
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


@contextlib.contextmanager
def connect(
    url: str,
    *,
    purpose: str,
    autocommit: bool = True,
    database: str | None = None,
    lock_wait: timedelta | None = None,
) -> Iterator[Connection]:
    """Yield a connection whose session prints values as pg_dump would.

    The search path is empty but for pg_catalog, so that every name that the server
    writes is qualified. The application name tells an administrator who this is. No
    statement waits longer than `lock_wait` for a lock, if that is given.

    Raises:
        DatabaseError: the server is unreachable or refuses, now or in the block.
    """
    parameters = parse(url)
    if database is not None:
        parameters["dbname"] = database
    parameters["application_name"] = f"opskit {purpose}"
    parameters["options"] = (
        f"{parameters.get('options', '')} {pinned_options()}".lstrip()
    )
    # From the start: psycopg does not know every encoding that a server may have.
    parameters["client_encoding"] = "UTF8"
    arguments: dict[str, Any] = bounded(parameters)
    name = parameters.get("dbname") or database_name(url)
    with (
        translated(f"database {name}"),
        psycopg.connect(
            **arguments, autocommit=autocommit, row_factory=tuple_row
        ) as connection,
    ):
        _prepare(connection)
        _require_own_pinned(connection)
        limit = 0 if lock_wait is None else milliseconds(lock_wait)
        connection.execute(f"SET lock_timeout = {limit}".encode())
        if not autocommit:
            connection.commit()
        yield connection


def _require_own_pinned(connection: Connection) -> None:
    rows = query(
        connection,
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) each (name)",
        list(PINNED_SETTINGS),
    )
    require_pinned(connection, dict(rows))


def require_pinned(connection: Connection, settings: Mapping[str, str]) -> None:
    """Check that a session by the connection's URL has the settings it was sent.

    Raises:
        DatabaseError: it has another one; the message says who did not pass it on.
    """
    for name, value in PINNED_SETTINGS.items():
        # DateStyle is shown with the order of its fields, which decides no output.
        if settings.get(name, "").partition(",")[0] != value:
            info = connection.info
            is_pooled = info.backend_pid != query_value(
                connection, "SELECT pg_backend_pid()"
            )
            what = "the connection pooler" if is_pooled else "something"
            raise DatabaseError(
                f"{name} is {settings.get(name)!r} and not {value!r}: {what} at "
                f"{info.host}:{info.port} did not pass on the settings of the session",
                hint="Connect to the server itself. PgBouncer drops them where "
                "ignore_startup_parameters holds options.",
            )


def milliseconds(wait: timedelta) -> int:
    """Return a wait as the server counts it, where 0 would be no limit at all."""
    return max(1, wait // timedelta(milliseconds=1))


def _prepare(connection: Connection) -> None:
    # SQL_ASCII has no conversions: its bytes come as they are, and LATIN1 reads any.
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.execute("SET client_encoding = 'LATIN1'")
    connection.execute("SET search_path = ''")
    for setting, since in _LIMITS_LIFTED.items():
        if server_major(connection) >= since:
            connection.execute(sql.SQL("SET {} = 0").format(sql.Identifier(setting)))


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let the server end any statement of the session that takes longer."""
    connection.execute(
        sql.SQL("SET statement_timeout = {}").format(sql.Literal(int(seconds * 1000)))
    )


def server_major(connection: Connection) -> int:
    """Return the major version of the server."""
    return connection.info.server_version // 10_000


def query(
    connection: Connection, statement: LiteralString, *parameters: object
) -> list[TupleRow]:
    """Run one statement and return its rows."""
    return connection.execute(statement, parameters or None).fetchall()


def query_value(
    connection: Connection, statement: LiteralString, *parameters: object
) -> Any:
    """Run one statement and return the first column of its first row, or None."""
    row = connection.execute(statement, parameters or None).fetchone()
    return None if row is None else row[0]


def user_query(connection: Connection, statement: str) -> list[TupleRow]:
    """Run a statement that the user wrote in the configuration."""
    return connection.execute(sql.SQL(statement)).fetchall()
