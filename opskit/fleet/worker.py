"""Worker: does the jobs of a fleet, each in a process of its own, and keeps house."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker as Engine

from opskit import __version__
from opskit.checks import count
from opskit.config import Settings, configuration_path
from opskit.errors import (
    ConfigurationError,
    DatabaseError,
    DrillFailed,
    IntegrityError,
    LockHeld,
    OpskitError,
    StoreError,
    UsageError,
    machine_faults,
)
from opskit.fleet.alone import Alone
from opskit.fleet.queue import (
    VERSION,
    Again,
    application,
    require_schema,
    session,
    sweep,
)
from opskit.fleet.setup import claim
from opskit.fleet.slots import free, take
from opskit.fleet.sources import Search
from opskit.fleet.tick import Ticker, label
from opskit.log import logger
from opskit.operations.run import Run
from opskit.operations.schedule import Job, Key, jobs
from opskit.postgres.connect import Connection, has_row, query_value, translated
from opskit.scheduler.jobs import Ended, Running, launch
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Missed
from opskit.threads import Thread
from opskit.watch.runs import observed

# In `state_dir`: touched at each round, whatever is away.
ALIVE = "alive"
_SLOT_SECONDS = (1.0, 3.0)
_POLL_SECONDS = 1.0
_LOCK_SECONDS = (20.0, 40.0)
_MINUTE = 60.0
_ENDING_SECONDS = 1.0
# So often a worker may put back a job that its configuration does not know.
_UNKNOWN_MAX = 30
# Trying again would end the same way.
_FINAL = {each.exit_code for each in (UsageError, DrillFailed, IntegrityError)}


class Worker:
    """One process of a fleet: takes jobs of its labels, up to its capacity at once."""

    def __init__(
        self,
        load: Callable[[], Run],
        *,
        labels: tuple[str, ...] = ("default",),
        capacity: int = 2,
        say: Callable[..., None] = lambda *_lines: None,
    ) -> None:
        self.run = observed(load())
        self.settings = self.run.settings
        self.labels, self.capacity, self._say = labels, capacity, say
        self._id = uuid4()
        self._wake = threading.Event()
        self._stops = 0
        self._journal = Journal(self.run)
        self._search = Search(
            self.settings,
            configuration_path().read_bytes(),
            labels=labels,
            wake=self.wake,
        )
        entries, _faults = self.run.ledger.readable()
        self._ticker = Ticker(entries)
        self._jobs: tuple[Settings | None, dict[Key, Job]] = (None, {})
        self._alone = Alone(self)
        self._running: dict[int, Running] = {}
        self._stack, self._fleet = ExitStack(), ""
        self._connection: Connection | None = None
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self.state, self.reason = "working", ""

    # The main thread: housekeeping.

    def stop(self) -> None:
        """Finish what runs, and take nothing new; asked twice, end what runs."""
        self._stops += 1
        if self._stops > 1:
            for each in [*self._running.values(), *self._alone.running]:
                each.stop()
        self._wake.set()

    def serve(
        self, *, until_idle: bool = False, also: Callable[[], None] = lambda: None
    ) -> None:
        """Work until `stop` is called, or with `until_idle` until nothing is left.

        Now and then, call `also`.

        Raises:
            ConfigurationError: the queue cannot be used as it is, or a store belongs
                to another fleet.
        """
        pause = self.settings.fleet.dead_after.total_seconds() / 6
        with self._stack:
            while not self._has_ended:
                self._wake.clear()
                with suppress(OSError):  # what watches it then starts it again
                    (self.run.state_dir / ALIVE).touch()
                also()
                try:
                    with machine_faults("fleet-worker"), translated("the queue"):
                        has_work = self._keep_house()
                    self._alone.back()
                except OpskitError as error:
                    if isinstance(error, ConfigurationError) and not self._fleet:
                        raise
                    has_work = True
                    self._disconnect()
                    self._alone.away(error)
                if until_idle and not has_work:
                    self._stops = self._stops or 1
                self._wake.wait(min(pause, _ENDING_SECONDS) if self._stops else pause)
            with suppress(OpskitError), translated("the queue"):
                self._connected().execute(
                    "DELETE FROM workers WHERE id = %s", (self._id,)
                )
        self._search.close()

    @property
    def _has_ended(self) -> bool:
        is_busy = self._thread is not None and self._thread.is_alive()
        return bool(self._stops) and not is_busy and not self._alone.running

    def _connected(self) -> Connection:
        """Return the connection to the queue; a new one is looked at first."""
        if self._connection is None:
            connection = self._stack.enter_context(
                session(self.settings.fleet, "fleet worker")
            )
            fleet = require_schema(connection)
            for store in self.run.stores if fleet != self._fleet else ():
                try:
                    claim(store, fleet)
                except StoreError as error:
                    logger().warning(error.message, store=store.name)
            self._connection, self._fleet = connection, fleet
        return self._connection

    def _disconnect(self) -> None:
        self._connection = None
        with suppress(OpskitError):
            self._stack.close()

    def _keep_house(self) -> bool:
        """Give a sign of life, sweep and tick; return whether there is work left."""
        self.settings = self._search.look()
        connection = self._connected()
        offset = self._sign_of_life(connection)
        tolerance = self.settings.fleet.clock_tolerance.total_seconds()
        if self._stops:
            self._set("draining")
        elif abs(offset) > tolerance:
            self._set("clock-off", f"its clock is off by {offset:+.0f} seconds")
        else:
            self._set("working")
        if self.state != "working":
            self._drain_engine()
            return True
        self._start_engine()
        sweep(connection, self.settings.fleet.dead_after)
        self._search.record(connection, self._journal)
        if not self._search.is_over:
            return True
        self._report_missed(self._ticker.tick(connection, self.settings))
        return has_row(
            connection,
            "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
            " AND queue_name = ANY(%s)",
            list(self.labels),
        )

    def _report_missed(self, missed: Sequence[tuple[Job, Missed]]) -> None:
        if missed:
            number = sum(each.number for _job, each in missed)
            names = ", ".join(dict.fromkeys(job.name for job, _each in missed))
            self.report(
                OpskitError(
                    f"{count(number, 'run')} will not be made up for, only the last of "
                    f"each job: {names}",
                    hint="See when no worker ran, whether each label has one, and "
                    "whether the night is long enough.",
                )
            )

    def report(self, error: OpskitError) -> None:
        """Put a failure on record and notify of it; slow stores hold up nothing."""

        def record() -> None:
            logger().error(error.message, hint=error.hint)
            with self.run.recorded("fleet-worker", watched=True):
                raise error

        Thread(record, name="report")

    def _set(self, state: str, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self._say(f"{state}: {reason}" if reason else state)
        self.state, self.reason = state, reason

    def _sign_of_life(self, connection: Connection) -> float:
        """Say in the queue's database who this is; return how far its clock is off."""
        before = time.monotonic()
        server = query_value(connection, "SELECT clock_timestamp()")
        delay = timedelta(seconds=(time.monotonic() - before) / 2)
        offset: float = (self.run.now() - delay - server).total_seconds()
        engine = self._engine.worker_id if self._engine else None
        connection.execute(
            """
            INSERT INTO workers (id, engine, name, host, pid, version, labels, capacity,
                                 clock_offset, state, reason)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(),
                engine = excluded.engine, clock_offset = excluded.clock_offset,
                state = excluded.state, reason = excluded.reason""",
            (
                self._id, engine, self.run.ledger.id, socket.gethostname(),
                os.getpid(), __version__, list(self.labels), self.capacity, offset,
                self.state, self.reason,
            ),
        )  # fmt: skip
        # procrastinate stops doing so when its worker drains, which may take hours.
        beaten = connection.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = %s",
            (engine,),
        )
        if engine is not None and not beaten.rowcount:
            self._drain_engine()  # it was taken for dead, and needs a new number
        return offset

    # procrastinate's worker, in a thread of its own.

    def _start_engine(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(self._work, name="queue")

    def _drain_engine(self) -> None:
        if self._engine is not None and self._loop is not None:
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._engine.stop)

    def _work(self) -> None:
        """Run procrastinate's worker; if it ends early, it is started again."""
        # They log every job that is put back and every try to connect as an error.
        for name in ("procrastinate", "psycopg.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            asyncio.run(self._serve_queue())
        except (ConnectorException, OSError) as error:
            logger().info("the queue does not answer", reason=str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it starts again
            logger().error("the queue's worker ended", reason=repr(error))

    async def _serve_queue(self) -> None:
        fleet = self.settings.fleet
        beat = fleet.dead_after.total_seconds() / 6
        app = application(
            fleet,
            self._do,
            connections=self.capacity + 2,
            is_ending=lambda: bool(self._stops),
        )
        async with app.open_async():
            self._loop = asyncio.get_running_loop()
            self._engine = Engine(
                app,
                queues=list(self.labels),
                name=self.run.ledger.id,
                concurrency=self.capacity,
                fetch_job_polling_interval=_POLL_SECONDS,
                install_signal_handlers=False,
                update_heartbeat_interval=beat,
                stalled_worker_timeout=86_400.0,
            )
            try:
                await self._engine.run()  # type: ignore[no-untyped-call]
            finally:
                self._engine = None

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
        job = self.find(operation, source)
        queued = context.job
        assert queued.id is not None
        if version > VERSION + 1:
            raise Again(_MINUTE)  # workers may differ by one version
        if job is None:
            if queued.attempts < _UNKNOWN_MAX:
                raise Again(_MINUTE)  # another worker's configuration may know it
            raise UsageError(f"no configuration has a {operation} of {source}")
        slots = await asyncio.to_thread(take, self.settings, job)
        if slots is None:
            raise Again(random.uniform(*_SLOT_SECONDS))  # noqa: S311
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
        await asyncio.to_thread(
            self._conclude, job, due, ended, time.monotonic() - began
        )

    async def _process(
        self, number: int, job: Job, due: str, turn: Mapping[str, object]
    ) -> Ended:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def on_end() -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(over.set)

        try:
            self._running[number] = running = self.launch(job, due, turn, on_end)
        except LockHeld as error:
            logger().warning(error.message, job=job.name)
            raise Again(random.uniform(*_LOCK_SECONDS)) from error  # noqa: S311
        try:
            await over.wait()
        finally:
            del self._running[number]
        assert running.ended is not None
        return running.ended

    def launch(
        self,
        job: Job,
        due: str,
        turn: Mapping[str, object],
        on_end: Callable[[], None],
    ) -> Running:
        """Start the process of a job."""
        self._say(f"{job.name}, due at {due}, begins")
        return launch(
            job,
            datetime.fromisoformat(due),
            settings=self.settings.scheduler,
            configuration=self._search.configuration,
            state_dir=self.run.state_dir,
            on_end=on_end,
            environment={"OPSKIT_TURN": json.dumps(turn)},
        )

    @property
    def may_work_alone(self) -> bool:
        """Whether it may back up without the queue."""
        return not self._stops and self.state != "clock-off"

    def serves(self, job: Job) -> bool:
        """Return whether a job is one of this worker's labels."""
        return label(self.settings, job) in self.labels

    def wake(self) -> None:
        """Have the main thread look at once."""
        self._wake.set()

    def find(self, operation: str, source: str) -> Job | None:
        """Return a job of the configuration."""
        if self._jobs[0] is not self.settings:
            self._jobs = (
                self.settings,
                {each.key: each for each in jobs(self.settings)},
            )
        return self._jobs[1].get((operation, source))

    def _conclude(self, job: Job, due: str, ended: Ended, seconds: float) -> None:
        """Note how a job ended; raise what puts it back or ends it as failed."""
        logger().info("a job has ended", job=job.name, code=ended.code)
        if ended.cause == "stopped":
            raise Again(1)
        if ended.code == LockHeld.exit_code:
            raise Again(random.uniform(*_LOCK_SECONDS))  # noqa: S311
        if not ended.document:
            self._journal.ended(job, datetime.fromisoformat(due), ended)
        failures = self._note(job, None if ended.code else seconds)
        if not ended.code:
            return
        if ended.code not in _FINAL and 0 < failures <= self.settings.fleet.retries:
            raise Again(_MINUTE * 2 ** (failures - 1))
        failure = ended.failure(job)
        logger().error(failure.message, hint=failure.hint)
        raise OpskitError(failure.message)

    def _note(self, job: Job, seconds: float | None) -> int:
        """Note a success or a failure of a turn; return how many failed in a row."""
        try:
            with session(self.settings.fleet, f"fleet end of {job.name}") as connection:
                row = connection.execute(
                    """
                    UPDATE turns SET
                        failures = CASE WHEN %(ok)s THEN 0 ELSE failures + 1 END,
                        seconds = coalesce(%(seconds)s, seconds),
                        succeeded_at = CASE WHEN %(ok)s THEN now() ELSE succeeded_at END
                    WHERE operation = %(operation)s AND source = %(source)s
                    RETURNING failures""",
                    {
                        "ok": seconds is not None,
                        "seconds": seconds,
                        "operation": job.operation,
                        "source": job.source,
                    },
                ).fetchone()
        except DatabaseError as error:
            logger().info("the queue does not answer", reason=error.message)
            return 1
        return int(row[0]) if row else 0
