"""psycopg's sessions; its errors are translated here and nowhere else.

A server's SQLSTATE tells a fault of the server or its machine from what it refuses.
Words decide only where there is none: libpq gives none for a refused connection, so its
words choose the hint, see `_REFUSALS`; what pg_dump and pg_restore report has no other
form, see `client.complaints`, `backup.stream` and `restore.load`.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, dict_row, tuple_row

from opskit.errors import DatabaseError, OpskitError, ServerFault
from opskit.log import mask
from opskit.postgres.parameters import (
    PINNED_OPTIONS,
    PINNED_SETTINGS,
    arguments,
    database_name,
    is_throwaway,
    parse,
)

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
    """Turn what psycopg raises in the block into a DatabaseError with a hint.

    It is a ServerFault if the server or a machine failed, or the connection was lost.
    """
    try:
        yield
    except OpskitError:
        raise
    except psycopg.Error as error:
        words = mask(" ".join(str(error).split()))
        kind = ServerFault if _is_servers(error) else DatabaseError
        state = error.sqlstate or ""
        hint = hint_for(error, words)
        raise kind(doing, said=words, hint=hint, sqlstate=state) from error


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
    statement waits longer than `lock_wait` for a lock. What psycopg raises, in the
    block too, is `translated`.
    """
    parameters = parse(url)
    if database is not None:
        parameters["dbname"] = database
    parameters["application_name"] = f"opskit {purpose}"
    # The first statement must not meet the limit that a database or a role sets.
    parameters["options"] = (
        f"{parameters.get('options', '')} {PINNED_OPTIONS} -c statement_timeout=0"
    ).lstrip()
    # From the start: psycopg does not know every encoding that a server may have.
    parameters["client_encoding"] = "UTF8"
    name = parameters.get("dbname") or database_name(url)
    with (
        translated(f"database {name}"),
        psycopg.connect(
            **arguments(parameters), autocommit=autocommit, row_factory=tuple_row
        ) as connection,
    ):
        _prepare(connection, pin=is_throwaway(parameters))
        limit = 0 if lock_wait is None else milliseconds(lock_wait)
        execute(connection, "SET lock_timeout = {limit}", limit=limit)
        if not autocommit:
            connection.commit()
        yield connection


def require_pinned(connection: Connection, settings: Mapping[str, str]) -> None:
    """Raise DatabaseError, with the reason, if a session lacks its settings."""
    for name, value in PINNED_SETTINGS.items():
        # DateStyle is shown with the order of its fields, which decides no output.
        if settings.get(name, "").partition(",")[0] != value:
            info = connection.info
            what = "the connection pooler" if is_pooled(connection) else "something"
            raise DatabaseError(
                f"{name} is {settings.get(name)!r} and not {value!r}: {what} at "
                f"{info.host}:{info.port} did not pass on the settings of the session",
                hint="Connect to the server itself. PgBouncer drops them where "
                "ignore_startup_parameters holds options.",
            )


def is_pooled(connection: Connection) -> bool:
    """Return whether somebody stands between this session and its server process."""
    pid = query_value(connection, "SELECT pg_backend_pid()")
    return bool(pid != connection.info.backend_pid)


def milliseconds(wait: timedelta) -> int:
    """Return a wait as the server counts it, where 0 would be no limit at all."""
    return max(1, wait // timedelta(milliseconds=1))


def _prepare(connection: Connection, *, pin: bool) -> None:
    if (
        pin
    ):  # again: PGTZ and PGDATESTYLE, which change them, are no parameters of libpq
        for name, value in PINNED_SETTINGS.items():
            query(connection, "SELECT set_config(%s, %s, false)", name, value)
    # SQL_ASCII has no conversions: its bytes come as they are, and LATIN1 reads any.
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.execute("SET client_encoding = 'LATIN1'")
    connection.execute("SET search_path = ''")
    for setting, since in _LIMITS_LIFTED.items():
        if server_major(connection) >= since:
            execute(connection, "SET {} = 0", setting)
    shown = query(
        connection,
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) each (name)",
        list(PINNED_SETTINGS),
    )
    require_pinned(connection, dict(shown))


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let the server end any statement of the session that takes longer."""
    execute(connection, "SET statement_timeout = {wait}", wait=int(seconds * 1000))


@contextlib.contextmanager
def cut_off(connection: Connection, after: timedelta) -> Iterator[None]:
    """End a connection if the block takes longer: what waits for it fails.

    It bounds waits for a server that is reached but does not answer.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as end:

        def shut() -> None:
            with contextlib.suppress(OSError):  # the block has just ended
                end.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(after.total_seconds(), shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def server_major(connection: Connection) -> int:
    """Return the major version of the server."""
    return connection.info.server_version // 10_000


def execute(
    connection: Connection, statement: LiteralString, *names: str, **values: object
) -> psycopg.Cursor[TupleRow]:
    """Run a statement in which each {} stands for a name, and {value} for a literal."""
    literals = {key: sql.Literal(each) for key, each in values.items()}
    identifiers = map(sql.Identifier, names)
    return connection.execute(sql.SQL(statement).format(*identifiers, **literals))


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


def query_column(
    connection: Connection, statement: LiteralString, *parameters: object
) -> list[Any]:
    """Run one statement and return the first column of its rows."""
    return [row[0] for row in query(connection, statement, *parameters)]


def has_row(
    connection: Connection, statement: LiteralString, *parameters: object
) -> bool:
    """Run one statement and return whether it gives a row."""
    return bool(
        query_value(connection, "SELECT EXISTS (" + statement + ")", *parameters)
    )


def records(
    connection: Connection, statement: LiteralString, *parameters: object
) -> list[dict[str, Any]]:
    """Run one statement and return its rows by the names of their columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, parameters or None).fetchall()


def user_query(connection: Connection, statement: str) -> list[TupleRow]:
    """Run a statement that the user wrote in the configuration."""
    return connection.execute(sql.SQL(statement)).fetchall()


# As psql writes them with VERBOSITY=verbose.
_ENDED = re.compile(r"^psql:\S+ (?:FATAL|PANIC):  ([0-9A-Z]{5}): ", re.MULTILINE)
_REFUSED_ROW = re.compile(r"^psql:\S+ ERROR:  ([0-9A-Z]{5}): ", re.MULTILINE)
_CODE = re.compile(r"^(?!00000)[0-9A-Z]{5}$", re.MULTILINE)
_SOURCE = re.compile(r"^LOCATION:  \S+, (\S+):\d+$", re.MULTILINE)
# Connection, insufficient resources, operator intervention, system error.
_CLASSES = ("08", "53", "57P", "58")
# The sources of PL/pgSQL, PL/Perl, PL/Python and others: pl_exec.c, plperl.c, …
_LANGUAGES = "pl"


def is_server_fault(sqlstate: str, source_file: str) -> bool:
    """Return whether an error says that the server or its machine failed.

    A function may raise any SQLSTATE; then a source file of its language reports it.
    """
    return sqlstate.startswith(_CLASSES) and not source_file.startswith(_LANGUAGES)


def ends_sessions(sqlstate: str) -> bool:
    """Return whether a server or connection is gone, or a function's session."""
    return sqlstate.startswith(("08", "57P"))


def last_error(variable: str, words: str) -> tuple[str, str]:
    """Return SQLSTATE and source file of the last error that a verbose psql met.

    `variable` is psql's LAST_ERROR_SQLSTATE, empty after a lost connection. An error's
    text may hold anything, but its source file comes after it. Before 18 psql does not
    set the variable for a COPY: of the codes in its words, which code of the set can
    add to but not take from, one that is no fault of the server's comes first.
    """
    codes = [*_ENDED.findall(words), *_CODE.findall(variable)]
    codes = codes[-1:] or sorted(
        _REFUSED_ROW.findall(words), key=lambda each: each.startswith(_CLASSES)
    )
    sources = _SOURCE.findall(words)
    return codes[0] if codes else "", sources[-1] if sources else ""


NEUTRAL = "The server's own words say what it refused."
_FREE = "Free a connection on the server, or raise its limit."
# Of a whole code, or of a class.
_BY_SQLSTATE = {
    "08P01": "Connect to the server itself: a connection pooler does not take every "
    "parameter of a session.",
    "28P01": "Check the user and the password (PGPASSFILE, url_file or the "
    "environment).",
    "28000": "Check the user, and allow it and this host in the server's pg_hba.conf.",
    "3D000": "Check the name in the URL; `psql --list` shows what is there.",
    "40001": "Set hot_standby_feedback = on on the standby, or raise "
    "max_standby_streaming_delay: its replay cancels queries that take long.",
    "42501": "Grant the right that the server names to the role that opskit connects "
    "as.",
    "53100": "Free some space on the server.",
    "53200": "Raise max_locks_per_transaction on the server, or free memory there.",
    "53300": _FREE,
    "55P03": "See in pg_locks who holds the lock; run this again when it is free.",
    "57P03": "Wait until the server has started, then run this again.",
}
# For a refused connection libpq gives no SQLSTATE, only the server's words.
_REFUSALS = (
    ("password authentication failed", _BY_SQLSTATE["28P01"]),
    ("no pg_hba.conf entry", _BY_SQLSTATE["28000"]),
    ("does not exist", _BY_SQLSTATE["3D000"]),
    ("permission denied for database", "Grant it: GRANT CONNECT ON DATABASE …"),
    ("too many", _FREE),
    ("connection slots", _FREE),
    ("the database system is", _BY_SQLSTATE["57P03"]),
    ("unsupported startup parameter", _BY_SQLSTATE["08P01"]),
)
_REFUSED = ("FATAL:", "ERROR:")


def hint_for(error: psycopg.Error, words: str) -> str:
    """Return what to do about an error of psycopg."""
    if error.sqlstate:
        return _BY_SQLSTATE.get(error.sqlstate, NEUTRAL)
    if error.pgconn is not None and error.pgconn.needs_password:
        return "Give the password in a PGPASSFILE, by url_file or in the environment."
    if any(each in words for each in _REFUSED):
        return next((hint for refusal, hint in _REFUSALS if refusal in words), NEUTRAL)
    if isinstance(error, psycopg.OperationalError):
        return (
            "Check that the server runs and that host and port are reachable from here."
        )
    return NEUTRAL


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def unquoted(identifier: str) -> str:
    """Return the name that an identifier stands for, whether it is quoted or not."""
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


def statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script of pg_dumpall, but no comments and commands.

    Semicolons and line ends inside quotes belong to a name or a value.
    """
    statement: list[str] = []
    quote = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", sql):
        if (
            not quote
            and not "".join(statement).strip()
            and line.startswith(("--", "\\"))
        ):
            continue
        for character in line:
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            if character == ";" and not quote:
                yield "".join(statement).strip()
                statement = []
            else:
                statement.append(character)
    rest = "".join(statement).strip()
    if rest:
        yield rest


def statements_by_role(text: str) -> Iterator[str]:
    """Yield the statements; one that is run as another role together with that."""
    unit: list[str] = []
    for statement in statements(text):
        unit.append(statement)
        as_another = unit[0].startswith("SET SESSION AUTHORIZATION")
        if not as_another or statement.startswith("RESET SESSION AUTHORIZATION"):
            yield "; ".join(unit)
            unit = []
    if unit:
        yield "; ".join(unit)
