"""Schema: which migrations of a release the database has, and what a version needs."""

from __future__ import annotations

from collections.abc import Sequence

from opskit.errors import DatabaseError, ReleaseRefused
from opskit.log import logger
from opskit.operations.history import declared_of
from opskit.operations.migrate import applied
from opskit.operations.run import Run
from opskit.operations.steps import Released
from opskit.release.classes import Kind, require_schema
from opskit.release.revisions import Revision


def find_applied(run: Run, made: Released) -> None:
    """Ask the database: an earlier run may have been killed over a migration."""
    if not made.pending:
        made.applied = []
        return
    there = applied(run)
    made.schema = there[-1] if there else ""
    made.applied = [each for each in there if each in made.pending]


def find_applied_or_assume(run: Run, made: Released) -> None:
    """The same on the way back, which a database that is down stops only if it must.

    Additive migrations ask for nothing, whether the database has them or not: a version
    that takes all connections of the database can be taken back.
    """
    try:
        find_applied(run, made)
    except DatabaseError as error:
        if any(made.kinds.get(each) != Kind.ADDITIVE for each in made.pending):
            raise
        logger().warning("the migrations are not known", reason=error.message)
        made.schema, made.applied = "", list(made.pending) if made.migrated else []


def half_applied(made: Released, known: Sequence[Revision]) -> str:
    """Return the migration that was being applied, if half of it may be there.

    It is the first one that the database lacks, once a step has begun to apply it and
    has not come to its end. A transaction leaves nothing.
    """
    cut_short = {step for step, is_done in made.migrated.items() if not is_done}
    lacking = (e for e in known if e.id in made.pending and e.id not in made.applied)
    being_applied = next(lacking, None)
    if not cut_short or being_applied is None or being_applied.is_atomic:
        return ""
    if being_applied.phase == "contract" and "contract" not in cut_short:
        return ""
    return being_applied.id


def require_schema_of(run: Run, made: Released, version: str) -> None:
    """Refuse a version before that cannot run on what the database has.

    A database that is down is no reason to keep a version that does not work.
    """
    declared = declared_of(run.ledger.entries(), version)
    learnt = made.schema_before
    if not (declared or learnt):
        return
    try:
        there = applied(run)
    except DatabaseError as error:
        logger().warning("the schema is not known", reason=error.message)
        return
    try:
        require_schema(version, declared=declared, learnt=learnt, present=there)
    except ReleaseRefused as error:
        made.verdict = error.summary
        raise
