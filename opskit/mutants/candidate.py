"""Candidate: a damage to a database, and the part of the comparison it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from opskit.checks import Check
from opskit.compare.contents import RestoredCopy
from opskit.postgres.connect import Connection

Statement = sql.SQL | sql.Composed


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A damage that the server may take or refuse.

    `look` runs the affected part of the comparison in the session that holds the
    damage; it returns None where that part could not be read. The check that it
    returns must fail and carry each of `names`. `touches` is how many rows the last
    statement touches if it changes anything.
    """

    target: str
    statements: Sequence[Statement]
    look: Callable[[Connection], Check | None]
    names: Sequence[str]
    touches: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where mutants are planted. `number` is how many are asked for in all."""

    connection: Connection
    copy: RestoredCopy
    number: int
    is_silent: bool


# Candidates of one kind; None where one was looked for in vain.
Supply = Iterator[Candidate | None]


def written(text: str) -> Statement:
    """Return a statement that the server itself wrote, quoted as it needs to be."""
    return sql.SQL(text)


def sampled(
    connection: Connection,
    query: LiteralString,
    *,
    names: Sequence[str],
    salt: int,
    limit: int,
) -> list[tuple[str, str]]:
    """Return names and statements of a query, in an order that the salt decides.

    Only the names given count. The order does not depend on object numbers, which
    differ from one restore to the next.
    """
    if not names:
        return []
    # Without parameters: the percent signs in the query are the server's format().
    statement = sql.SQL(
        "SELECT q.name, q.statement FROM ({}) AS q (name, statement) "
        "WHERE q.name = ANY ({}::text[]) "
        'ORDER BY hashtextextended((q.name || q.statement) COLLATE "C", {}), 1, 2 '
        "LIMIT {}"
    ).format(
        sql.SQL(query), sql.Literal(list(names)), sql.Literal(salt), sql.Literal(limit)
    )
    return [(name, text) for name, text in connection.execute(statement).fetchall()]


def large_objects(connection: Connection, *, salt: int, limit: int) -> list[int]:
    """Return numbers of large objects in an order that the salt decides."""
    rows = connection.execute(
        "SELECT oid FROM pg_largeobject_metadata "
        "ORDER BY hashint8extended(oid::bigint, %s), 1 LIMIT %s",
        (salt, limit),
    ).fetchall()
    return [int(oid) for (oid,) in rows]
