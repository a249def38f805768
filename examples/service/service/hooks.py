"""Hooks: where events are sent to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr
from starlette.exceptions import HTTPException

from service import audit
from service.accounts import Admin
from service.documents import Document, Route
from service.state import Current

router = APIRouter(prefix="/api/hooks", tags=["webhooks"], route_class=Route)


class NewHook(Document):
    """Where events are sent, and what their signatures are made with."""

    url: AnyHttpUrl
    secret: Annotated[SecretStr, Field(min_length=16, max_length=200)]


class Hook(BaseModel):
    """A hook, without its secret."""

    id: int
    url: str


@router.post("", status_code=201)
async def add_hook(new: NewHook, state: Current, account: Admin) -> Hook:
    """Register a hook at one of the allowed origins; again: change its secret."""
    url = str(new.url)
    if not state.outbox.allows(url):
        raise HTTPException(422, "the origin of the URL is not one of those allowed")
    async with state.database.transaction() as connection:
        cursor = await connection.execute(
            "INSERT INTO hooks (url, secret) VALUES (%s, %s) "
            "ON CONFLICT (url) DO UPDATE SET secret = excluded.secret "
            "RETURNING id, url",
            [url, new.secret.get_secret_value()],
        )
        hook = Hook.model_validate(await cursor.fetchone())
        await audit.record(connection, account, "hook.registered", f"hook:{hook.id}")
    return hook
