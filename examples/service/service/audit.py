"""Audit: who did what; written in the transaction of what was done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel

from service import logs
from service.accounts import Account, Admin
from service.database import Connection
from service.documents import Text
from service.pages import After, Limit, Page
from service.state import Current

router = APIRouter(prefix="/api/audit", tags=["audit"])


class Entry(BaseModel):
    """One thing that was done."""

    id: int
    time: datetime
    actor: str
    action: str
    subject: str
    request_id: str


async def record(
    connection: Connection, actor: Account, action: str, subject: str
) -> None:
    """Record what an account did to a subject."""
    await connection.execute(
        "INSERT INTO audit (actor, action, subject, request_id) "
        "VALUES (%s, %s, %s, %s)",
        [actor.name, action, subject, logs.request_id()],
    )


@router.get("")
async def list_entries(
    state: Current,
    _account: Admin,
    limit: Limit = 20,
    after: After = 0,
    actor: Annotated[Text | None, Query(max_length=100)] = None,
    action: Annotated[Text | None, Query(max_length=100)] = None,
    since: Annotated[AwareDatetime | None, Query()] = None,
) -> Page[Entry]:
    """Return what was done, oldest first."""
    filters = {"actor = %(actor)s": actor, "action = %(action)s": action}
    where = [each for each, value in filters.items() if value is not None]
    where += ["time >= %(since)s"] if since else []
    values = {"actor": actor, "action": action, "since": since, "after": after}
    select = "SELECT id, time, actor, action, subject, request_id FROM audit WHERE "
    async with state.database.transaction() as connection:
        return await Page[Entry].read(
            connection, select + " AND ".join(["true", *where]), values, limit
        )
