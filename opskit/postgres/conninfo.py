"""Connection URLs: read, changed, and handed on to PostgreSQL's programs."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psycopg
from psycopg import conninfo, pq

from opskit.errors import ConfigurationError
from opskit.masking import mask

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
# A peer that vanished without a word is noticed within about two minutes.
_KEEPALIVES = {
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
_CONNECT_SECONDS_MAX = "15"
# The one secret that libpq reads from nowhere but the connection string.
_WITHOUT_VARIABLE = "sslpassword"


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


def bounded(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return connection parameters that do not wait for ever, where none are set."""
    return {"connect_timeout": _CONNECT_SECONDS_MAX, **_KEEPALIVES, **parameters}


def with_database(url: str, database: str) -> str:
    """Return the URL's parameters with another database name."""
    return conninfo.make_conninfo(**(parse(url) | {"dbname": database}))


def database_name(url: str) -> str:
    """Return the name of the database that a URL leads to, as libpq resolves it."""
    parameters = parse(url)
    name = parameters.get("dbname") or os.environ.get("PGDATABASE")
    return name or parameters.get("user") or os.environ.get("PGUSER") or ""


def client_environment(url: str) -> dict[str, str]:
    """Return the environment in which PostgreSQL's programs reach this database.

    Everything goes by the environment, so that no password is ever on a command line;
    see `client_connection` for the few parameters that have no variable.
    """
    environment = dict(os.environ)
    for option in _parsed(url):
        if option.envvar and option.val is not None:
            environment[option.envvar.decode()] = option.val.decode()
    inherited = environment.get("PGOPTIONS", "")
    environment["PGOPTIONS"] = f"{inherited} {pinned_options()}".strip()
    return environment


def client_connection(url: str) -> str:
    """Return the part of a URL that has no environment variable, as a conninfo.

    None of those parameters is secret, so it may stand on a command line. It always
    names the database: programs take a bare name that looks like a URL for one.

    Raises:
        ConfigurationError: the URL holds a secret that has no other way.
    """
    rest = {
        option.keyword.decode(): option.val.decode()
        for option in _parsed(url)
        if not option.envvar and option.val is not None
    }
    if _WITHOUT_VARIABLE in rest:
        raise ConfigurationError(
            "sslpassword in the URL would stand on pg_dump's command line",
            hint="Put it into a service file (PGSERVICEFILE) instead.",
        )
    return conninfo.make_conninfo(**(rest | {"dbname": database_name(url)}))


def pinned_options() -> str:
    """Return the pinned settings in the form of libpq's `options`."""
    return " ".join(f"-c {name}={value}" for name, value in PINNED_SETTINGS.items())


def _parsed(url: str) -> list[pq.ConninfoOption]:
    try:
        text = conninfo.make_conninfo(**bounded(parse(url)))
        return pq.Conninfo.parse(text.encode())
    except psycopg.Error as error:
        raise ConfigurationError(f"the connection URL is not valid: {error}") from None
