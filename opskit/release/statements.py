"""Statements: what their text says of the locks that they take, and of their class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from opskit.postgres.witness import Relation

# From weakest to strongest:
# https://www.postgresql.org/docs/current/explicit-locking.html
MODES = (
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_EXCLUSIVE, _SHARE, _MAINTENANCE = MODES[7], MODES[4], MODES[3]
# Tables, partitioned ones and their indexes, materialized views.
_WITH_ROWS = "rpmiI"


def locks_of(text: str, relations: Iterable[Relation]) -> Iterator[tuple[str, str]]:
    """Yield the tables that a statement locks unseen by event triggers, and the mode.

    A text that does not parse names none: the server has refused it too, or it is of
    a newer version, and looking often has to do.
    """
    from pglast import parse_sql
    from pglast.parser import ParseError

    try:
        parsed = parse_sql(text)
    except ParseError:
        return
    known = [each for each in relations if each.kind in _WITH_ROWS]
    for raw in parsed:
        for name, mode in _named(raw.stmt):
            yield from ((each.table, mode) for each in known if _is_meant(each, name))


def _named(statement: Any) -> Iterator[tuple[Any, str]]:
    """Yield what a statement names, or None for all there is, and the mode of lock."""
    from pglast import ast

    relations = getattr(statement, "relations", None) or ()
    match statement:
        case ast.LockStmt():
            mode = MODES[(statement.mode or 1) - 1]
            yield from ((each, mode) for each in relations)
        case ast.TruncateStmt():
            yield from ((each, _EXCLUSIVE) for each in relations)
        case ast.VacuumStmt():
            mode = _EXCLUSIVE if _has(statement.options, "full") else _MAINTENANCE
            names = [each.relation for each in statement.rels or ()]
            yield from ((each, mode) for each in names or [None])
        case ast.ClusterStmt():
            yield statement.relation, _EXCLUSIVE
        case ast.IndexStmt(concurrent=True):
            yield statement.relation, _MAINTENANCE
        case ast.ReindexStmt() if _has(statement.params, "concurrently"):
            yield statement.relation, _MAINTENANCE
        case ast.ReindexStmt():
            yield statement.relation, _SHARE
            yield statement.relation, _EXCLUSIVE  # on each index: reading needs them
        case _:
            return


def split(text: str) -> Iterator[str]:
    """Yield the statements of a script; one that does not parse comes whole."""
    import pglast
    from pglast.parser import ParseError

    try:
        yield from pglast.split(text)
    except ParseError:
        yield text


def hides(text: str) -> bool:
    """Return whether a statement runs others, which no log shows."""
    from pglast import ast, parse_sql
    from pglast.parser import ParseError

    try:
        parsed = parse_sql(text)
    except ParseError:
        return True
    hiding = (ast.DoStmt, ast.CallStmt, ast.SelectStmt, ast.ExecuteStmt)
    return any(isinstance(raw.stmt, hiding) for raw in parsed)


def names(text: str, table: str, relations: Iterable[Relation]) -> bool:
    """Return whether a statement names a table, or anything that belongs to it."""
    from pglast import ast, parse_sql
    from pglast.parser import ParseError
    from pglast.visitors import Visitor

    own = [each for each in relations if each.table == table]
    found: list[bool] = []

    class Names(Visitor):
        def visit_RangeVar(self, _ancestors: Any, node: ast.RangeVar) -> None:
            found.append(any(_is_meant(each, node) for each in own))

    try:
        Names()(parse_sql(text))
    except ParseError:
        return False
    return any(found)


def _has(options: Any, name: str) -> bool:
    return any(each.defname == name for each in options or ())


def _is_meant(relation: Relation, name: Any) -> bool:
    """Return whether a name may mean a relation or what it is a part of.

    Without a schema it may be one of any schema.
    """
    from pglast.stream import maybe_double_quote_name

    if name is None:
        return True
    own = "." + maybe_double_quote_name(name.relname)
    if name.schemaname:
        own = maybe_double_quote_name(name.schemaname) + own
        return own in (relation.name, *relation.above)
    return any(each.endswith(own) for each in (relation.name, *relation.above))
