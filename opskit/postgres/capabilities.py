"""What a server offers to a restore, and what the role of a connection may do there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from opskit.postgres import roles
from opskit.postgres.connect import (
    Connection,
    query,
    query_column,
    query_value,
    server_major,
)

_FIRST_WITH_BUILTIN_PROVIDER = 17


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a server offers.

    `extensions` maps each name to the versions that can be created; `settings` are the
    parameters that it knows.
    """

    extensions: dict[str, frozenset[str]]
    settings: frozenset[str]
    tablespaces: frozenset[str]
    roles: frozenset[str]
    access_methods: frozenset[str]
    has_icu: bool
    has_builtin_provider: bool
    superusers: frozenset[str] = frozenset()


def take(connection: Connection) -> Capabilities:
    """Ask the server of any of its databases."""
    versions: dict[str, set[str]] = {}
    for name, version in query(
        connection, "SELECT name, version FROM pg_available_extension_versions"
    ):
        versions.setdefault(name, set()).add(version)

    def names(statement: LiteralString) -> frozenset[str]:
        return frozenset(query_column(connection, statement))

    return Capabilities(
        extensions={name: frozenset(each) for name, each in versions.items()},
        settings=names("SELECT lower(name) FROM pg_settings"),
        tablespaces=names("SELECT spcname FROM pg_tablespace"),
        roles=names("SELECT rolname FROM pg_roles"),
        access_methods=names("SELECT amname FROM pg_am"),
        has_icu=bool(
            query_value(
                connection,
                # Lower numbers stand in the catalog of every build.
                "SELECT EXISTS (SELECT FROM pg_collation "
                "WHERE collprovider = 'i' AND oid >= 12000)",
            )
        ),
        has_builtin_provider=server_major(connection) >= _FIRST_WITH_BUILTIN_PROVIDER,
        superusers=roles.superusers(connection),
    )


def is_superuser(connection: Connection) -> bool:
    """Return whether the connection's role may do anything."""
    return bool(
        query_value(
            connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
        )
    )


def has_locale(connection: Connection, name: str) -> bool:
    """Return whether the server's operating system knows a locale.

    Asked by a setting that the server checks with `setlocale`; it is set back.
    """
    refusal = psycopg.errors.InvalidParameterValue
    return _can(
        connection, "SELECT set_config('lc_monetary', %s, true)", name, refusal=refusal
    )


def has_xml(connection: Connection) -> bool:
    """Return whether the server was built to read XML."""
    refusal = psycopg.errors.FeatureNotSupported
    return _can(connection, "SELECT '<a/>'::xml", refusal=refusal)


def _can(
    connection: Connection,
    statement: LiteralString,
    *parameters: object,
    refusal: type[psycopg.Error],
) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            query(connection, statement, *parameters)
    except refusal:
        return False
    return True


def has_setting(connection: Connection, name: str) -> bool:
    """Return whether the server knows a parameter, also by the name it once had."""
    return query_value(connection, "SELECT current_setting(%s, true)", name) is not None


def of_sessions(connection: Connection, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that a session can have for itself."""
    servers = query(
        connection,
        "SELECT lower(name) FROM pg_settings "
        "WHERE context IN ('internal', 'postmaster', 'sighup')",
    )
    return {
        name: value
        for name, value in settings.items()
        if (name.lower(),) not in servers
    }


def has_collation(connection: Connection, schema: str, name: str) -> bool:
    """Return whether a collation exists in the connection's database."""
    return bool(
        query_value(
            connection,
            """
            SELECT EXISTS (SELECT FROM pg_collation c
              JOIN pg_namespace n ON n.oid = c.collnamespace
              WHERE n.nspname = %s AND c.collname = %s
                AND c.collencoding IN (-1, (SELECT encoding FROM pg_database
                                            WHERE datname = current_database())))
            """,
            schema,
            name,
        )
    )


def system_identifier(connection: Connection) -> str:
    """Return the number that initdb gave the server's cluster and its standbys."""
    return str(
        query_value(connection, "SELECT system_identifier FROM pg_control_system()")
    )


def unreadable_relations(connection: Connection) -> list[str]:
    """Return the tables and sequences whose content a dump needs and may not read."""
    return query_column(
        connection,
        """
        SELECT c.oid::regclass::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT (has_schema_privilege(n.oid, 'USAGE')
            AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                     ELSE has_table_privilege(c.oid, 'SELECT') END)
        ORDER BY 1
        """,
    )


def role_in_place_of_ours(connection: Connection) -> tuple[str, str, str] | None:
    """Return the session's role, quoted, if a setting put it in place of our own.

    With it come our own role and the database, quoted as well.
    """
    ((given, ours, database),) = query(
        connection,
        "SELECT quote_ident(current_user), quote_ident(session_user), "
        "quote_ident(current_database())",
    )
    return None if given == ours else (given, ours, database)


def unreadable_large_objects(connection: Connection) -> list[str]:
    """Return the numbers of the large objects that the role may not read.

    No predefined role gives that right.
    """
    return query_column(
        connection,
        """
        SELECT m.oid::text FROM pg_largeobject_metadata m
        WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
          AND NOT pg_has_role(m.lomowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a
            WHERE a.privilege_type = 'SELECT'
              AND (a.grantee = 0 OR pg_has_role(nullif(a.grantee, 0), 'USAGE')))
        ORDER BY m.oid
        """,
    )


def hidden_tables(connection: Connection) -> list[str]:
    """Return the tables whose row security applies to the role."""
    return query_column(
        connection,
        """
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relkind IN ('r', 'p') AND row_security_active(c.oid) ORDER BY 1
        """,
    )
