"""Takes the inventory of a database: roles, extensions, locale, settings."""

from __future__ import annotations

from typing import Any

from opskit.postgres import beyond_dumps, capabilities, extensions, roles
from opskit.postgres.connect import Connection, query, query_column, query_value
from opskit.postgres.inventory import Collation, DatabaseSettings, Inventory, Locale

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
        settings=_settings(connection),
        database_settings=_database_settings(connection),
        has_money=_has_money(connection),
        has_public=bool(
            query_value(
                connection,
                "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')",
            )
        ),
        not_dumped=_not_dumped(connection),
        beyond_dumps=beyond_dumps.take(connection),
        system_identifier=capabilities.system_identifier(connection),
        first_role=roles.first(connection),
        size_bytes=query_value(
            connection, "SELECT pg_database_size(current_database())"
        ),
    )


def _database(connection: Connection) -> dict[str, Any]:
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
        "locale": Locale(
            provider=provider,
            collate=record["datcollate"],
            ctype=record["datctype"],
            locale=record.get("datlocale") or record.get("daticulocale"),
            icu_rules=record.get("daticurules"),
            version=record.get("datcollversion"),
        ),
    }


def _collations(connection: Connection) -> tuple[Collation, ...]:
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
    return tuple(
        Collation(
            schema=schema,
            name=name,
            provider=_PROVIDERS.get(provider, provider),
            # The column has another name in each of the majors 15, 16 and 17.
            locale=next(
                filter(None, map(record.get, ("collcollate", *_LOCALE_COLUMNS))), None
            ),
        )
        for schema, name, provider, record in rows
    )


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


def _tablespaces(connection: Connection) -> list[str]:
    return query_column(
        connection,
        """
        SELECT t.spcname FROM pg_tablespace t
        WHERE t.oid IN (SELECT reltablespace FROM pg_class
                        UNION SELECT dattablespace FROM pg_database
                        WHERE datname = current_database())
          AND t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1
        """,
    )


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


def _database_settings(connection: Connection) -> tuple[DatabaseSettings, ...]:
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
    return tuple(
        DatabaseSettings(
            role=role, settings=tuple(each.partition("=")[0] for each in settings)
        )
        for role, settings in rows
    )


def _not_dumped(connection: Connection) -> tuple[str, ...]:
    """Return what pg_dump leaves out of this role's dumps without a word.

    Subscriptions, and the options of user mappings, are for superusers alone; that
    there are some, everybody may know.
    """
    if capabilities.is_superuser(connection):
        return ()
    subscriptions = query_column(
        connection,
        """
        SELECT DISTINCT quote_ident(s.subname) FROM pg_stat_subscription s
        JOIN pg_subscription p ON p.oid = s.subid
        JOIN pg_database d ON d.oid = p.subdbid AND d.datname = current_database()
        ORDER BY 1
        """,
    )
    mappings = query_column(
        connection,
        """
        SELECT DISTINCT quote_ident(usename) || ' on ' || quote_ident(srvname)
        FROM pg_user_mappings WHERE umoptions IS NULL ORDER BY 1
        """,
    )
    kinds = {
        "subscriptions": subscriptions,
        "options, if any, of user mappings": mappings,
    }
    return tuple(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)
