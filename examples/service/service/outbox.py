"""Outbox: events on their way to the hooks; a restart forgets none of them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
import urllib3
from psycopg import OperationalError
from psycopg_pool import PoolTimeout, TooManyRequests

from service import __version__
from service.database import Database
from service.settings import origin
from service.signatures import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from service.subscriptions import background

_ATTEMPTS_MAX = 10
_PAUSE_SECONDS = 0.5
_PAUSE_SECONDS_MAX = 3600.0
_IDLE_SECONDS = 0.5
_TIMEOUT = urllib3.Timeout(total=5.0)
# A delivery whose attempt was cut short, by a kill, is due again after this.
_LEASE_SECONDS = 30
_AT_ONCE = 4
_CLAIM = """
    WITH due AS (
        UPDATE deliveries
        SET attempts = attempts + 1, due_at = now() + make_interval(secs => %s)
        WHERE id = (
            SELECT id FROM deliveries WHERE ended_at IS NULL AND due_at <= now()
            ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        RETURNING id, event_id, hook_id, attempts
    )
    SELECT due.id, event_id, attempts, url, secret, kind, data, request_id
    FROM due JOIN hooks ON hooks.id = hook_id JOIN events ON events.id = event_id
"""
_log = structlog.get_logger()


class Outbox:
    """Delivers what is in the outbox, at least once, with bounded attempts."""

    def __init__(self, database: Database, allowed_origins: list[str]) -> None:
        self._database = database
        self._allowed = frozenset(allowed_origins)
        self._http = urllib3.PoolManager(timeout=_TIMEOUT)

    def allows(self, url: str) -> bool:
        """Say whether a URL leads to where the settings let this service send."""
        try:
            return origin(url) in self._allowed
        except ValueError:
            return False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Deliver in the background."""
        async with background(self._deliver_all()) as task:
            yield task

    async def _deliver_all(self) -> None:
        free = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                await free.acquire()
                try:
                    due = await self._claim()
                except (OperationalError, PoolTimeout, TooManyRequests) as error:
                    _log.warning("outbox not read", error=type(error).__name__)
                    due = None
                if due is None:
                    free.release()
                    await asyncio.sleep(_IDLE_SECONDS)
                else:
                    delivery = group.create_task(self._deliver(due))
                    delivery.add_done_callback(lambda _: free.release())

    async def _deliver(self, due: dict[str, Any]) -> None:
        error = await asyncio.to_thread(self._post, due)
        _log.info(
            "delivery",
            delivery=str(due["id"]),
            attempt=due["attempts"],
            error=error,
            request_id=due["request_id"],
        )
        # What cannot be settled is due again when its lease ends.
        with suppress(OperationalError, PoolTimeout, TooManyRequests):
            await self._settle(due, error)

    def _post(self, due: dict[str, Any]) -> str:
        """Send a delivery once; return what went wrong, or nothing."""
        # Asked again: the settings may have changed since the hook was registered.
        if not self.allows(due["url"]):
            return "origin not allowed"
        body = json.dumps(
            {"id": due["event_id"], "type": due["kind"], "data": due["data"]}
        ).encode()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"service/{__version__}",
            "X-Request-ID": due["request_id"],
            ID_HEADER: str(due["id"]),
            TIMESTAMP_HEADER: str(now),
            SIGNATURE_HEADER: sign(due["secret"], now, body),
        }
        try:
            # A redirect could lead anywhere, and an answer be without end.
            with self._http.request(
                "POST",
                due["url"],
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
            ) as answer:
                return "" if 200 <= answer.status < 300 else f"status {answer.status}"
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return type(error).__name__

    async def _claim(self) -> dict[str, Any] | None:
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_CLAIM, [_LEASE_SECONDS])
            return await cursor.fetchone()

    async def _settle(self, due: dict[str, Any], error: str) -> None:
        is_over = not error or due["attempts"] >= _ATTEMPTS_MAX
        pause = min(_PAUSE_SECONDS * 4 ** (due["attempts"] - 1), _PAUSE_SECONDS_MAX)
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 -- spreads retries
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE deliveries SET ended_at = CASE WHEN %s THEN now() END, "
                "error = %s, due_at = now() + make_interval(secs => %s) "
                # Somebody else may have taken it over: then that result counts.
                "WHERE id = %s AND attempts = %s",
                [is_over, error, pause, due["id"], due["attempts"]],
            )
