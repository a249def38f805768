"""The user's own questions to a restored copy, and the answers they expect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from opskit.checks import Check
from opskit.config import Query
from opskit.errors import DatabaseError, ServerFault
from opskit.postgres.connect import (
    connect,
    limit_statements,
    translated,
    user_query,
)


def run_queries(
    url: str, queries: Sequence[Query], *, timeout_seconds: float
) -> list[Check]:
    """Ask each query of the copy; one check each."""
    if not queries:
        return []
    with connect(url, purpose="queries") as connection:
        limit_statements(connection, timeout_seconds)
        # The user's text is written for the database's own search path.
        connection.execute("RESET search_path")
        checks = []
        for query in queries:
            try:
                with translated(f"query {query.name}"):
                    rows = [list(row) for row in user_query(connection, query.sql)]
            except ServerFault:
                raise
            except DatabaseError as error:
                checks.append(
                    Check(
                        name=f"query {query.name}",
                        passed=False,
                        expected=_text(query.expect),
                        detail=error.message,
                    )
                )
            else:
                checks.append(_judge(query, rows))
    return checks


def _judge(query: Query, rows: list[list[Any]]) -> Check:
    observed: Any = rows
    if not isinstance(query.expect, list) and len(rows) == 1 and len(rows[0]) == 1:
        observed = rows[0][0]
    return Check(
        name=f"query {query.name}",
        # By their text: 12 and Decimal("12") are the same answer to a person.
        passed=_text(query.expect) == _text(observed),
        expected=_text(query.expect),
        observed=_text(observed),
        detail=query.sql,
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value)
