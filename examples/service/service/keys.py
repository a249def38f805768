"""Keys: what clients name themselves with, made, stored as hashes, and checked."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error

from service.accounts import Account
from service.database import Connection, Database

_FORM = re.compile(r"svc_([0-9a-f]{8})_[\w-]{43}", re.ASCII)
# A key is long and random: no dictionary helps against it, so this may be quick.
_HASHER = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1)
_CACHED_MAX = 10_000
_CHECKS_AT_ONCE = 2


async def create(
    connection: Connection, account_id: int, rate_limit: str | None = None
) -> str:
    """Store a new key of an account, and return it: it cannot be read again."""
    prefix = secrets.token_hex(4)
    key = f"svc_{prefix}_{secrets.token_urlsafe(32)}"
    await connection.execute(
        "INSERT INTO api_keys (account_id, prefix, hash, rate_limit) "
        "VALUES (%s, %s, %s, %s)",
        [account_id, prefix, _HASHER.hash(key), rate_limit],
    )
    return key


@dataclass
class Keys:
    """Checks keys; what was right is believed for a while without another check."""

    database: Database
    cache_seconds: float
    _known: dict[bytes, tuple[float, Account]] = field(default_factory=dict)
    _checks: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_CHECKS_AT_ONCE)
    )

    async def account(self, key: str) -> Account | None:
        """Return whose key this is."""
        match = _FORM.fullmatch(key)
        if match is None:
            return None
        digest = hashlib.sha256(key.encode()).digest()
        until, account = self._known.get(digest, (0.0, None))
        if account is not None and time.monotonic() < until:
            return account
        self._known.pop(digest, None)
        account = await self._checked(key, match[1])
        if account is not None:
            while len(self._known) >= _CACHED_MAX:
                self._known.pop(next(iter(self._known)))
            self._known[digest] = (time.monotonic() + self.cache_seconds, account)
        return account

    async def _checked(self, key: str, prefix: str) -> Account | None:
        async with self.database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT accounts.id, name, role, hash, rate_limit FROM api_keys "
                "JOIN accounts ON accounts.id = account_id "
                "WHERE prefix = %s AND revoked_at IS NULL",
                [prefix],
            )
            row = await cursor.fetchone()
        if row is None:
            return None
        async with self._checks:
            is_right = await asyncio.to_thread(_is_right, row.pop("hash"), key)
        return Account.model_validate(row) if is_right else None


def _is_right(hashed: str, key: str) -> bool:
    try:
        return _HASHER.verify(hashed, key)
    except Argon2Error:
        return False
