"""Audit: who did what; written in the transaction of what was done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from service import logs
from service.accounts import Account, Admin
from service.database import Connection
from service.documents import Text, Time
from service.pages import Page, Wanted
from service.state import Current

router = APIRouter(prefix="/api/audit", tags=["audit"])


_LIST = (
    "SELECT * FROM audit WHERE (%(actor)s::text IS NULL OR actor = %(actor)s) "
    "AND (%(action)s::text IS NULL OR action = %(action)s) "
    "AND (%(since)s::timestamptz IS NULL OR time >= %(since)s)"
)
Word = Annotated[Text, Field(max_length=100)]


class Entry(BaseModel):
    """One thing that was done."""

    id: int
    time: datetime
    actor: str
    action: str
    subject: str
    request_id: str


class WantedEntries(Wanted):
    """Which entries are wanted."""

    actor: Word | None = None
    action: Word | None = None
    since: Time | None = None


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
    wanted: Annotated[WantedEntries, Query()], state: Current, _account: Admin
) -> Page[Entry]:
    """Return what was done, oldest first."""
    async with state.database.transaction() as connection:
        return await Page[Entry].read(connection, _LIST, wanted)
