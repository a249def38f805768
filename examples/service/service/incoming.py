"""Incoming webhooks: checked against their signature, and taken in once each."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from service import accounts, documents, logs, tasks
from service.accounts import Role
from service.database import Connection
from service.documents import Document, Text
from service.settings import Settings
from service.signatures import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    BadSignature,
    verify,
)
from service.state import Current

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
_ACCOUNT = "webhooks"
_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
_log = structlog.get_logger()


class Result(StrEnum):
    """What became of a webhook."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class Taken(BaseModel):
    """The answer to a webhook."""

    status: Result


class Event(BaseModel):
    """What a webhook says: other fields of it are the sender's own."""

    type: Annotated[Text, Field(min_length=1, max_length=100)]
    data: dict[str, Any] = {}


class Ping(Document):
    """Nothing happened."""


# The events that are known, and what their data must be.
_KNOWN: dict[str, type[Document]] = {"ping": Ping, "task.requested": tasks.NewTask}


@router.post("/incoming", status_code=202)
async def take(request: Request, state: Current) -> Taken:
    """Take in a webhook: its effect, and that it was seen, are one transaction."""
    body = await request.body()
    signature = _verified(request, state.settings, body)
    identifier = request.headers.get(ID_HEADER, "")
    if not _ID.fullmatch(identifier):
        raise HTTPException(400, f"{ID_HEADER} is missing or malformed")
    event, data = _read(body, is_strict=state.settings.strict_events)
    async with state.database.transaction() as connection:
        cursor = await connection.execute(
            "INSERT INTO incoming (id, signature, kind, body, request_id) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [identifier, signature, event.type, body, logs.request_id()],
        )
        if not cursor.rowcount:
            return await _seen(connection, identifier, body)
        if isinstance(data, tasks.NewTask):
            account = await accounts.ensure(connection, _ACCOUNT, Role.WRITER)
            await tasks.add(connection, account, data)
    return Taken(status=Result.ACCEPTED)


def _verified(request: Request, settings: Settings, body: bytes) -> str:
    """Return the signature of a webhook that is to be believed."""
    if settings.webhook_secret is None:
        raise HTTPException(404, "Not Found")
    signature = request.headers.get(SIGNATURE_HEADER, "")
    try:
        verify(
            settings.webhook_secret.get_secret_value(),
            timestamp=request.headers.get(TIMESTAMP_HEADER, ""),
            signature=signature,
            body=body,
            now=time.time(),
        )
    except BadSignature as error:
        _log.warning("webhook refused", reason=str(error))
        raise HTTPException(401, "the signature is not valid") from None
    return signature


def _read(body: bytes, *, is_strict: bool) -> tuple[Event, Document | None]:
    """Return what a webhook says, and its data if the type is known."""
    try:
        event = Event.model_validate(documents.read(body))
        kind = _KNOWN.get(event.type)
        if kind is None and is_strict:
            raise HTTPException(422, "the type of the event is not known")
        return event, kind.model_validate(event.data) if kind else None
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


async def _seen(connection: Connection, identifier: str, body: bytes) -> Taken:
    cursor = await connection.execute(
        "SELECT body = %s AS same FROM incoming WHERE id = %s", [body, identifier]
    )
    row = await cursor.fetchone()
    if row is None:
        raise HTTPException(409, "this signature was used with another id")
    if not row["same"]:
        raise HTTPException(409, "this id was used with another body")
    return Taken(status=Result.DUPLICATE)
