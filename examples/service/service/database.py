"""Database: a pool of connections to PostgreSQL, and transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from service.settings import Settings

Connection = AsyncConnection[DictRow]
_WAIT_SECONDS = 2.0
_CONNECT = {
    "connect_timeout": 3,
    "application_name": "service",
    "options": "-c statement_timeout=8s -c lock_timeout=5s "
    "-c idle_in_transaction_session_timeout=30s -c timezone=UTC",
}


class Database:
    """The one database; transactions end with their block, well or not at all."""

    def __init__(self, settings: Settings) -> None:
        self._pool = _pool(settings, settings.database_connections_max)
        # Its own, since a pool that is busy is no database that is away.
        self._watch = _pool(settings, 1)

    async def open(self) -> None:
        """Begin to connect; a database that is away makes the service not ready."""
        await self._pool.open(wait=False)
        await self._watch.open(wait=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        await self._watch.close()

    @asynccontextmanager
    async def transaction(
        self, wait: float = _WAIT_SECONDS
    ) -> AsyncIterator[Connection]:
        """Lend a connection: commit at the end of the block, roll back on an error."""
        async with self._pool.connection() as connection:
            yield connection

    async def ping(self, seconds: float) -> None:
        """Ask for a sign of life, and for the tables of the service."""
        async with self._watch.connection(seconds) as connection:
            await connection.execute("SELECT FROM accounts LIMIT 1")

    def statistics(self) -> dict[str, int]:
        """Return how the pool is used."""
        return dict(self._pool.get_stats())


def _pool(settings: Settings, size: int) -> AsyncConnectionPool[Connection]:
    kwargs: dict[str, Any] = {"row_factory": dict_row, **_CONNECT}
    return AsyncConnectionPool(
        settings.database_url.get_secret_value(),
        kwargs=kwargs,
        connection_class=AsyncConnection[DictRow],
        min_size=1,
        max_size=size,
        # A server that was restarted is noticed here, not by a request.
        check=AsyncConnectionPool.check_connection,
        timeout=_WAIT_SECONDS,
        reconnect_timeout=_WAIT_SECONDS,
        max_waiting=settings.concurrent_requests_max,
        open=False,
    )
