"""Rates: how many requests a client has made, in Redis or in this process."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_RETRY_SECONDS = 2.0
_ROUNDED_SECONDS = 0.5  # Redis tells whole seconds: nobody may come back too early
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Where a client stands in the present window."""

    limit: int
    number: int
    reset_at: float

    @property
    def is_exceeded(self) -> bool:
        """Whether this request is one too many."""
        return self.number > self.limit

    @property
    def headers(self) -> dict[str, str]:
        """Tell a client; `Reset` is a time in seconds since 1970."""
        told = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.number)),
            "X-RateLimit-Reset": str(math.ceil(self.reset_at)),
        }
        if self.is_exceeded:
            wait = max(1, math.ceil(self.reset_at - time.time()))
            told["Retry-After"] = str(wait)
        return told


class Rates:
    """Counts requests by client in windows of fixed length.

    While Redis is away each process counts for itself: requests are answered rather
    than refused. Redis is then asked again only now and then, so that its absence costs
    no request its time.
    """

    def __init__(
        self, item: RateLimitItem, redis_url: str | None, *, seconds: float
    ) -> None:
        self._item = item
        self._own = MemoryStorage()
        self._client: Redis | None = None
        self._redis_again_at = 0.0
        if redis_url is not None:
            self._client = Redis.from_url(
                redis_url,
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                retry=Retry(NoBackoff(), retries=0),
            )
            self._shared = RedisStorage(
                "async+redis://",  # where it is, the pool knows
                implementation="redispy",
                connection_pool=self._client.connection_pool,  # type: ignore[arg-type]
            )

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._client is not None:
            await self._client.aclose()

    async def ping(self) -> None:
        """Ask Redis for a sign of life, if there is to be one."""
        if self._client is not None and not await self._shared.check():
            raise RedisError("no answer to PING")

    async def hit(self, client: str, own_limit: str | None = None) -> Rate:
        """Count one request of a client, which may have a limit of its own."""
        item = parse(own_limit) if own_limit else self._item
        if self._client is not None and time.monotonic() >= self._redis_again_at:
            try:
                return await self._hit(self._shared, item, client)
            except (RedisError, OSError) as error:
                self._redis_again_at = time.monotonic() + _RETRY_SECONDS
                _log.warning("redis unavailable", reason=type(error).__name__)
        return await self._hit(self._own, item, client)

    async def _hit(self, storage: Storage, item: RateLimitItem, client: str) -> Rate:
        key = item.key_for(client)
        number = await storage.incr(key, item.get_expiry())
        return Rate(
            limit=item.amount,
            number=number,
            reset_at=await storage.get_expiry(key) + _ROUNDED_SECONDS,
        )
