"""Retention: what happened long ago is deleted, a part at a time, beside requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import LiteralString

import structlog
from psycopg import OperationalError, sql
from psycopg_pool import PoolTimeout, TooManyRequests

from service.database import Database
from service.subscriptions import background

_PAUSE_SECONDS = 3600.0
_PART = 1000
# What is still to be delivered stays, with its event.
_DELETIONS: dict[str, LiteralString] = {
    "deliveries": "ended_at < now() - %(age)s",
    "events": "created_at < now() - %(age)s "
    "AND NOT EXISTS (SELECT FROM deliveries WHERE event_id = events.id)",
    "incoming": "received_at < now() - %(age)s",
}
_DELETE = sql.SQL(
    "DELETE FROM {table} WHERE id IN "
    "(SELECT id FROM {table} WHERE {condition} ORDER BY id LIMIT %(part)s)"
)
_log = structlog.get_logger()


class Retention:
    """Deletes old events, deliveries and incoming webhooks; nothing else."""

    def __init__(self, database: Database, days: int) -> None:
        self._database, self._age = database, timedelta(days=days)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Delete now, and again every hour."""
        async with background(self._delete_all()) as task:
            yield task

    async def _delete_all(self) -> None:
        while True:
            try:
                for table, condition in _DELETIONS.items():
                    await self._delete(table, condition)
            except (OperationalError, PoolTimeout, TooManyRequests) as error:
                _log.warning("old rows not deleted", error=type(error).__name__)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _delete(self, table: str, condition: LiteralString) -> None:
        delete = _DELETE.format(
            table=sql.Identifier(table), condition=sql.SQL(condition)
        )
        number = _PART
        while number == _PART:
            async with self._database.transaction() as connection:
                cursor = await connection.execute(
                    delete, {"age": self._age, "part": _PART}
                )
                number = cursor.rowcount
            if number:
                _log.info("old rows deleted", table=table, number=number)
