"""Filled: whether a migration wrote into its tables what the JSON files hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opskit.checks import Check, count
from opskit.errors import DatabaseError, MigrationFailed
from opskit.postgres.connect import connect
from opskit.postgres.migrations import Rows, rows_of_json, rows_of_table
from opskit.release.revisions import Revision

_DIGITS = 16


def fill_checks(url: str, revision: Revision) -> Iterator[Check]:
    """Compare each table that a migration fills from a file with the file itself.

    The server reads the file's objects as rows of the table, in the columns that they
    name; number and digest of the rows must be equal.
    """
    for table, path in revision.fills.items():
        expected = observed = detail = ""
        try:
            records = _records(path)
            columns = sorted({name for each in records for name in each})
            with connect(url, purpose="migrate") as connection:
                expected = _shown(rows_of_json(connection, table, columns, records))
                observed = _shown(rows_of_table(connection, table, columns))
        except (OSError, ValueError, DatabaseError) as error:
            detail = str(error)
        yield Check(
            name=f"rows of {table}",
            passed=not detail and expected == observed,
            expected=expected,
            observed=observed,
            detail=detail or f"compared with {path.name} by {', '.join(columns)}",
        )


def require_filled(revision: Revision, checks: Sequence[Check]) -> None:
    """Raise MigrationFailed where a table does not hold what its file does."""
    for each in checks:
        if each.failed:
            found = f"{each.observed}, expected {each.expected}"
            raise MigrationFailed(
                f"migration {revision.id} filled a table wrongly: {each.name}: "
                f"{found if each.observed else 'not compared'}",
                said="" if each.observed else each.detail,
                hint="Compare the table with the file. Take the migration back, or "
                "mend the table by hand.",
            )


def _records(path: Path) -> list[dict[str, Any]]:
    records = json.loads(path.read_bytes())
    if not isinstance(records, list) or not all(isinstance(e, dict) for e in records):
        raise ValueError(f"{path.name} does not hold an array of objects")
    return records


def _shown(rows: Rows) -> str:
    return f"{count(rows.number, 'row')}, SHA-256 {rows.sha256[:_DIGITS]}"
