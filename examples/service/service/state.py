"""State: the parts of the running service, which its routes share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from service.database import Database
from service.events import Hub
from service.keys import Keys
from service.metrics import Metrics
from service.outbox import Outbox
from service.rates import Rates
from service.retention import Retention
from service.settings import Settings
from service.subscriptions import Subscription, Subscriptions, background
from service.tokens import Tokens
from service.workers import Workers


@dataclass(kw_only=True)
class State:
    """Everything that lives as long as the process."""

    settings: Settings
    database: Database
    keys: Keys
    tokens: Tokens
    rates: Rates
    metrics: Metrics
    hub: Hub
    outbox: Outbox
    workers: Workers
    subscriptions: Subscriptions
    began: float = field(default_factory=time.monotonic)
    # Set as soon as a signal asks the service to end: streams then end too.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, settings: Settings) -> State:
        """Return the parts as the settings want them; nothing is connected yet."""
        database = Database(settings)
        redis = settings.redis_url
        direct = settings.database_direct_url or settings.database_url
        hub = Hub(database, direct.get_secret_value(), settings.streams_max)
        outbox = Outbox(database, settings.hook_origins)
        workers = Workers(settings, database)
        retention = Retention(database, settings.keep_days)
        return cls(
            settings=settings,
            database=database,
            keys=Keys(database, settings.key_cache_seconds),
            tokens=Tokens(database, settings),
            rates=Rates(
                settings.rate,
                redis.get_secret_value() if redis else None,
                seconds=settings.redis_seconds,
            ),
            metrics=Metrics(settings.version),
            hub=hub,
            outbox=outbox,
            workers=workers,
            subscriptions=Subscriptions(
                [
                    Subscription(name="events", open=hub.open),
                    Subscription(name="outbox", open=outbox.open),
                    Subscription(name="workers", open=workers.open),
                    Subscription(name="retention", open=retention.open),
                ]
            ),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Begin what runs beside requests, and end it in the opposite order."""
        self.settings.state_dir.mkdir(parents=True, exist_ok=True)
        await self.database.open()
        try:
            async with self.subscriptions.running(), background(self._end_streams()):
                yield
        finally:
            self.stopping.set()
            await self.rates.close()
            await self.database.close()

    async def _end_streams(self) -> None:
        await self.stopping.wait()
        self.hub.close()


def _current(connection: HTTPConnection) -> State:
    state: State = connection.app.state.service
    return state


Current = Annotated[State, Depends(_current)]
