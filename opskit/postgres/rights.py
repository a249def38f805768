"""What the connection's role may read: pg_dump stops at the first thing it may not."""

from __future__ import annotations

from opskit.postgres.connect import Connection, query, query_value


def unreadable_relations(connection: Connection) -> list[str]:
    """Return the tables and sequences whose content a dump needs and may not read."""
    rows = query(
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
    return [name for (name,) in rows]


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
    rows = query(
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
    return [oid for (oid,) in rows]


def hidden_tables(connection: Connection) -> list[str]:
    """Return the tables whose row security applies to the role."""
    rows = query(
        connection,
        """
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relkind IN ('r', 'p') AND row_security_active(c.oid) ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def reads_passwords(connection: Connection) -> bool:
    """Return whether the role may read the hashes of passwords."""
    return bool(
        query_value(connection, "SELECT has_table_privilege('pg_authid', 'SELECT')")
    )


def not_dumped(connection: Connection) -> list[str]:
    """Return what pg_dump leaves out of this role's dumps without a word.

    Subscriptions, and the options of user mappings, are for superusers alone; that
    there are some, everybody may know.
    """
    if query_value(
        connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    ):
        return []
    found = []
    subscriptions = query(
        connection,
        """
        SELECT DISTINCT quote_ident(s.subname) FROM pg_stat_subscription s
        JOIN pg_subscription p ON p.oid = s.subid
        JOIN pg_database d ON d.oid = p.subdbid AND d.datname = current_database()
        ORDER BY 1
        """,
    )
    if subscriptions:
        found.append(f"subscriptions {', '.join(name for (name,) in subscriptions)}")
    mappings = query(
        connection,
        """
        SELECT DISTINCT quote_ident(usename) || ' on ' || quote_ident(srvname)
        FROM pg_user_mappings WHERE umoptions IS NULL ORDER BY 1
        """,
    )
    if mappings:
        names = ", ".join(name for (name,) in mappings)
        found.append(f"options, if any, of user mappings {names}")
    return found
