"""Connection URLs: parameters, and what psycopg and programs are given of them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo

from opskit.errors import ConfigurationError, ReleaseRefused
from opskit.log import hide

# The same value must print the same wherever it is read: in the dump, on the source and
# in the restored copy, whatever a server, database or role has as its default. pg_dump
# pins the first five itself and leaves the others to chance.
PINNED_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
}
# A peer that vanished without a word is noticed within about two minutes.
_KEEPALIVES = {
    f"keepalives_{key}": each
    for key, each in (("idle", "60"), ("interval", "10"), ("count", "6"))
}
_BOUNDS = {"connect_timeout": "15", **_KEEPALIVES}
# Secrets that libpq reads from nowhere but a connection string or a service file.
_WITHOUT_VARIABLE = {"sslpassword", "oauth_client_secret"}
_WITHOUT_VARIABLE |= {"scram_client_key", "scram_server_key"}
_SECRETS = {"password", *_WITHOUT_VARIABLE}
# In the URL of a throw-away server: the user's variables are not meant for it. libpq
# reads no variable in place of this parameter, and the session has another name.
_ALONE = ("fallback_application_name", "opskit-throwaway")
# Parameters without a default of libpq's own that it refuses when they are empty.
# An empty `require_auth` would allow no password.
_NEVER_EMPTY = {
    "require_auth": "none,password,md5,gss,sspi,scram-sha-256",
    "sslcertmode": "allow",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
}
_NAME_BYTES_MAX = 63
_HOSTS = {"host", "hostaddr", "PGHOST", "PGHOSTADDR"}
_NUMBERS = {"port", "tcp_user_timeout", *_BOUNDS}


def parse(url: str) -> dict[str, str]:
    """Return the parameters of a connection URL, its secrets masked from now on.

    Raises ConfigurationError, and shows nothing of the URL: libpq's own words repeat a
    part of it, which may be one of the password.
    """
    try:
        parsed = conninfo.conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeEncodeError):
        raise _invalid("the connection URL is not valid") from None
    parameters = {key: str(value) for key, value in parsed.items()}
    names = {parameters.get(key) for key in ("user", "host", "dbname")}
    for secret in parameters.keys() & _SECRETS:
        if parameters[secret] not in names:
            hide(parameters[secret])
    _require_possible(url, parameters)
    return parameters


def server_of(url: str) -> str:
    """Return what the URLs of all databases of one server have in common.

    Raises:
        ConfigurationError: it is no connection URL.
    """
    given = parse(url)
    place = given.get("host") or given.get("hostaddr") or given.get("service", "")
    return f"{place}:{given.get('port') or 5432}"


def holds_secret(url: str) -> bool:
    """Return whether a connection URL holds a password or another secret.

    Raises:
        ConfigurationError: it is no connection URL.
    """
    return bool(parse(url).keys() & _SECRETS)


def _require_possible(url: str, parameters: Mapping[str, str]) -> None:
    """Refuse what libpq reads without complaint and could never connect to."""
    host, name = parameters.get("host", ""), parameters.get("dbname", "")
    # A / or a second @ in a password ends it there: the rest becomes host or database.
    # A host may begin with one: an abstract socket.
    if re.search(r"[@\s]", host[1:]) and not host.startswith("/"):
        raise _invalid("the connection URL names an impossible host")
    if "://" in url and name.count("@") > url.lower().count("%40"):
        raise _invalid("the connection URL has an @ behind the host")
    for key in parameters.keys() & _NUMBERS:
        for each in parameters[key].split(","):
            if not re.fullmatch(r"-?\d*", each):
                raise _invalid(f"{key} in the connection URL is not a number")
            if key == "port" and each and not 0 < int(each) < 65536:
                raise _invalid("the port in the connection URL does not exist")


def _invalid(what: str) -> ConfigurationError:
    return ConfigurationError(
        what,
        hint="Write it as postgresql://user:password@host:port/name, with special "
        "characters percent-encoded: %20 for a blank, %40 for @, %2F for /.",
    )


def bounded(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return connection parameters that do not wait for ever, where none are set."""
    return {**_BOUNDS, **parameters}


def throwaway_url(
    *, host: str, port: int, user: str, database: str, **parameters: str
) -> str:
    """Return the URL of a throw-away server, which no variable of libpq changes.

    Variables are for the user's own servers, and would lead elsewhere, or nowhere.
    """
    query = urlencode({_ALONE[0]: _ALONE[1], **parameters}, quote_via=quote)
    place = f"{quote(host, safe='')}:{port}/{quote(database, safe='')}"
    return f"postgresql://{user}@{place}?{query}"


def is_throwaway(parameters: Mapping[str, str]) -> bool:
    """Return whether the parameters are those of a `throwaway_url`."""
    return parameters.get(_ALONE[0]) == _ALONE[1]


def arguments(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return what psycopg is given to connect by these parameters.

    For a throw-away server all that libpq knows: it reads variables in place of others.
    """
    given = bounded(parameters)
    service = os.environ.get("PGSERVICE")
    if service:
        # libpq would look it up even where every parameter is given. From now on it
        # gets it as a parameter; `os.environ`, and so each program, keeps it.
        os.unsetenv("PGSERVICE")
    if not is_throwaway(parameters):
        return ({"service": service} if service else {}) | given
    defaults = {
        each.keyword.decode(): (each.compiled or b"").decode()
        for each in psycopg.pq.Conninfo.get_defaults()
        if each.envvar and each.keyword != b"service"
    }
    defaults |= {key: _NEVER_EMPTY[key] for key in _NEVER_EMPTY.keys() & defaults}
    return defaults | given


def _variables(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a connection by these parameters."""
    alone = is_throwaway(parameters)
    return {
        name: each
        for name, each in os.environ.items()
        if not (alone and name.startswith("PG"))
    }


def with_database(url: str, database: str, *, user: str = "") -> str:
    """Return the URL's parameters with another database name, and user if given."""
    other = {"dbname": database} | ({"user": user} if user else {})
    return conninfo.make_conninfo(**(parse(url) | other))


def url_of_database(url: str, database: str) -> str:
    """Return a URL that leads to another database of the same server."""
    parameters = parse(url) | {"dbname": database}
    return f"postgresql://?{urlencode(parameters, quote_via=quote)}"


def for_tools(url: str) -> str:
    """Return the URL as drivers on libpq take it: a socket's folder is a parameter.

    The name and the options of a session are left to variables.

    Raises:
        ReleaseRefused: it names a service, which would lead drivers elsewhere.
    """
    parameters = parse(url)
    if "service" in parameters:
        raise ReleaseRefused(
            "the URL names a service, which a migration tool cannot be given",
            hint="Write host, port, user and database into the URL.",
        )
    who = quote(parameters.pop("user", ""), safe="")
    if "password" in parameters:
        who += ":" + quote(parameters.pop("password"), safe="")
    name = quote(parameters.pop("dbname", ""), safe="")
    for elsewhere in ("options", "application_name", _ALONE[0]):
        parameters.pop(elsewhere, None)
    return f"postgresql://{who}@/{name}?{urlencode(parameters, quote_via=quote)}"


def session_options(url: str) -> str:
    """Return the options of a session that the URL or a variable asks for."""
    parameters = parse(url)
    return parameters.get("options") or _variables(parameters).get("PGOPTIONS", "")


def database_name(url: str) -> str:
    """Return the name of the database that a URL leads to, as libpq resolves it."""
    parameters = parse(url)
    name = parameters.get("dbname") or os.environ.get("PGDATABASE")
    return name or parameters.get("user") or os.environ.get("PGUSER") or ""


def target(text: str) -> tuple[str, str]:
    """Return the URL (empty for a mere name) and the name that a person's text means.

    Whatever may be a connection string is read as one or refused by ConfigurationError,
    and not shown: as a name, its password would be made the name of a database.
    """
    if "=" not in text and "://" not in text:
        url, name = "", text
    else:
        if "://" in text and not text.startswith(("postgresql://", "postgres://")):
            raise _no_target("the target is a URL of something else than PostgreSQL")
        try:
            name = parse(text).get("dbname", "")
        except ConfigurationError as error:
            raise _no_target(
                f"the target is neither the name of a database nor one of its URLs: "
                f"{error.message}"
            ) from None
        url = text
    if not name:
        raise _no_target("the target names no database")
    # Bytes of a command line that are not UTF-8 are lone surrogates.
    if any("\ud800" <= each <= "\udfff" for each in name):
        raise _no_target("the target's name is not in UTF-8")
    if len(name.encode()) > _NAME_BYTES_MAX:
        raise _no_target(
            f"the target's name is longer than PostgreSQL's {_NAME_BYTES_MAX} bytes"
        )
    return url, name


def is_connection(text: str) -> bool:
    """Return whether a text is a URL, or is read as a connection string by libpq."""
    if "://" in text:
        return True
    try:
        return bool(parse(text))
    except ConfigurationError:
        return False


def _no_target(what: str) -> ConfigurationError:
    return ConfigurationError(
        what,
        hint="Give the name of a database on the source's server, or "
        "postgresql://user@host:port/name with special characters percent-encoded "
        "(%3D for =, %2F for /); leave the password to PGPASSFILE.",
    )


def client_environment(url: str) -> dict[str, str]:
    """Return the environment for PostgreSQL's programs: the password, and the pins.

    The rest goes by `client_connection`, which a service file cannot overrule.
    """
    parameters = parse(url)
    environment = _variables(parameters)
    if "password" in parameters:
        environment["PGPASSWORD"] = parameters["password"]
    environment["PGOPTIONS"] = f"{session_options(url)} {PINNED_OPTIONS}".strip()
    return environment


def client_connection(url: str) -> str:
    """Return the parameters of a URL but for its password, as a conninfo.

    The database is always named, unless a service names it: programs take a bare name
    that looks like a URL for one. So is the folder of the socket, where no host is:
    each build of libpq has its own. ConfigurationError: a secret has no other way.
    """
    parameters = bounded(parse(url))
    for secret in _WITHOUT_VARIABLE & parameters.keys():
        raise ConfigurationError(
            f"{secret} in the URL would stand on pg_dump's command line",
            hint="Put it into a service file (PGSERVICEFILE) instead.",
        )
    for elsewhere in ("password", "options"):
        parameters.pop(elsewhere, None)
    variables = _variables(parameters).keys()
    if "service" not in parameters and "PGSERVICE" not in variables:
        if "dbname" not in parameters:
            parameters["dbname"] = database_name(url)
        if not (parameters.keys() | variables) & _HOSTS:
            parameters["host"] = _socket_folder()
    return conninfo.make_conninfo(**parameters)


@functools.cache
def _socket_folder() -> str:
    """Return where psycopg looks for a socket: its libpq says so of any connection."""
    started = psycopg.pq.PGconn.connect_start(b"dbname=none")
    folder = started.host.decode()
    started.finish()
    return folder


def with_settings(url: str, settings: Mapping[str, str]) -> str:
    """Return the URL's parameters with settings for each session made by them."""
    parameters = parse(url)
    # Nothing is cut off at the end: a value may end in a blank.
    options = f"{parameters.get('options', '')} {_as_options(settings)}".lstrip()
    return conninfo.make_conninfo(**(parameters | {"options": options}))


def _as_options(settings: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return re.sub(r"([\\\s])", r"\\\1", value)

    return " ".join(f"-c {name}={escaped(each)}" for name, each in settings.items())


PINNED_OPTIONS = _as_options(PINNED_SETTINGS)
