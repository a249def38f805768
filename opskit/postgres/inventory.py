"""What a restore needs from its surroundings: roles, extensions, locale, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from opskit.postgres import beyond_dumps, extensions, globals, roles
from opskit.postgres.connect import Connection, query, query_value, server_major
from opskit.postgres.patterns import excluded_relations

# Settings of the server whose values decide whether or how a dump can be loaded.
_SETTINGS = (
    "shared_preload_libraries",
    "session_preload_libraries",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "default_table_access_method",
    "default_toast_compression",
    "standard_conforming_strings",
    "block_size",
    "wal_level",
    "TimeZone",
)

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin", "d": "default"}
_LOCALE_COLUMNS = ("colliculocale", "colllocale")

Inventory = dict[str, Any]


def take(connection: Connection) -> Inventory:
    """Return the inventory of the connection's database as JSON-ready values."""
    return {
        **_database(connection),
        "roles": roles.take(connection),
        "needed_roles": roles.needed(connection),
        "owners": roles.owners(connection),
        "extensions": extensions.take(connection),
        "collations": _collations(connection),
        "tablespaces": _tablespaces(connection),
        "settings": _settings(connection),
        "database_settings": _database_settings(connection),
        "has_money": _has_money(connection),
        "has_public": bool(
            query_value(
                connection,
                "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')",
            )
        ),
        "not_dumped": globals.not_dumped(connection),
        "beyond_dumps": beyond_dumps.take(connection),
        "system_identifier": system_identifier(connection),
        "first_role": roles.first(connection),
        "size_bytes": query_value(
            connection, "SELECT pg_database_size(current_database())"
        ),
    }


def expected_tables(
    connection: Connection,
    *,
    exclude_tables: Sequence[str] = (),
    exclude_table_data: Sequence[str] = (),
) -> set[tuple[str, str]]:
    """Return the tables (schema, name) whose rows a dump of this snapshot must hold.

    Asked of the catalog, not of pg_dump, so that a table which pg_dump left out is
    noticed. Tables of extensions are the extensions' own; a standby has no rows of
    unlogged tables to give.
    """
    left_out = excluded_relations(connection, [*exclude_tables, *exclude_table_data])
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r'
          AND c.relpersistence <> 't'
          AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
          AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND NOT c.oid = ANY (%s::oid[])
          AND NOT EXISTS (
            SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
              AND d.deptype = 'e')
        """,
        left_out,
    )
    return {(schema, name) for schema, name in rows}


def rewritten_tables(connection: Connection) -> list[str]:
    """Return the tables whose rows were replaced since the snapshot was taken.

    TRUNCATE and the rewriting kinds of ALTER TABLE do not wait for a snapshot: until
    pg_dump has its locks they can leave it an empty table, or another one. Those that
    were dropped are gone by then, and are named as the snapshot knows them.
    """
    rows = query(
        connection,
        """
        SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relfilenode <> 0 AND c.oid >= 16384
          AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)
        ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def _database(connection: Connection) -> Inventory:
    # As JSON, because the columns' names change between majors.
    row = query(
        connection,
        """
        SELECT to_jsonb(d) - 'datacl', pg_encoding_to_char(d.encoding),
               pg_get_userbyid(d.datdba), shobj_description(d.oid, 'pg_database'),
               d.datacl::text[], current_setting('server_version')
        FROM pg_database d WHERE d.datname = current_database()
        """,
    )[0]
    record, encoding, owner, comment, acl, version = row
    provider = _PROVIDERS[record.get("datlocprovider", "c")]
    return {
        "database": record["datname"],
        "server_version": version,
        "encoding": encoding,
        "owner": owner,
        "comment": comment,
        "acl": acl,
        "connection_limit": record["datconnlimit"],
        "locale": {
            "provider": provider,
            "collate": record["datcollate"],
            "ctype": record["datctype"],
            "locale": record.get("datlocale") or record.get("daticulocale"),
            "icu_rules": record.get("daticurules"),
            "version": record.get("datcollversion"),
        },
    }


def _collations(connection: Connection) -> list[Inventory]:
    """Return the collations that something uses, but for those on every server."""
    rows = query(
        connection,
        """
        SELECT n.nspname, c.collname, c.collprovider::text, to_jsonb(c)
        FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_collation'::regclass AND d.objid = c.oid
              AND d.deptype = 'e')
          AND (n.nspname !~ '^pg_' OR EXISTS (SELECT FROM pg_depend d
            WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid))
          AND n.nspname <> 'information_schema'
        ORDER BY 1, 2
        """,
    )
    return [
        {
            "schema": schema,
            "name": name,
            "provider": _PROVIDERS.get(provider, provider),
            # The column has another name in each of the majors 15, 16 and 17.
            "locale": next(
                filter(None, map(record.get, ("collcollate", *_LOCALE_COLUMNS))), None
            ),
        }
        for schema, name, provider, record in rows
    ]


def _has_money(connection: Connection) -> bool:
    """Return whether a column, domain or range is of the type money.

    Its text depends on lc_monetary, which pg_dump does not set.
    """
    return bool(
        query_value(
            connection,
            """
            SELECT EXISTS (SELECT FROM pg_attribute
                WHERE atttypid IN ('money'::regtype, 'money[]'::regtype)
                  AND attrelid >= 16384 AND NOT attisdropped)
              OR EXISTS (SELECT FROM pg_type WHERE typbasetype = 'money'::regtype)
              OR EXISTS (SELECT FROM pg_range WHERE rngsubtype = 'money'::regtype)
            """,
        )
    )


def system_identifier(connection: Connection) -> str:
    """Return the number that initdb gave the server's cluster and its standbys."""
    return str(
        query_value(connection, "SELECT system_identifier FROM pg_control_system()")
    )


def _tablespaces(connection: Connection) -> list[str]:
    rows = query(
        connection,
        """
        SELECT t.spcname FROM pg_tablespace t
        WHERE t.oid IN (SELECT reltablespace FROM pg_class
                        UNION SELECT dattablespace FROM pg_database
                        WHERE datname = current_database())
          AND t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def _settings(connection: Connection) -> dict[str, str]:
    # reset_val: what the session would have without our own pins.
    rows = query(
        connection,
        """
        SELECT name, CASE WHEN source = 'client' THEN boot_val ELSE reset_val END
        FROM pg_settings WHERE name = ANY (%s) ORDER BY 1
        """,
        list(_SETTINGS),
    )
    return dict(rows)


def _database_settings(connection: Connection) -> list[Inventory]:
    rows = query(
        connection,
        """
        SELECT r.rolname, s.setconfig
        FROM pg_db_role_setting s
        LEFT JOIN pg_roles r ON r.oid = s.setrole
        WHERE s.setdatabase =
          (SELECT oid FROM pg_database WHERE datname = current_database())
        ORDER BY 1 NULLS FIRST
        """,
    )
    # Their names alone: a service may keep a secret in a setting of its own.
    return [
        {"role": role, "settings": [each.partition("=")[0] for each in settings]}
        for role, settings in rows
    ]


_FIRST_WITH_BUILTIN_PROVIDER = 17


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What was found on a server.

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


def take_surroundings(connection: Connection) -> Surroundings:
    """Ask the server of any of its databases."""
    versions: dict[str, set[str]] = {}
    for name, version in query(
        connection, "SELECT name, version FROM pg_available_extension_versions"
    ):
        versions.setdefault(name, set()).add(version)
    return Surroundings(
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
