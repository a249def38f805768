"""What runs in the background: started in order, watched, started again, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger(__name__)
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """Something that the service serves in the background.

    Entering `open()` returns once it is established, with the task that serves it. The
    task ends only when the subscription is lost.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[asyncio.Task[None]]]


class Subscriptions:
    """Starts subscriptions in their order; ready only while all of them run.

    If one cannot be started or is lost, all of them are stopped, the last first, and
    started again in order after a pause.
    """

    def __init__(
        self, subscriptions: Sequence[Subscription], *, start_seconds: float = 15
    ) -> None:
        self._subscriptions = subscriptions
        self._start_seconds = start_seconds
        self.ready = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start them in the background, and stop them at the end of the block."""
        async with background(self._keep()):
            yield

    async def _keep(self) -> None:
        while True:
            try:
                await self._run()
                _log.warning("a subscription ended")
            except Exception as error:  # noqa: BLE001 -- whatever it was: start again
                _log.warning("a subscription failed", error=type(error).__name__)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            tasks = [await self._start(each, stack) for each in self._subscriptions]
            try:
                self.ready = True
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.ready = False

    async def _start(
        self, subscription: Subscription, stack: AsyncExitStack
    ) -> asyncio.Task[None]:
        async with asyncio.timeout(self._start_seconds):
            task = await stack.enter_async_context(subscription.open())
        _log.info("subscription started", subscription=subscription.name)
        return task


@asynccontextmanager
async def background(
    work: Coroutine[Any, Any, None],
) -> AsyncIterator[asyncio.Task[None]]:
    """Run a coroutine in a task that is cancelled at the end of the block.

    The block ends with the error of the task if it failed.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        # Unlike `await task`, this does not take a cancellation of the caller for that
        # of the task.
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
