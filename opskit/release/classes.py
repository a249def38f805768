"""Classes: what migrations do to data and to the code before, and the way back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from opskit.errors import ClientToolError, ExtraMissing, ReleaseRefused
from opskit.postgres.witness import Relation
from opskit.release.locks import Statement
from opskit.release.revisions import Revision
from opskit.release.statements import names

Verdict = Literal["image-safe", "downgrade-first", "restore-only"]
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


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Statements that take nothing from the code before, by the names of their nodes.
_ADDITIVE = _words(
    "Transaction VariableSet VariableShow Select Explain Deallocate Comment Lock "
    "Create CreateTableAs CreateSeq CreateSchema CreateEnum CompositeType CreateRange "
    "CreateDomain CreateExtension CreateStats CreatePublication Index Reindex Vacuum "
    "RefreshMatView Copy DeclareCursor Fetch ClosePortal ConstraintsSet"
)
_ADDITIVE_CHANGES = _words(
    "AddConstraint ValidateConstraint AttachPartition AddIndex AddIndexConstraint "
    "SetStatistics SetOptions ResetOptions SetRelOptions ResetRelOptions SetStorage "
    "SetCompression ClusterOn DropCluster ReplicaIdentity"
)
_REWRITING_CHANGES = _words("AlterColumnType SetLogged SetAccessMethod SetTableSpace")
# Statements in which a function runs at once.
_RUN_FUNCTIONS = _words(
    "SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt CreateTableAsStmt CopyStmt "
    "ExplainStmt DeclareCursorStmt"
)
# PostgreSQL's own, without a schema: those that tools and migrations call.
_FUNCTIONS = _words(
    "version current_schema current_schemas current_database set_config to_regclass "
    "to_regtype format_type pg_table_is_visible pg_get_expr pg_get_constraintdef "
    "pg_get_indexdef pg_advisory_lock pg_advisory_unlock pg_advisory_xact_lock "
    "pg_sleep now clock_timestamp count min max sum avg lower upper length trim btrim "
    "concat replace substring repeat md5 random gen_random_uuid generate_series unnest "
    "array_agg string_agg json_build_object jsonb_build_object row_number"
)


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

    Additive is what is known to be; everything else counts as destructive, also what
    runs others unseen (DO, CALL, functions).
    """
    from pglast import parse_sql
    from pglast.parser import ParseError

    made, kinds = _Made(), [Kind.ADDITIVE]
    for statement in ran:
        if any((note.note or {}).get("rewritten") for note in statement.notes):
            kinds.append(Kind.REWRITING)
        try:
            kinds += [made.kind(raw.stmt) for raw in parse_sql(statement.text)]
        except ParseError:
            kinds.append(Kind.DESTRUCTIVE)
    return max(kinds, key=list(Kind).index)


class _Made:
    """What a migration has made so far: nobody uses a new table yet."""

    def __init__(self) -> None:
        self._tables: set[tuple[str, str]] = set()

    def kind(self, statement: Any) -> Kind:
        """Return the kind of a statement and of those in it; the next one follows."""
        from pglast import ast
        from pglast.visitors import Skip, Visitor

        kinds = [Kind.ADDITIVE]
        runs = type(statement).__name__ in _RUN_FUNCTIONS

        class Nodes(Visitor):
            def visit(_self, _ancestors: Any, node: Any) -> Any:
                if type(node).__name__.endswith("Stmt"):
                    kinds.append(self._kind_of_node(node))
                    # What a function or a view holds does not run now.
                    if isinstance(node, ast.CreateFunctionStmt | ast.ViewStmt):
                        return Skip
                if runs and isinstance(node, ast.FuncCall) and not _is_harmless(node):
                    kinds.append(Kind.DESTRUCTIVE)
                return None

        Nodes()(statement)
        self._follow(statement)
        return max(kinds, key=list(Kind).index)

    def _kind_of_node(self, node: Any) -> Kind:
        targets = [*_targets(node)]
        if targets and all(each in self._tables or _is_book(each) for each in targets):
            return Kind.ADDITIVE
        return _kind_of_node(node)

    def _follow(self, node: Any) -> None:
        from pglast import ast

        match node:
            case ast.CreateStmt(if_not_exists=False):
                self._tables.add(_named(node.relation))
            case ast.CreateTableAsStmt(if_not_exists=False, into=into) if into:
                self._tables.add(_named(into.rel))
            case ast.DropStmt() | ast.RenameStmt():
                self._tables -= {*_targets(node)}
            case ast.VariableSetStmt(name="search_path"):
                self._tables = {each for each in self._tables if each[0]}
            case ast.TransactionStmt(kind=kind) if kind and "ROLLBACK" in kind.name:
                self._tables.clear()
            case _:
                pass


def _named(relation: Any) -> tuple[str, str]:
    return relation.schemaname or "", relation.relname


def _is_book(name: tuple[str, str]) -> bool:
    """Return whether a table is one in which tools record what they applied."""
    return name[1] == "alembic_version" or name == ("opskit", "migrations")


def _targets(node: Any) -> Iterator[tuple[str, str]]:
    """Yield the tables that a statement changes; not those that it reads."""
    from pglast import ast
    from pglast.enums import ObjectType

    match node:
        case ast.DropStmt(removeType=ObjectType.OBJECT_TABLE):
            for name in node.objects or ():
                parts = [each.sval for each in name]
                yield (parts[-2] if parts[1:] else ""), parts[-1]
        case ast.CreatePolicyStmt():
            yield _named(node.table)
        case (
            ast.UpdateStmt()
            | ast.DeleteStmt()
            | ast.MergeStmt()
            | ast.InsertStmt()
            | ast.AlterTableStmt()
            | ast.RenameStmt()
        ) if node.relation is not None:
            yield _named(node.relation)
        case ast.TruncateStmt():
            yield from map(_named, node.relations or ())
        case ast.GrantStmt():
            for each in node.objects or ():
                yield _named(each) if isinstance(each, ast.RangeVar) else ("", "")
        case _:
            return


def _is_harmless(call: Any) -> bool:
    """Return whether a function is one of PostgreSQL's own that changes nothing."""
    *schema, name = [each.sval for each in call.funcname]
    if name == "setval" or name.startswith("lo_"):
        return False
    return schema == ["pg_catalog"] or (not schema and name in _FUNCTIONS)


def _kind_of_node(node: Any) -> Kind:
    from pglast import ast
    from pglast.enums import ObjectType, OnConflictAction

    match node:
        case ast.AlterTableStmt():
            kinds = [_kind_of_change(each) for each in node.cmds or ()]
            return max(kinds, key=list(Kind).index, default=Kind.ADDITIVE)
        case ast.ClusterStmt():
            return Kind.REWRITING
        case ast.VacuumStmt() if any(e.defname == "full" for e in node.options or ()):
            return Kind.REWRITING
        case ast.InsertStmt():
            conflict = getattr(node.onConflictClause, "action", None)
            is_additive = conflict != OnConflictAction.ONCONFLICT_UPDATE
        case ast.DropStmt():
            is_additive = node.removeType == ObjectType.OBJECT_INDEX
        case ast.GrantStmt() | ast.GrantRoleStmt():
            is_additive = node.is_grant
        case ast.AlterEnumStmt():
            is_additive = node.oldVal is None
        case ast.CreatePolicyStmt():
            is_additive = node.permissive
        case ast.ViewStmt() | ast.CreateFunctionStmt() | ast.CreateTrigStmt():
            is_additive = not node.replace
        case _:
            is_additive = type(node).__name__.removesuffix("Stmt") in _ADDITIVE
    return Kind.ADDITIVE if is_additive else Kind.DESTRUCTIVE


def _kind_of_change(change: Any) -> Kind:
    """Return the kind of one subcommand of ALTER TABLE."""
    name = change.subtype.name.removeprefix("AT_")
    if name in _REWRITING_CHANGES:
        return Kind.REWRITING
    if name == "AddColumn":
        column = change.def_
        has = {each.contype.name for each in column.constraints or ()}
        filled = {"CONSTR_DEFAULT", "CONSTR_IDENTITY", "CONSTR_GENERATED"} & has
        if "serial" in column.typeName.names[-1].sval:
            return Kind.ADDITIVE
        demands = {"CONSTR_NOTNULL", "CONSTR_PRIMARY"} & has
        is_additive = bool(filled) or not demands
    elif name == "ColumnDefault":
        is_additive = change.def_ is not None
    else:
        is_additive = name in _ADDITIVE_CHANGES
    return Kind.ADDITIVE if is_additive else Kind.DESTRUCTIVE


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


def require_installed() -> None:
    """Look for what judges statements: it comes with an extra.

    Raises:
        ExtraMissing: it is not there.
    """
    if find_spec("pglast") is None:
        raise ExtraMissing("pglast is not installed", extra="release")
    _squawk_program()


def _squawk_program() -> str:
    program = shutil.which("squawk", path=str(Path(sys.executable).parent))
    program = program or shutil.which("squawk")
    if program is None:
        raise ExtraMissing("squawk is not installed", extra="release")
    return program


def _squawk(text: str) -> list[dict[str, Any]]:
    program = _squawk_program()
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


def verdict(
    applied: Sequence[str],
    kinds: Mapping[str, str],
    known: Collection[Revision],
    *,
    half: str = "",
) -> tuple[Verdict, str]:
    """Return what a rollback has to do, and why, by what was migrated since.

    A migration whose class is not on record counts as destructive; `known` are those
    of which the tool knows. No way back undoes the `half` of one.
    """
    if half and kinds.get(half) != Kind.ADDITIVE:
        return "restore-only", f"migration {half} may be half applied"
    of = {each: kinds.get(each, Kind.DESTRUCTIVE) for each in applied}
    heavy = [each for each, kind in of.items() if kind != Kind.ADDITIVE]
    if not heavy:
        return "image-safe", "nothing that the version before needs was changed"
    ways = {each.id for each in known if each.has_way_back}
    lost = [each for each in heavy if of[each] == Kind.DESTRUCTIVE]
    if lost:
        return "restore-only", f"migration {lost[0]} is destructive"
    if all(each in ways for each in applied):
        return "downgrade-first", f"migration {heavy[0]} has a way back"
    return "restore-only", f"migration {heavy[0]} has no way back"


def require_schema(
    version: str, *, declared: str, learnt: str, present: Sequence[str]
) -> None:
    """Refuse a version whose schema the database has not, or has not any more.

    The oldest migration that a version can run on is the one that was declared when it
    was released, or else the newest one that the database had while it ran.

    Raises:
        ReleaseRefused: the database lacks it.
    """
    oldest = declared or learnt
    if not oldest or any(each.startswith(oldest) for each in present):
        return
    how = "declared to need" if declared else "only known to run with"
    raise ReleaseRefused(
        f"refuse: {version} is {how} migration {oldest}, which the database lacks",
        hint="Apply it (`inv migrate --to REV`) with a version of the service that has "
        "it, or release a version that needs less.",
    )
