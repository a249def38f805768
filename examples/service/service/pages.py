"""Pages: lists are answered in parts, in the stable order of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import Query
from psycopg import sql
from pydantic import BaseModel

from service.database import Connection

LIMIT_MAX = 100
_COUNT = sql.SQL("SELECT count(*) AS total FROM ({}) AS found")
_PART = sql.SQL(
    "SELECT * FROM ({}) AS found WHERE id > %(after)s ORDER BY id LIMIT %(number)s"
)
Item = TypeVar("Item", bound=BaseModel)
Limit = Annotated[
    int, Query(ge=1, description=f"items of a page; {LIMIT_MAX} are the most")
]
After = Annotated[
    int, Query(ge=0, le=2**63 - 1, description="`next` of the page before")
]


class Page(BaseModel, Generic[Item]):
    """A part of a list; `next` is null in the last one."""

    items: list[Item]
    total: int
    limit: int
    next: int | None

    @classmethod
    async def read(
        cls, connection: Connection, select: str, values: Mapping[str, Any], limit: int
    ) -> Self:
        """Return the rows after the id `values["after"]`, and how many are in all."""
        limit = min(limit, LIMIT_MAX)
        found = sql.SQL(select)
        counted = await connection.execute(_COUNT.format(found), values)
        total = await counted.fetchone()
        cursor = await connection.execute(
            _PART.format(found), {**values, "number": limit + 1}
        )
        rows = await cursor.fetchall()
        return cls.model_validate(
            {
                "items": rows[:limit],
                "total": total["total"] if total else 0,
                "limit": limit,
                "next": rows[limit - 1]["id"] if len(rows) > limit else None,
            }
        )
