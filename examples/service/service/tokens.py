"""Tokens: JSON Web Tokens, which name an account for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from service import accounts
from service.accounts import Account
from service.database import Database
from service.settings import Settings

_ALGORITHM = "HS256"  # the only one: a token does not choose how it is checked
_REQUIRED = ["aud", "exp", "iss", "sub"]
_SUBJECT_LENGTH_MAX = 100


def create(settings: Settings, name: str, lifetime: timedelta) -> str:
    """Return a token of the account of this name."""
    assert settings.jwt_secret is not None
    claims = {
        "aud": settings.jwt_audience,
        "exp": datetime.now(UTC) + lifetime,
        "iss": settings.jwt_issuer,
        "sub": name,
    }
    secret = settings.jwt_secret.get_secret_value()
    return jwt.encode(claims, secret, algorithm=_ALGORITHM)


@dataclass
class Tokens:
    """Checks tokens; what an account may do is asked of the database each time."""

    database: Database
    settings: Settings

    async def account(self, token: str) -> Account | None:
        """Return the account that a valid token names."""
        if self.settings.jwt_secret is None:
            return None
        try:
            claims = jwt.decode(
                token,
                self.settings.jwt_secret.get_secret_value(),
                algorithms=[_ALGORITHM],
                audience=self.settings.jwt_audience,
                issuer=self.settings.jwt_issuer,
                options={"require": _REQUIRED},
            )
        except jwt.InvalidTokenError:
            return None
        name = str(claims["sub"])
        if len(name) > _SUBJECT_LENGTH_MAX or "\0" in name:
            return None
        async with self.database.transaction() as connection:
            return await accounts.find(connection, name)
