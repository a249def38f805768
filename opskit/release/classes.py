"""Classes: what the statements of a migration do to data, and to the code before it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from opskit.errors import ClientToolError
from opskit.postgres.witness import Relation
from opskit.release.locks import Statement
from opskit.release.statements import names

_SQUAWK_SECONDS_MAX = 60
# Of squawk's rules those about code that still runs when the migration has ended. What
# blocks is measured, and matters of style are none of a release's.
# https://squawkhq.com/docs/rules
_BREAKING = (
    "adding-not-nullable-field",
    "adding-required-field",
    "ban-drop-column",
    "ban-drop-database",
    "ban-drop-not-null",
    "ban-drop-table",
    "ban-truncate-cascade",
    "changing-column-type",
    "renaming-column",
    "renaming-table",
)
# What tools write into tables of their own.
_BOOKS = ("alembic_version", "migrations")


class Kind(StrEnum):
    """What a migration does, from harmless to what no way back undoes."""

    ADDITIVE = "additive"
    REWRITING = "rewriting"
    DESTRUCTIVE = "destructive"


@dataclass(frozen=True, kw_only=True)
class Warning:
    """What squawk says of a statement of a migration that must not break others."""

    rule: str
    revision: str
    statement: str
    message: str


def kind_of(ran: Iterable[Statement]) -> Kind:
    """Return the kind of a migration by the statements that it ran.

    One that runs others unseen (DO, CALL) counts as destructive: nobody can tell.
    """
    kinds = [_kind(each) for each in ran]
    return max(kinds, key=list(Kind).index, default=Kind.ADDITIVE)


def _kind(statement: Statement) -> Kind:
    from pglast import parse_sql
    from pglast.parser import ParseError

    if any((note.note or {}).get("rewritten") for note in statement.notes):
        least = Kind.REWRITING
    else:
        least = Kind.ADDITIVE
    try:
        parsed = parse_sql(statement.text)
    except ParseError:
        return Kind.DESTRUCTIVE
    found = [_kind_of_node(raw.stmt) for raw in parsed]
    return max([least, *found], key=list(Kind).index)


def _kind_of_node(node: Any) -> Kind:
    from pglast import ast
    from pglast.enums import AlterTableType, ObjectType

    harmless = (
        ObjectType.OBJECT_INDEX,
        ObjectType.OBJECT_TRIGGER,
        ObjectType.OBJECT_POLICY,
    )
    match node:
        case ast.DropStmt() if node.removeType not in harmless:
            return Kind.DESTRUCTIVE
        case ast.UpdateStmt() | ast.DeleteStmt() | ast.MergeStmt():
            is_own = getattr(node.relation, "relname", "") in _BOOKS
            return Kind.ADDITIVE if is_own else Kind.DESTRUCTIVE
        case ast.TruncateStmt() | ast.RenameStmt() | ast.DoStmt() | ast.CallStmt():
            return Kind.DESTRUCTIVE
        case ast.AlterTableStmt():
            done = {each.subtype for each in node.cmds or ()}
            if AlterTableType.AT_DropColumn in done:
                return Kind.DESTRUCTIVE
            if AlterTableType.AT_AlterColumnType in done:
                return Kind.REWRITING
        case ast.VacuumStmt() | ast.ClusterStmt():
            return Kind.REWRITING
        case _:
            pass
    return Kind.ADDITIVE


def warnings(
    revision: str, ran: Sequence[Statement], before: Mapping[int, Relation]
) -> list[Warning]:
    """Return what squawk says of statements about tables that were there before.

    Each statement is shown to it alone: after a CREATE TABLE it says nothing more.

    Raises:
        ClientToolError: squawk is not there, or did not work.
    """
    tables = {each.table for each in before.values()}
    found = []
    for text in dict.fromkeys(each.text for each in ran):
        if not any(names(text, table, before.values()) for table in tables):
            continue
        found += [
            Warning(
                rule=each["rule_name"],
                revision=revision,
                statement=text,
                message=each["message"],
            )
            for each in _squawk(text)
            if each["rule_name"] in _BREAKING
        ]
    return found


def _squawk(text: str) -> list[dict[str, Any]]:
    program = shutil.which("squawk", path=str(Path(sys.executable).parent))
    program = program or shutil.which("squawk")
    if program is None:
        raise ClientToolError(
            "squawk is not installed",
            hint="Install opskit with its release extra (opskit[release]).",
        )
    try:
        ended = subprocess.run(
            [program, "--reporter", "json"],
            input=text.encode(),
            capture_output=True,
            timeout=_SQUAWK_SECONDS_MAX,
            check=False,
        )
        document = json.loads(ended.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise ClientToolError(
            "squawk did not work", said=str(error), hint="Run it by hand: squawk FILE."
        ) from error
    return [each for each in document if isinstance(each, dict)]
