"""A role that may read and write rows and nothing else, for as long as a load takes."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
from psycopg import conninfo, sql

from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres.connect import (
    Connection,
    connect,
    query,
    query_value,
    translated,
)
from opskit.postgres.conninfo import parse

_PREFIX = "opskit_rows_"
_MARK = "loads rows for opskit, and is dropped afterwards"
_VALID = "7 days"
_GRANTS: tuple[LiteralString, ...] = (
    "GRANT USAGE ON SCHEMA {} TO {}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}",
    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {} TO {}",
)


@dataclass(frozen=True, kw_only=True)
class RowsRole:
    """The role's name, and how to connect as it to the database that is loaded."""

    name: str
    url: str = field(repr=False)


@contextlib.contextmanager
def rows_role(
    connection: Connection, url: str, settings: Mapping[str, str]
) -> Iterator[RowsRole]:
    """Yield a new role that may log in and nothing else.

    A superuser's session cannot give its rights up for good: a function may take them
    back. So the role logs in by itself. `connection` is a superuser's, `url` leads to
    the database, `settings` are those of the role that only a superuser may set.

    Raises:
        DatabaseError: the server does not let the role in.
    """
    _drop_leftovers(connection)
    name, password = f"{_PREFIX}{secrets.token_hex(6)}", secrets.token_urlsafe(24)
    login = parse(url) | {"user": name, "password": password}
    role = RowsRole(name=name, url=conninfo.make_conninfo(**login))
    try:
        _create(connection, name, password, settings)
        with connect(role.url, purpose="restore"):
            pass
        yield role
    finally:
        _drop(connection, url, name)


def allow_rows(url: str, role: RowsRole) -> None:
    """Let the role read and write the rows of one database, until it is dropped.

    Its own code can give it a password that others know, so it gets no rights beyond
    that database.
    """
    with connect(url, purpose="restore") as connection:
        for (schema,) in query(
            connection,
            "SELECT nspname FROM pg_namespace "
            "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
        ):
            names = (sql.Identifier(schema), sql.Identifier(role.name))
            for grant in _GRANTS:
                connection.execute(sql.SQL(grant).format(*names))


def become_member(connection: Connection, role: RowsRole, owner: str) -> None:
    """Give the role another one's rights, until it is dropped."""
    names = (sql.Identifier(owner), sql.Identifier(role.name))
    with translated("role"):
        connection.execute(sql.SQL("GRANT {} TO {}").format(*names))


def _create(
    connection: Connection, name: str, password: str, settings: Mapping[str, str]
) -> None:
    # The server writes statements into its log: it gets no more than a hash.
    digest = connection.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    role = sql.Identifier(name)
    until = str(query_value(connection, "SELECT now() + %s::interval", _VALID))
    statements = [
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {}").format(
            role, sql.Literal(digest), sql.Literal(until)
        ),
        sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(_MARK)),
    ]
    statements += [
        sql.SQL("ALTER ROLE {} SET {} = {}").format(
            role, sql.Identifier(setting), sql.Literal(value)
        )
        for setting, value in settings.items()
        if value  # an empty list of libraries cannot be set so
    ]
    with translated("role"), connection.transaction():
        for statement in statements:
            connection.execute(statement)


def _drop(connection: Connection, url: str, name: str) -> None:
    """Drop the role, its grants and what code that it ran has made; never raise."""
    role = sql.Identifier(name)
    try:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            (name,),
        )
        with contextlib.suppress(DatabaseError), connect(url, purpose="restore") as it:
            it.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
    except psycopg.Error as error:
        logger().warning(
            "a role could not be dropped; drop it by hand", role=name, reason=str(error)
        )


def _drop_leftovers(connection: Connection) -> None:
    """Drop roles of loads that were killed: those with our mark, no longer valid.

    One that still owns something in a copy goes when that copy has gone.
    """
    for (name,) in query(
        connection,
        """
        SELECT rolname FROM pg_roles
        WHERE shobj_description(oid, 'pg_authid') = %s AND rolvaliduntil < now()
        """,
        _MARK,
    ):
        with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
