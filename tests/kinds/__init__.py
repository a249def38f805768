"""One database with every kind of content, and ways to alter a copy of it.

`made/` holds what makes it, `altered/` what is done to the copy: SQL in items. An item
begins with a line `--- title`, may name in braces what it needs of the server (`since=18`,
`needs=xml`), and, where it alters, ends its head with `=> the words that name it`.
"""

from __future__ import annotations

from collections.abc import Collection

from tests.kinds.items import read_items

# The order matters: later areas use the roles and tablespaces that the cluster has,
# and grants are given to what is there.
AREAS = (
    "values",
    "strings",
    "types",
    "tables",
    "constraints",
    "sequences",
    "indexes",
    "partitions",
    "names",
    "functions",
    "operators",
    "search",
    "views",
    "triggers",
    "traps",
    "large",
    "security",
    "outside",
    "extensions",
    "settings",
)

# What a build or an installation may lack, as one array: the names that `{needs=…}`
# asks for. Extensions go by their own names.
CAPABILITIES_SQL = """
    SELECT array(SELECT name::text FROM pg_available_extensions)
        -- Without ICU, a few are listed all the same since 16.
        || array(SELECT 'icu' FROM pg_collation WHERE collprovider = 'i'
                 HAVING count(*) > 10)
        || array(SELECT found[1] FROM pg_config,
                   regexp_matches(setting, '--with-(?:lib)?(xml|lz4|zstd)', 'g') found
                 WHERE name = 'CONFIGURE')
"""

# Roles and tablespaces belong to the server and may be there already. A tablespace is
# made outside of any transaction, so each statement is to be executed on its own.
_ROLES = (
    *(
        "kinds_alice",
        "kinds_bob",
        "kinds_readers",
        "kinds_restricted",
        "kinds_password",
    ),
    # One for each way to alter a role.
    *("kinds_attribute", "kinds_until", "kinds_limit", "kinds_setting", "kinds_bypass"),
    *("kinds_member", "kinds_admin", "kinds_monitor", "kinds_comment"),
    "kinds_parameter",
)
_TABLESPACES = ("kinds_fast", "kinds space")
CLUSTER_STATEMENTS = (
    *(
        f"DO $$ BEGIN CREATE ROLE {role}; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        for role in _ROLES
    ),
    "ALTER ROLE kinds_alice LOGIN",
    "ALTER ROLE kinds_attribute CREATEDB",
    "ALTER ROLE kinds_until VALID UNTIL '2099-12-31 23:59:59+00'",
    "ALTER ROLE kinds_limit CONNECTION LIMIT 7",
    "ALTER ROLE kinds_bypass BYPASSRLS",
    "ALTER ROLE kinds_password LOGIN PASSWORD 'not a secret'",
    "ALTER ROLE kinds_setting SET work_mem = '7MB'",
    "ALTER ROLE kinds_restricted NOINHERIT",
    "COMMENT ON ROLE kinds_comment IS 'may read; it''s a group'",
    "GRANT kinds_readers TO kinds_alice, kinds_admin WITH ADMIN OPTION",
    "GRANT kinds_readers TO kinds_bob, kinds_member",
    "GRANT pg_monitor TO kinds_monitor",
    "GRANT SET ON PARAMETER log_min_messages TO kinds_parameter",
)


def tablespace_statements(existing: Collection[str] = ()) -> list[str]:
    """Return what makes the tablespaces in the server's own folder, but for `existing`."""
    missing = [name for name in _TABLESPACES if name not in existing]
    return [
        "SET allow_in_place_tablespaces = on",
        *(f"CREATE TABLESPACE \"{name}\" LOCATION ''" for name in missing),
    ]


# A database with subscriptions cannot be dropped, and one whose slot is elsewhere cannot
# be dropped without asking there.
DROP_SUBSCRIPTIONS_SQL = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT quote_ident(s.subname) FROM pg_subscription s
            JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()
        LOOP
            EXECUTE format('ALTER SUBSCRIPTION %s DISABLE', name);
            EXECUTE format('ALTER SUBSCRIPTION %s SET (slot_name = NONE)', name);
            EXECUTE format('DROP SUBSCRIPTION %s', name);
        END LOOP;
    END $$
"""

# When no database uses them any more.
CLUSTER_CLEANUP = (
    *(f'DROP TABLESPACE IF EXISTS "{name}"' for name in _TABLESPACES),
    *(
        f"DO $$ BEGIN DROP OWNED BY {role}; "
        "EXCEPTION WHEN undefined_object THEN NULL; END $$"
        for role in _ROLES
    ),
    *(f"DROP ROLE IF EXISTS {role}" for role in reversed(_ROLES)),
)


def script(major: int, have: Collection[str] = ()) -> str:
    """Return what makes the database on a server of a major that can do what it `have`s.

    It runs as a superuser, in one transaction or statement by statement.
    """
    return "".join(
        f"-- {item.title}\n{item.sql}"
        for area in AREAS
        for item in read_items("made", area)
        if item.fits(major, have)
    )
