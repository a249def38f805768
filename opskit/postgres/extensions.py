"""A database's extensions, and their tables that hold rows of the user's."""

from __future__ import annotations

from typing import Any

from opskit.postgres.connect import Connection, query


def take(connection: Connection) -> list[dict[str, Any]]:
    """Return name, version, schema and owner of each extension."""
    rows = query(
        connection,
        """
        SELECT e.extname, e.extversion, n.nspname, pg_get_userbyid(e.extowner)
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1
        """,
    )
    return [
        {"name": name, "version": version, "schema": schema, "owner": owner}
        for name, version, schema, owner in rows
    ]


def relations(connection: Connection) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Return the extensions' configuration tables and sequences, by schema and name.

    With each comes its extension, and the condition of the rows that are dumped: the
    others are brought by the extension itself.
    """
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname, e.extname, nullif(each.condition, '')
        FROM pg_extension e
        CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) each (oid, condition)
        JOIN pg_class c ON c.oid = each.oid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        """,
    )
    return {
        (schema, name): (extension, condition)
        for schema, name, extension, condition in rows
    }
