"""CHECK constraints that are taken off empty tables, to be put back after the rows."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from opskit.postgres.connect import Connection, query
from opskit.postgres.database import run_script


@dataclass(frozen=True)
class RowCheck:
    """A constraint of a table or a domain, and the statement that puts it back.

    `heirs` are the tables that inherit it, each with its schema.
    """

    schema: str
    of: str
    name: str
    statement: str
    heirs: tuple[tuple[str, str], ...]


def take_off(connection: Connection) -> list[RowCheck]:
    """Drop all CHECK constraints of tables and domains; return them in that order.

    One that was inherited goes with its parent's, and what a child has of its own
    after that is taken in the next round. One that could not be put back stays: that of
    a domain which is used within an array or a composite type.
    """
    checks: list[RowCheck] = []
    staying: set[int] = set()
    while constraints := [
        each for each in query(connection, _QUERY) if each[0] not in staying
    ]:
        for oid, schema, of, name, drop, statement, heirs in constraints:
            try:
                with connection.transaction():
                    for each in (drop, statement, drop):
                        run_script(connection, each)
            except psycopg.errors.FeatureNotSupported:
                staying.add(oid)
            else:
                check = RowCheck(schema, of, name, statement, tuple(map(tuple, heirs)))
                checks.append(check)
    return checks


_QUERY = """
    SELECT k.oid, n.nspname::text, coalesce(c.relname, t.typname)::text,
           k.conname::text,
           format('ALTER %1$s DROP CONSTRAINT %2$I', o.name, k.conname),
           format('ALTER %1$s ADD CONSTRAINT %2$I %3$s', o.name, k.conname,
                  pg_get_constraintdef(k.oid)),
           ARRAY(WITH RECURSIVE heirs AS (
               SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
               UNION SELECT i.inhrelid FROM pg_inherits i JOIN heirs h
               ON i.inhparent = h.inhrelid)
             SELECT ARRAY[hn.nspname::text, hc.relname::text] FROM heirs h
             JOIN pg_class hc ON hc.oid = h.inhrelid
             JOIN pg_namespace hn ON hn.oid = hc.relnamespace)
    FROM pg_constraint k
    LEFT JOIN pg_class c ON c.oid = k.conrelid
    LEFT JOIN pg_type t ON t.oid = k.contypid
    JOIN pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN c.oid IS NULL THEN 'DOMAIN ' || t.oid::regtype
        WHEN c.relkind = 'f' THEN 'FOREIGN TABLE ' || c.oid::regclass
        ELSE 'TABLE ' || c.oid::regclass END) AS o (name)
    WHERE k.contype = 'c' AND k.coninhcount = 0
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
        AND d.objid IN (c.oid, t.oid))
    ORDER BY k.oid
"""
