"""What a server offers and its role may do, and the inventory of a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from opskit.postgres import beyond_dumps, extensions, roles
from opskit.postgres.connect import (
    Connection,
    has_row,
    query,
    query_column,
    query_value,
    records,
    server_major,
)
from opskit.postgres.inventory import Collation, DatabaseSettings, Inventory, Locale

_FIRST_WITH_BUILTIN_PROVIDER = 17


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a server offers: versions by extension, its parameters, and more."""

    extensions: dict[str, frozenset[str]]
    settings: frozenset[str]
    tablespaces: frozenset[str]
    roles: frozenset[str]
    access_methods: frozenset[str]
    has_icu: bool
    has_builtin_provider: bool
    superusers: frozenset[str] = frozenset()


def capabilities(connection: Connection) -> Capabilities:
    """Ask the server of any of its databases."""

    def names(statement: LiteralString) -> frozenset[str]:
        return frozenset(query_column(connection, statement))

    versions: LiteralString = """
        SELECT name, array_agg(version) FROM pg_available_extension_versions
        GROUP BY name"""
    return Capabilities(
        extensions={
            name: frozenset(each) for name, each in query(connection, versions)
        },
        settings=names("SELECT lower(name) FROM pg_settings"),
        tablespaces=names("SELECT spcname FROM pg_tablespace"),
        roles=names("SELECT rolname FROM pg_roles"),
        access_methods=names("SELECT amname FROM pg_am"),
        # Lower numbers stand in the catalog of every build.
        has_icu=has_row(
            connection,
            "SELECT 1 FROM pg_collation WHERE collprovider = 'i' AND oid >= 12000",
        ),
        has_builtin_provider=server_major(connection) >= _FIRST_WITH_BUILTIN_PROVIDER,
        superusers=roles.superusers(connection),
    )


def is_superuser(connection: Connection) -> bool:
    """Return whether the connection's role may do anything."""
    return has_row(
        connection,
        "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper",
    )


def has_locale(connection: Connection, name: str) -> bool:
    """Return whether the server's operating system knows a locale (`setlocale`)."""
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
    return {k: v for k, v in settings.items() if (k.lower(),) not in servers}


def has_collation(connection: Connection, schema: str, name: str) -> bool:
    """Return whether a collation exists in the connection's database."""
    return has_row(
        connection,
        """
        SELECT 1 FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE n.nspname = %s AND c.collname = %s
          AND c.collencoding IN (-1, (SELECT encoding FROM pg_database
                                      WHERE datname = current_database()))""",
        schema,
        name,
    )


def system_identifier(connection: Connection) -> str:
    """Return the number that initdb gave the server's cluster and its standbys."""
    number: LiteralString = "SELECT system_identifier FROM pg_control_system()"
    return str(query_value(connection, number))


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
        ORDER BY 1""",
    )


def role_in_place_of_ours(connection: Connection) -> tuple[str, str, str] | None:
    """Return the role that a setting put before ours, ours, and the database."""
    ((given, ours, database),) = query(
        connection,
        "SELECT quote_ident(current_user), quote_ident(session_user), "
        "quote_ident(current_database())",
    )
    return None if given == ours else (given, ours, database)


def unreadable_large_objects(connection: Connection) -> list[str]:
    """Return the numbers of the large objects that the role cannot read."""
    return query_column(
        connection,
        """
        SELECT m.oid::text FROM pg_largeobject_metadata m
        WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
          AND NOT pg_has_role(m.lomowner, 'USAGE')
          AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a
            WHERE a.privilege_type = 'SELECT'
              AND (a.grantee = 0 OR pg_has_role(nullif(a.grantee, 0), 'USAGE')))
        ORDER BY m.oid""",
    )


def hidden_tables(connection: Connection) -> list[str]:
    """Return the tables whose row security applies to the role."""
    return query_column(
        connection,
        """
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relkind IN ('r', 'p') AND row_security_active(c.oid) ORDER BY 1""",
    )


# Settings of the server whose values decide whether or how a dump can be loaded.
_SETTINGS = (
    *("shared_preload_libraries", "session_preload_libraries", "lc_messages"),
    *("lc_monetary", "lc_numeric", "lc_time", "default_table_access_method"),
    *("default_toast_compression", "standard_conforming_strings", "block_size"),
    *("wal_level", "TimeZone"),
)
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin", "d": "default"}


def take(connection: Connection) -> Inventory:
    """Return the inventory of the connection's database."""
    return Inventory(
        **_database(connection),
        roles=roles.take(connection),
        needed_roles=tuple(roles.needed(connection)),
        owners=tuple(roles.owners(connection)),
        extensions=extensions.take(connection),
        collations=_collations(connection),
        tablespaces=tuple(_tablespaces(connection)),
        settings=_server_settings(connection),
        database_settings=_database_settings(connection),
        has_money=_has_money(connection),
        has_public=has_row(
            connection, "SELECT 1 FROM pg_namespace WHERE nspname = 'public'"
        ),
        not_dumped=_not_dumped(connection),
        beyond_dumps=beyond_dumps.take(connection),
        system_identifier=system_identifier(connection),
        first_role=roles.first_role(connection),
        size_bytes=query_value(
            connection, "SELECT pg_database_size(current_database())"
        ),
    )


def _database(connection: Connection) -> dict[str, Any]:
    # Some by JSON, because the columns' names change between majors.
    (fields,) = records(
        connection,
        """
        SELECT datname AS database, current_setting('server_version') AS server_version,
               pg_encoding_to_char(encoding) AS encoding, datacl::text[] AS acl,
               pg_get_userbyid(datdba) AS owner, datconnlimit AS connection_limit,
               shobj_description(oid, 'pg_database') AS comment, to_jsonb(d) AS locale
        FROM pg_database d WHERE datname = current_database()""",
    )
    record = fields["locale"]
    locale = Locale(
        provider=_PROVIDERS[record.get("datlocprovider", "c")],
        collate=record["datcollate"],
        ctype=record["datctype"],
        locale=record.get("datlocale") or record.get("daticulocale"),
        icu_rules=record.get("daticurules"),
        version=record.get("datcollversion"),
    )
    return fields | {"locale": locale}


def _collations(connection: Connection) -> tuple[Collation, ...]:
    """Return the collations that something uses, but for those on every server."""
    rows = records(
        connection,
        # The column of the locale has another name in each of the majors 15, 16 and 17.
        """
        SELECT nspname AS schema, collname AS name, collprovider::text AS provider,
               coalesce(nullif(collcollate, ''), to_jsonb(c)->>'colliculocale',
                        to_jsonb(c)->>'colllocale') AS locale
        FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
        WHERE NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_collation'::regclass AND d.objid = c.oid
              AND d.deptype = 'e')
          AND (n.nspname !~ '^pg_' OR EXISTS (SELECT FROM pg_depend d
            WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid))
          AND n.nspname <> 'information_schema'
        ORDER BY 1, 2""",
    )
    for each in rows:
        each["provider"] = _PROVIDERS.get(each["provider"], each["provider"])
    return tuple(Collation(**each) for each in rows)


def _has_money(connection: Connection) -> bool:
    """Return whether anything is of type money, whose text depends on lc_monetary."""
    return has_row(
        connection,
        """
        SELECT 1 FROM pg_attribute
        WHERE atttypid IN ('money'::regtype, 'money[]'::regtype)
          AND attrelid >= 16384 AND NOT attisdropped
        UNION ALL SELECT 1 FROM pg_type WHERE typbasetype = 'money'::regtype
        UNION ALL SELECT 1 FROM pg_range WHERE rngsubtype = 'money'::regtype""",
    )


def _tablespaces(connection: Connection) -> list[str]:
    return query_column(
        connection,
        """
        SELECT t.spcname FROM pg_tablespace t
        WHERE t.oid IN (SELECT reltablespace FROM pg_class
                        UNION SELECT dattablespace FROM pg_database
                        WHERE datname = current_database())
          AND t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1""",
    )


def _server_settings(connection: Connection) -> dict[str, str]:
    # reset_val: what the session would have without our own pins.
    rows = query(
        connection,
        """
        SELECT name, CASE WHEN source = 'client' THEN boot_val ELSE reset_val END
        FROM pg_settings WHERE name = ANY (%s) ORDER BY 1""",
        list(_SETTINGS),
    )
    return dict(rows)


def _database_settings(connection: Connection) -> tuple[DatabaseSettings, ...]:
    # Their names alone: a service may keep a secret in a setting of its own.
    rows = records(
        connection,
        """
        SELECT r.rolname AS role,
               ARRAY(SELECT split_part(each, '=', 1)
                     FROM unnest(s.setconfig) WITH ORDINALITY u (each, place)
                     ORDER BY place) AS settings
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
        WHERE s.setdatabase =
          (SELECT oid FROM pg_database WHERE datname = current_database())
        ORDER BY 1 NULLS FIRST""",
    )
    return tuple(DatabaseSettings(**each) for each in rows)


def _not_dumped(connection: Connection) -> tuple[str, ...]:
    """Return what pg_dump leaves out of this role's dumps without a word.

    Subscriptions and options of user mappings are superusers'; all may see there are
    some.
    """
    if is_superuser(connection):
        return ()
    subscriptions = query_column(
        connection,
        """
        SELECT DISTINCT quote_ident(s.subname) FROM pg_stat_subscription s
        JOIN pg_subscription p ON p.oid = s.subid
        JOIN pg_database d ON d.oid = p.subdbid AND d.datname = current_database()
        ORDER BY 1""",
    )
    mappings = query_column(
        connection,
        """
        SELECT DISTINCT quote_ident(usename) || ' on ' || quote_ident(srvname)
        FROM pg_user_mappings WHERE umoptions IS NULL ORDER BY 1""",
    )
    of_mappings = "options, if any, of user mappings"
    kinds = {"subscriptions": subscriptions, of_mappings: mappings}
    return tuple(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)
