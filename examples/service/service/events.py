"""Events: recorded with the change that they tell of, then sent to who listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from service import logs
from service.accounts import Account
from service.database import Connection, Database
from service.subscriptions import background

_CHANNEL = "service_events"
# Held from the insertion to the commit, so that events become visible in the order of
# their ids: who has read one has missed none before it.
_LOCK = 7_305_127
_PAGE = 200
_BUFFER = 100
_POLL_SECONDS = 15.0
_SHUTDOWN = "the service is shutting down"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to what belongs to an account."""

    id: int
    kind: str
    account_id: int
    data: dict[str, Any]


class Ended(Exception):
    """A listener gets no more events; the text says why."""


async def record(
    connection: Connection, kind: str, account: Account, data: dict[str, Any]
) -> None:
    """Record an event, and that the hooks are to get it, in the caller's transaction.

    Call it last: until the commit, nobody else can record an event.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await connection.execute(
        """
        WITH event AS (
            INSERT INTO events (kind, account_id, data, request_id)
            VALUES (%s, %s, %s, %s) RETURNING id
        ), outbox AS (
            INSERT INTO deliveries (event_id, hook_id)
            SELECT event.id, hooks.id FROM event, hooks
        )
        SELECT pg_notify(%s, id::text) FROM event
        """,
        [kind, account.id, Jsonb(data), logs.request_id(), _CHANNEL],
    )


class Listener:
    """A reader's bounded buffer; a reader that does not keep up gets no more events."""

    def __init__(self, account_id: int) -> None:
        self.account_id = account_id
        self.is_subscribed = False
        # One more place, for the end.
        self._queue: asyncio.Queue[Event | Ended] = asyncio.Queue(_BUFFER + 1)
        self._has_ended = False

    def offer(self, event: Event) -> None:
        """Add an event of the account, unless the reader is too far behind."""
        if not self.is_subscribed or event.account_id != self.account_id:
            return
        if self._queue.qsize() >= _BUFFER:
            self.end("the reader is too slow")
        elif not self._has_ended:
            self._queue.put_nowait(event)

    def end(self, reason: str) -> None:
        """Let the reader take what is in the buffer, and no more."""
        if not self._has_ended:
            self._has_ended = True
            self._queue.put_nowait(Ended(reason))

    async def next(self) -> Event:
        """Wait for the next event.

        Raises:
            Ended: there will be no more.
        """
        item = await self._queue.get()
        if isinstance(item, Ended):
            raise item
        return item


class Hub:
    """Hands the events in the database to the listeners of this process."""

    def __init__(self, database: Database, url: str, listeners_max: int) -> None:
        self._database, self._url, self._listeners_max = database, url, listeners_max
        self._listeners: set[Listener] = set()
        self._last: int | None = None
        self._is_closed = False

    @contextmanager
    def listener(self, account_id: int) -> Iterator[Listener]:
        """Hand on the events of an account for as long as the block."""
        listener = Listener(account_id)
        self._listeners.add(listener)
        if self._is_closed:
            listener.end(_SHUTDOWN)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @property
    def is_full(self) -> bool:
        """Whether there are as many listeners as there may be."""
        return len(self._listeners) >= self._listeners_max

    def close(self) -> None:
        """End all listeners, now and later."""
        self._is_closed = True
        for listener in self._listeners:
            listener.end(_SHUTDOWN)

    async def read_after(self, last: int, account_id: int) -> list[Event]:
        """Return the next events of an account, oldest first; a page at most."""
        async with self._database.transaction() as connection:
            return await _read(connection, last, account_id)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Listen to the database, over a connection that no pooler shares.

        What happened while that was lost is handed on when it is there again.
        """
        connecting = AsyncConnection.connect(
            self._url, autocommit=True, application_name="service events"
        )
        async with await connecting as direct:
            await direct.execute(f"LISTEN {_CHANNEL}")
            if self._last is None:
                cursor = await direct.execute("SELECT coalesce(max(id), 0) FROM events")
                self._last = (await cursor.fetchone() or (0,))[0]
            async with background(self._follow(direct, self._last)) as task:
                yield task

    async def _follow(self, direct: AsyncConnection[Any], last: int) -> None:
        while True:
            while page := await _read(direct, last):
                for event in page:
                    for listener in self._listeners:
                        listener.offer(event)
                self._last = last = page[-1].id
            async for _ in direct.notifies(timeout=_POLL_SECONDS, stop_after=1):
                pass
            # A connection that was cut without a word is noticed by using it.
            async with asyncio.timeout(_POLL_SECONDS):
                await direct.execute("SELECT")


async def _read(
    connection: AsyncConnection[Any], last: int, account_id: int | None = None
) -> list[Event]:
    cursor = connection.cursor(row_factory=class_row(Event))
    await cursor.execute(
        "SELECT id, kind, account_id, data FROM events "
        "WHERE id > %s AND account_id = coalesce(%s, account_id) ORDER BY id LIMIT %s",
        [last, account_id, _PAGE],
    )
    return await cursor.fetchall()
