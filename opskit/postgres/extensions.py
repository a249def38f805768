"""A database's extensions, and their tables that hold rows of the user's."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

from opskit.postgres.connect import Connection, query, query_value


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


def names_in_settings(connection: Connection) -> list[str]:
    """Return what settings of the server's extensions may call a database.

    A library that is not loaded does not show its settings; the file has them.
    """
    rows = query(
        connection,
        """
        SELECT DISTINCT setting FROM (
          SELECT name, setting FROM pg_settings
          WHERE vartype = 'string' AND context IN ('postmaster', 'sighup')
          UNION ALL SELECT name, setting FROM pg_file_settings) each
        WHERE name LIKE '%.%' AND octet_length(setting) BETWEEN 1 AND 63
          AND setting <> current_database()
        ORDER BY 1
        """,
    )
    return [setting for (setting,) in rows]


@contextlib.contextmanager
def under_name(connection: Connection, name: str) -> Iterator[None]:
    """Run the block in a transaction that sees its own database under another name.

    An extension may refuse any database but the one that a setting of the server names.
    A session cannot rename its own database, and the name may be in use. Nobody else
    sees the names of the block: those of before are committed. A superuser may do this.
    """
    own = query_value(connection, "SELECT current_database()")
    spare = f"opskit_{secrets.token_hex(8)}"
    with connection.transaction():
        _rename(connection, {name: spare, own: name})
        yield
        _rename(connection, {name: own, spare: name})


def _rename(connection: Connection, names: dict[str, str]) -> None:
    for old, new in names.items():
        connection.execute(
            "UPDATE pg_database SET datname = %s WHERE datname = %s", (new, old)
        )
