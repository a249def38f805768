"""Workers: processes that take in large payloads, each as its standard input."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import structlog
from psycopg import OperationalError
from psycopg_pool import PoolTimeout, TooManyRequests

from service.database import Connection, Database
from service.settings import Settings
from service.statefile import sync_directory
from service.subscriptions import background

_WAITING_MAX = 100
_PART = ".part"
_IDLE_SECONDS = 0.2
_AGAIN_SECONDS = 2.0
AWAY = (OperationalError, PoolTimeout, TooManyRequests)
_log = structlog.get_logger()


class Workers:
    """Hands the payloads in a folder to processes, a few at a time.

    The folder is the queue: what is in it when the service is killed is imported when
    the service is back.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._folder = settings.state_dir / "imports"
        self._at_once, self._seconds = settings.workers_max, settings.import_seconds
        self._database = database
        self._busy: set[Path] = set()

    @property
    def is_full(self) -> bool:
        """Whether as many payloads are waiting as may."""
        return len(list(self._folder.glob("*"))) >= _WAITING_MAX

    @asynccontextmanager
    async def keeping(self, identifier: UUID) -> AsyncIterator[BinaryIO]:
        """Yield a file that joins the queue when the block ends without an error."""
        part = self._folder / f"{identifier}{_PART}"
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            part.rename(self._folder / f"{identifier}")
            await asyncio.to_thread(sync_directory, self._folder)
        finally:
            part.unlink(missing_ok=True)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Work in the background; workers end with the block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._folder.glob(f"*{_PART}"):
            part.unlink()  # its sender had no answer
        async with background(self._work_all()) as task:
            yield task

    async def _work_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            waiting = {each for each in self._folder.glob("*") if each.suffix != _PART}
            if not (free := sorted(waiting - self._busy)):
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            self._busy.add(free[0])
            try:
                await self._hand_over(free[0])
            finally:
                self._busy.discard(free[0])

    async def _hand_over(self, payload: Path) -> None:
        code = await self._run(payload)
        try:
            if code not in (os.EX_OK, os.EX_TEMPFAIL):
                _log.error("worker failed", payload=payload.name, code=code)
                async with self._database.transaction() as connection:
                    error = "the worker failed"
                    await settle(connection, payload.name, "failed", error=error)
        except AWAY:
            code = os.EX_TEMPFAIL
        if code == os.EX_TEMPFAIL:
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            payload.unlink()

    async def _run(self, payload: Path) -> int:
        """Run a worker and return how it ended; it does not outlive this."""
        with payload.open("rb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "service", "work", payload.name, stdin=file
            )
        try:
            async with asyncio.timeout(self._seconds):
                return await process.wait()
        except TimeoutError:
            return -signal.SIGKILL
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def settle(
    connection: Connection,
    identifier: str,
    status: str,
    *,
    added: int | None = None,
    error: str | None = None,
) -> None:
    """Record how an import ended, unless that is known already."""
    await connection.execute(
        "UPDATE imports SET status = %s, added = %s, error = %s "
        "WHERE id = %s AND status = 'waiting'",
        [status, added, error, identifier],
    )
