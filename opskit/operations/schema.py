"""Schema: which migrations of a release the database has, and what a version needs."""

from __future__ import annotations

from opskit.errors import DatabaseError, ReleaseRefused
from opskit.log import logger
from opskit.operations.history import declared_of
from opskit.operations.migrate import applied
from opskit.operations.run import Run
from opskit.operations.steps import Released
from opskit.release.classes import require_schema


def find_applied(run: Run, made: Released) -> None:
    """Ask the database: an earlier run may have been killed over a migration."""
    if not made.pending:
        made.applied = []
        return
    there = applied(run)
    made.schema = there[-1] if there else ""
    made.applied = [each for each in there if each in made.pending]


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
