"""Every object of a database by kind and name, with the state that must come back.

Read from the catalog in the dump's own snapshot and again from the restored copy; the
two lists must be equal. Texts that PostgreSQL writes anew from a parsed expression are
left out of the state: it may write the same expression differently after one round
trip through a dump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opskit.postgres.connect import Connection, query
from opskit.postgres.patterns import excluded_relations
from opskit.postgres.schema_queries import QUERIES


@dataclass(frozen=True, order=True)
class SchemaObject:
    """One object; `state` is compared to the letter."""

    kind: str
    name: str
    state: str


# Raise it whenever a query writes another text for the same object: the texts of
# an older set can then not be compared to the letter.
FORMAT = 2

KINDS = tuple(QUERIES)


def take(
    connection: Connection,
    *,
    exclude_tables: Sequence[str] = (),
    kinds: Sequence[str] = KINDS,
) -> list[SchemaObject]:
    """Return the objects of the connection's database that are of `kinds`, sorted.

    What an extension owns is the extension's own affair and left out.
    """
    excluded = excluded_relations(connection, exclude_tables)
    found = []
    for kind in kinds:
        statement = QUERIES[kind]
        rows = connection.execute(
            f"""
            SELECT q.name, q.state FROM ({statement}) AS q (name, state, class, oid)
            WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
              AND d.classid = q.class AND d.objid = q.oid)
            """,
            {"excluded": excluded},
        ).fetchall()
        found += [SchemaObject(kind, name, state) for name, state in rows]
    return sorted(found)


def populated_views(connection: Connection) -> list[str]:
    """Return schema and name, joined by a dot, of the materialized views with rows."""
    rows = query(
        connection,
        """
        SELECT n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'm' AND c.relispopulated
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass AND d.objid = c.oid)
        ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def invalid_indexes(connection: Connection) -> list[str]:
    """Return the indexes that PostgreSQL holds for unusable."""
    rows = query(
        connection,
        """
        SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1
        """,
    )
    return [name for (name,) in rows]


def unvalidated_constraints(connection: Connection) -> list[str]:
    """Return the constraints that existing rows were never checked against."""
    rows = query(
        connection,
        """
        SELECT quote_ident(conname) || ' on ' || conrelid::regclass
        FROM pg_constraint
        WHERE NOT convalidated AND contype <> 'n' AND conrelid <> 0 ORDER BY 1
        """,
    )
    return [name for (name,) in rows]
