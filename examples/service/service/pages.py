"""Pages: lists are answered in parts, in the stable order of ids."""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from psycopg import sql
from pydantic import BaseModel, ConfigDict, Field

from service.database import Connection

_LIMIT_MAX = 100
_COUNT = sql.SQL("SELECT count(*) AS total FROM ({}) AS found")
_PART = sql.SQL(
    "SELECT * FROM ({}) AS found WHERE id > %(after)s ORDER BY id LIMIT %(number)s"
)
Item = TypeVar("Item", bound=BaseModel)


class Wanted(BaseModel):
    """Which page is wanted: the parameters that every list has."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(
        default=20, ge=1, description=f"items of a page; at most {_LIMIT_MAX} are sent"
    )
    after: int = Field(
        default=0, ge=0, le=2**63 - 1, description="`next` of the page before"
    )


class Page(BaseModel, Generic[Item]):
    """A part of a list; `next` is null in the last one."""

    items: list[Item]
    total: int
    limit: int
    next: int | None

    @classmethod
    async def read(
        cls, connection: Connection, select: str, wanted: Wanted, **values: Any
    ) -> Self:
        """Return the wanted rows, and how many there are in all."""
        values |= wanted.model_dump()
        limit = min(wanted.limit, _LIMIT_MAX)
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
