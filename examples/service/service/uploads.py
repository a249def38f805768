"""Uploads: files with tasks, kept for a worker, and what the worker does with them."""

from __future__ import annotations

import os
import sys
from uuid import UUID, uuid4

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from service import imports, logs
from service.accounts import Account, Reader, Writer
from service.database import Connection, Database
from service.settings import Settings
from service.state import Current
from service.statefile import StateFile
from service.workers import AWAY, settle

router = APIRouter(prefix="/api/imports", tags=["imports"])


class Import(BaseModel):
    """An import and how far it is."""

    id: UUID
    status: str
    added: int | None = None
    error: str | None = None


@router.post("", status_code=202)
async def accept(request: Request, state: Current, account: Writer) -> Import:
    """Keep a payload for a worker; once this has answered it is not lost any more."""
    if state.workers.is_full:
        raise HTTPException(503, "too many imports are waiting", {"Retry-After": "10"})
    identifier = uuid4()
    async with state.workers.keeping(identifier) as file:
        async for chunk in request.stream():
            file.write(chunk)
        async with state.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO imports (id, account_id, request_id) VALUES (%s, %s, %s)",
                [identifier, account.id, logs.request_id()],
            )
    return Import(id=identifier, status="waiting")


@router.get("/{identifier}")
async def read_import(identifier: UUID, state: Current, account: Reader) -> Import:
    """Return how far an import of the account is."""
    async with state.database.transaction() as connection:
        cursor = await connection.execute(
            "SELECT id, status, added, error FROM imports "
            "WHERE id = %s AND account_id = %s",
            [identifier, account.id],
        )
        row = await cursor.fetchone()
    if row is None:
        raise HTTPException(404, "there is no such import")
    return Import.model_validate(row)


def state_file(settings: Settings) -> StateFile:
    """Return where workers count what they did."""
    return StateFile(settings.state_dir / "imports.json")


async def work(database: Database, counts: StateFile, identifier: str) -> int:
    """Import what is on standard input, and return the code to exit with.

    An import that is over, since its worker outlived a service that was killed, is left
    alone.
    """
    content = sys.stdin.buffer.read()
    try:
        records = imports.read(content)
        async with database.transaction() as connection:
            account = await _begin(connection, identifier)
            if account is None:
                return os.EX_OK
            done = await imports.load(connection, records, owner=account)
            await settle(connection, identifier, "done", added=done.added)
        result, added = "done", done.added
    except imports.Refused as refused:
        async with database.transaction() as connection:
            await settle(connection, identifier, "failed", error=str(refused))
        result, added = "failed", 0
    except AWAY:
        return os.EX_TEMPFAIL

    def count(content: dict[str, int]) -> None:
        content[result] = content.get(result, 0) + 1
        content["tasks"] = content.get("tasks", 0) + added

    counts.update(count)
    return os.EX_OK


async def _begin(connection: Connection, identifier: str) -> Account | None:
    """Keep other workers from an import that waits, and return whose it is."""
    cursor = await connection.execute(
        "SELECT accounts.id, name, role, request_id FROM imports "
        "JOIN accounts ON accounts.id = account_id "
        "WHERE imports.id = %s AND status = 'waiting' FOR UPDATE OF imports",
        [identifier],
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    structlog.contextvars.bind_contextvars(request_id=row.pop("request_id"))
    return Account.model_validate(row)
