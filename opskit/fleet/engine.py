"""Engine: procrastinate's worker, which does jobs, each in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker as Procrastinate

from opskit.errors import (
    ConfigurationError,
    DatabaseError,
    DrillFailed,
    IntegrityError,
    LockHeld,
    OpskitError,
    UsageError,
)
from opskit.fleet.queue import VERSION, Again, application, session
from opskit.fleet.slots import NoSlot, free, take
from opskit.log import logger
from opskit.operations.schedule import Job
from opskit.postgres.connect import translated
from opskit.scheduler.jobs import Ended, Running
from opskit.threads import Thread

if TYPE_CHECKING:
    from opskit.fleet.worker import Worker

_STORE_SECONDS = (0.5, 2.0)
# A job whose server has no free slot is called when one gets free. Should the one that
# has the slot be killed, it comes by itself, later by so much for each job before it.
_TURN_SECONDS, _TURN_SECONDS_MAX = 5.0, 300.0
_POLL_SECONDS = 1.0
_LOCK_SECONDS = (20.0, 40.0)
_MINUTE = 60.0
# How long a worker puts back a job that its configuration does not know.
_UNKNOWN_SECONDS = 1800.0
_AGAIN_SECONDS = 2.0
_ENDED = """
    UPDATE turns SET
        failures = CASE WHEN %(ok)s THEN 0 ELSE failures + 1 END,
        seconds = coalesce(%(seconds)s, seconds),
        succeeded_at = CASE WHEN %(ok)s THEN now() ELSE succeeded_at END
    WHERE operation = %(operation)s AND source = %(source)s
      AND holds_turn(%(job)s, %(attempt)s, %(worker)s)
    RETURNING failures"""
# Trying again would end the same way.
_FINAL = {each.exit_code for each in (UsageError, DrillFailed, IntegrityError)}


class Engine:
    """Does the jobs that the queue gives a worker, in a thread of its own."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.running: dict[int, Running] = {}
        # Until when no job is taken because a store is full, and when each job that
        # is not known was seen first.
        self._full_until = 0.0
        self._unknown: dict[int, float] = {}
        self._inner: Procrastinate | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    @property
    def number(self) -> int | None:
        """Its number in procrastinate's table, if it has one."""
        inner = self._inner  # the thread ends it
        return inner.worker_id if inner else None

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs, or does the last ones."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Take jobs, unless it does so."""
        if not self.is_alive:
            self._thread = Thread(self._work, name="queue")

    def drain(self) -> None:
        """Take no more jobs, and end after those that run."""
        inner, loop = self._inner, self._loop
        if inner is not None and loop is not None:
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(inner.stop)

    def _work(self) -> None:
        """Run procrastinate's worker; if it ends early, it is to be started again."""
        # They log every job that is put back and every try to connect as an error.
        for name in ("procrastinate", "psycopg.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            with translated("the queue"):
                asyncio.run(self._serve())
        except (OpskitError, ConnectorException, OSError) as error:
            logger().info("the queue does not answer", reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it starts again
            logger().error("the queue's worker ended", reason=repr(error))

    async def _serve(self) -> None:
        fleet = self._worker.settings.fleet
        app = application(
            fleet,
            self._do,
            connections=self._worker.capacity + 2,
            is_ending=lambda: bool(self._worker.stops),
            is_pausing=self._is_pausing,
        )
        async with app.open_async():
            self._loop = asyncio.get_running_loop()
            self._inner = Procrastinate(
                app,
                queues=list(self._worker.labels),
                name=self._worker.run.ledger.id,
                concurrency=self._worker.capacity,
                fetch_job_polling_interval=_POLL_SECONDS,
                install_signal_handlers=False,
                update_heartbeat_interval=self._worker.pause,
                stalled_worker_timeout=86_400.0,
            )
            try:
                await self._inner.run()  # type: ignore[no-untyped-call]
            finally:
                self._inner = None

    async def _do(
        self,
        context: JobContext,
        operation: str,
        source: str,
        due: str,
        version: int = VERSION,
        **_of_later_versions: Any,
    ) -> None:
        """Do one job; procrastinate's task."""
        job = self._worker.find(operation, source)
        queued = context.job
        assert queued.id is not None
        if version > VERSION + 1:
            raise Again(_MINUTE)  # workers may differ by one version
        if job is None:
            raise self._unknown_job(queued.id, operation, source)
        if self._worker.stops:
            raise Again(1)  # it came just before
        try:
            slots = await asyncio.to_thread(take, self._worker.settings, job, queued.id)
        except NoSlot as none:
            raise Again(self._pause(none)) from none
        turn = {
            "due": due,
            "job": queued.id,
            "attempt": queued.attempts,
            "worker": queued.worker_id,
        }
        began = time.monotonic()
        try:
            ended = await self._process(queued.id, job, due, turn)
        finally:
            await asyncio.to_thread(free, slots)
            self._full_until = 0.0
        await asyncio.to_thread(
            self._conclude, job, turn, ended, time.monotonic() - began
        )

    def _is_pausing(self) -> bool:
        is_full = time.monotonic() < self._full_until or self._worker.is_full
        return is_full or self._worker.state == "clock-off"

    def _unknown_job(self, number: int, operation: str, source: str) -> Exception:
        """Return what puts a job back that another worker may know, or ends it."""
        first = self._unknown.setdefault(number, time.monotonic())
        waited = time.monotonic() - first
        if waited < _UNKNOWN_SECONDS or self._worker.is_known(operation, source):
            return Again(_MINUTE)
        error = UsageError(
            f"no worker with this label knows the job {operation} {source}".rstrip(),
            hint="Give all workers with this label the same configuration.",
        )
        self._worker.report(error)
        return error

    def _pause(self, none: NoSlot) -> float:
        """Return for how many seconds a job is put back that got no slot."""
        if none.before is not None:
            return min(_TURN_SECONDS * (none.before + 1), _TURN_SECONDS_MAX)
        # All backups need one there: asking for each would keep a machine busy.
        pause = random.uniform(*_STORE_SECONDS)  # noqa: S311
        self._full_until = time.monotonic() + pause
        return 1

    async def _process(
        self, number: int, job: Job, due: str, turn: Mapping[str, object]
    ) -> Ended:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def on_end() -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(over.set)

        try:
            self.running[number] = running = self._worker.launch(job, due, turn, on_end)
        except LockHeld as error:
            logger().warning(error.message, job=job.name)
            raise Again(random.uniform(*_LOCK_SECONDS)) from error  # noqa: S311
        except OSError as error:  # another machine may have what this one lacks
            logger().error("a job cannot be started", job=job.name, reason=str(error))
            raise Again(_MINUTE) from error
        if self._worker.stops > 1:
            running.stop()
        try:
            await over.wait()
        finally:
            del self.running[number]
        assert running.ended is not None
        return running.ended

    def _conclude(
        self, job: Job, turn: Mapping[str, Any], ended: Ended, seconds: float
    ) -> None:
        """Note how a job ended; raise what puts it back or ends it as failed."""
        logger().info("a job has ended", job=job.name, code=ended.code)
        if ended.cause == "stopped":
            raise Again(1)
        # Of all sources together one may be locked for long: that is a failure.
        if ended.code == LockHeld.exit_code and job.source:
            raise Again(random.uniform(*_LOCK_SECONDS))  # noqa: S311
        if not ended.document:
            self._worker.journal.ended(job, datetime.fromisoformat(turn["due"]), ended)
        failures = self._note(job, turn, None if ended.code else seconds)
        if not ended.code:
            return
        if (
            ended.code not in _FINAL
            and 0 < failures <= self._worker.settings.fleet.retries
        ):
            raise Again(_MINUTE * 2 ** (failures - 1))
        failure = ended.failure(job)
        raise OpskitError(failure.message, hint=failure.hint)

    def _note(self, job: Job, turn: Mapping[str, Any], seconds: float | None) -> int:
        """Note how a turn ended, if it is still one; return the failures in a row.

        That waits for the queue, unless the worker is ending: another will do the job.
        """
        values = {
            **turn,
            "ok": seconds is not None,
            "seconds": seconds,
            "operation": job.operation,
            "source": job.source,
        }
        fleet, purpose = self._worker.settings.fleet, f"fleet end of {job.name}"
        while True:
            try:
                with session(fleet, purpose) as connection:
                    row = connection.execute(_ENDED, values).fetchone()
            except (ConfigurationError, DatabaseError) as error:
                logger().info("the queue does not answer", reason=error.message)
                if self._worker.stops:
                    return 1
                time.sleep(_AGAIN_SECONDS)
            else:
                return int(row[0]) if row else 0
