"""Accounts: who asks, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from service.database import Connection

NO_ACCOUNT = HTTPException(401, "a valid key is needed", {"WWW-Authenticate": "Bearer"})


class Role(StrEnum):
    """What an account may do, from least to most; each includes the ones before it."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Say whether this role may do what the other may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


class Account(BaseModel):
    """A client of the service."""

    model_config = ConfigDict(frozen=True)

    id: int
    name: str
    role: Role
    rate_limit: str | None = None  # of the key that was used, if it has its own


async def find(connection: Connection, name: str) -> Account | None:
    """Return the account of this name."""
    cursor = await connection.execute(
        "SELECT id, name, role FROM accounts WHERE name = %s", [name]
    )
    row = await cursor.fetchone()
    return None if row is None else Account.model_validate(row)


async def ensure(connection: Connection, name: str, role: Role) -> Account:
    """Return the account of this name, made if there is none; its role is this one."""
    await connection.execute(
        "INSERT INTO accounts (name, role) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET role = excluded.role",
        [name, role],
    )
    account = await find(connection, name)
    assert account is not None
    return account


# The gate has checked the credentials; these tell readers of /openapi.json about them.
_CREDENTIALS = (
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(bearerFormat="JWT", auto_error=False)),
)


def require(role: Role) -> Callable[..., Account]:
    """Return a dependency that gives the account of a request, if its role suffices."""

    def check(
        connection: HTTPConnection,
        _key: Annotated[object, _CREDENTIALS[0]],
        _token: Annotated[object, _CREDENTIALS[1]],
    ) -> Account:
        account: Account | None = connection.scope.get("account")
        if account is None:
            raise NO_ACCOUNT
        if not account.role.includes(role):
            raise HTTPException(403, f"this needs the role {role}")
        return account

    return check


Reader = Annotated[Account, Depends(require(Role.READER))]
Writer = Annotated[Account, Depends(require(Role.WRITER))]
Admin = Annotated[Account, Depends(require(Role.ADMIN))]
