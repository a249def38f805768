"""What a server offers to a restore: extensions, locales, settings, roles, rights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg

from opskit.postgres import roles
from opskit.postgres.connect import Connection, query, query_value, server_major

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
    return Capabilities(
        extensions={name: frozenset(each) for name, each in versions.items()},
        settings=_names(query(connection, "SELECT lower(name) FROM pg_settings")),
        tablespaces=_names(query(connection, "SELECT spcname FROM pg_tablespace")),
        roles=_names(query(connection, "SELECT rolname FROM pg_roles")),
        access_methods=_names(query(connection, "SELECT amname FROM pg_am")),
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
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT set_config('lc_monetary', %s, true)", (name,))
    except psycopg.errors.InvalidParameterValue:
        return False
    return True


def has_xml(connection: Connection) -> bool:
    """Return whether the server was built to read XML."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def has_setting(connection: Connection, name: str) -> bool:
    """Return whether the server knows a parameter, be it by a name of former majors."""
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


def _names(rows: Iterable[tuple[str, ...]]) -> frozenset[str]:
    return frozenset(name for (name,) in rows)


def system_identifier(connection: Connection) -> str:
    """Return the number that initdb gave the server's cluster and its standbys."""
    return str(
        query_value(connection, "SELECT system_identifier FROM pg_control_system()")
    )
