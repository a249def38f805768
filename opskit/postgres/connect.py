"""psycopg connections; its errors are translated here and nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, LiteralString

import psycopg
from psycopg import conninfo, pq, sql
from psycopg.rows import TupleRow, tuple_row

from opskit.errors import ConfigurationError, DatabaseError, OpskitError
from opskit.log import mask

Connection = psycopg.Connection[TupleRow]
CONNECT_TIMEOUT_SECONDS = 15

# The same value must print the same wherever it is read: in the dump, on the source and
# in the restored copy, whatever a server, database or role has as its default. The
# first four are what pg_dump pins itself; it leaves the last two to chance.
PINNED_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "row_security": "off",
    "TimeZone": "UTC",
    "bytea_output": "hex",
}
_UNBOUNDED = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}


def pinned_options(extra: Mapping[str, str] | None = None) -> str:
    """Return the pinned settings in the form of libpq's `options`."""
    settings = PINNED_SETTINGS | _UNBOUNDED | dict(extra or {})
    return " ".join(
        f"-c {name}={value.replace(' ', chr(92) + ' ')}"
        for name, value in settings.items()
    )


def parse(url: str) -> dict[str, str]:
    """Return the parameters of a connection URL.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        return {
            key: str(value) for key, value in conninfo.conninfo_to_dict(url).items()
        }
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"the connection URL is not valid: {mask(str(error)).strip()}",
            hint="Write it as postgresql://user@host:port/name; special characters "
            "in it are percent-encoded.",
        ) from None


def with_database(url: str, database: str) -> str:
    """Return the URL's parameters with another database name."""
    return conninfo.make_conninfo(**(parse(url) | {"dbname": database}))


def database_name(url: str) -> str:
    """Return the name of the database that a URL leads to, as libpq resolves it."""
    parameters = parse(url)
    name = parameters.get("dbname") or os.environ.get("PGDATABASE")
    return name or parameters.get("user") or os.environ.get("PGUSER") or ""


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what psycopg raises in the block into a DatabaseError.

    Raises:
        DatabaseError: with the server's own words and what to do.
    """
    try:
        yield
    except OpskitError:
        raise
    except psycopg.Error as error:
        words = mask(" ".join(str(error).split()))
        raise DatabaseError(f"{doing}: {words}", hint=_hint(error, words)) from error


@contextlib.contextmanager
def connect(
    url: str, *, purpose: str, autocommit: bool = True, database: str | None = None
) -> Iterator[Connection]:
    """Yield a connection whose session prints values as pg_dump would.

    The search path is empty but for pg_catalog, so that every name that the server
    writes is qualified. The application name tells an administrator who this is.

    Raises:
        DatabaseError: the server is unreachable or refuses, now or in the block.
    """
    parameters = parse(url)
    if database is not None:
        parameters["dbname"] = database
    parameters["application_name"] = f"opskit {purpose}"
    parameters["options"] = (
        f"{parameters.get('options', '')} {pinned_options()}".strip()
    )
    parameters.setdefault("connect_timeout", str(CONNECT_TIMEOUT_SECONDS))
    # conninfo strings may hold NUL-free text only, and psycopg wants them typed Any.
    arguments: dict[str, Any] = dict(parameters)
    name = parameters.get("dbname") or database_name(url)
    with (
        translated(f"database {name}"),
        psycopg.connect(
            **arguments, autocommit=autocommit, row_factory=tuple_row
        ) as connection,
    ):
        with_codec(connection)
        connection.execute("SET search_path = ''")
        if not autocommit:
            connection.commit()
        yield connection


def with_codec(connection: Connection) -> None:
    """Read text as UTF-8, whatever the database's encoding is.

    SQL_ASCII has no conversions; its bytes are read as they are.
    """
    if connection.info.parameter_status("server_encoding") != "SQL_ASCII":
        connection.execute("SET client_encoding = 'UTF8'")


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


def client_environment(
    url: str, *, options: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment in which PostgreSQL's programs reach this database.

    Everything goes by the environment, so that no password is ever on a command line;
    see `client_arguments` for the few parameters that have no variable.
    """
    environment = dict(os.environ)
    for option in _parsed(url):
        if option.envvar and option.val is not None:
            environment[option.envvar.decode()] = option.val.decode()
    inherited = environment.get("PGOPTIONS", "")
    environment["PGOPTIONS"] = f"{inherited} {pinned_options(options)}".strip()
    environment.setdefault("PGCONNECT_TIMEOUT", str(CONNECT_TIMEOUT_SECONDS))
    return environment


def client_connection(url: str) -> str:
    """Return the part of a URL that has no environment variable, as a conninfo.

    None of those parameters is secret, so it may stand on a command line. It always
    names the database: programs take a bare name that looks like a URL for one.
    """
    rest = {
        option.keyword.decode(): option.val.decode()
        for option in _parsed(url)
        if not option.envvar and option.val is not None
    }
    return conninfo.make_conninfo(**(rest | {"dbname": database_name(url)}))


def _parsed(url: str) -> list[pq.ConninfoOption]:
    try:
        return pq.Conninfo.parse(conninfo.make_conninfo(**parse(url)).encode())
    except psycopg.Error as error:
        raise ConfigurationError(f"the connection URL is not valid: {error}") from None


_HINTS = (
    ("password authentication failed", "Check the user and the password (PGPASSFILE, "
     "url_file or the environment)."),
    ("no password supplied", "Give the password in a PGPASSFILE, by url_file or in the "
     "environment."),
    ("no pg_hba.conf entry", "Allow this host and user in the server's pg_hba.conf."),
    ("does not exist", "Check the name in the URL; `psql --list` shows what is there."),
    ("permission denied", "Grant the right to the role that opskit connects as, for "
     "instance: GRANT pg_read_all_data TO that_role."),
    ("could not translate host name", "Check the host name in the URL."),
    ("failed to resolve host", "Check the host name in the URL."),
    ("too many connections", "Free a connection on the server, or raise its limit."),
    ("the database system is", "Wait until the server has started, then "
     "run this again."),
)  # fmt: skip


def _hint(error: psycopg.Error, words: str) -> str:
    for pattern, hint in _HINTS:
        if pattern in words:
            return hint
    if isinstance(error, psycopg.OperationalError):
        return (
            "Check that the server runs and that host and port are reachable from here."
        )
    return "The server's own words say what it refused."
