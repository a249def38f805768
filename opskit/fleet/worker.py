"""Worker: does the jobs of a fleet, each in a process of its own, and keeps house."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from uuid import uuid4

from opskit import __version__, locks
from opskit.checks import count, some
from opskit.config import Settings, configuration_path
from opskit.errors import (
    ConfigurationError,
    LockHeld,
    OpskitError,
    StoreError,
    machine_faults,
)
from opskit.fleet.alone import Alone
from opskit.fleet.engine import Engine
from opskit.fleet.queue import require_schema, session, sweep
from opskit.fleet.setup import claim
from opskit.fleet.sources import Search
from opskit.fleet.tick import Ticker
from opskit.log import logger
from opskit.operations.run import Run
from opskit.operations.schedule import Job, Key, jobs
from opskit.postgres.connect import (
    Connection,
    cut_off,
    has_row,
    query_value,
    translated,
)
from opskit.scheduler.jobs import Running, launch
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Missed
from opskit.store import Store
from opskit.threads import Thread, Wake
from opskit.watch.runs import observed

# In `state_dir`: touched at each round, whatever is away.
ALIVE = "alive"
# How long the queue's server may take for what a worker asks at a time, and stores
# and observers for what is reported.
_ANSWER = timedelta(minutes=2)
_REPORT_SECONDS = 60.0
# When a store that was away is asked again whose it is.
_CLAIM_SECONDS = 60.0
_NAME = "fleet-worker"
# A tick a minute, and a sign of life well before anybody counts as dead.
_PAUSE_SECONDS = 10.0


@contextmanager
def own_folder(run: Run) -> Iterator[None]:
    """Hold the state folder: two workers in one could not be told apart.

    Raises:
        LockHeld: it is that of another worker.
        ConfigurationError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(
                locks.exclusive(
                    run.state_dir / "locks",
                    _NAME,
                    operation=_NAME,
                    run_id=run.run_id,
                    now=run.now(),
                )
            )
        except LockHeld as error:
            raise error.replace(
                summary=f"another worker has the state folder {run.state_dir}: "
                f"{error.summary}",
                hint="Give each worker one of its own: set OPSKIT_STATE_DIR, and "
                "OPSKIT_SCHEDULER__LISTEN for its page.",
            ) from error
        yield


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
        self.labels, self.capacity, self.say = labels, capacity, say
        self._id = uuid4()
        self.wake = Wake()  # the main thread
        self.stops = 0
        self.pause = min(
            self.settings.fleet.dead_after.total_seconds() / 6, _PAUSE_SECONDS
        )
        self.journal = Journal(self.run)
        self._search = Search(
            self.settings,
            configuration_path().read_bytes(),
            labels=labels,
            wake=self.wake.set,
        )
        self._reports: list[Thread] = []
        entries, _faults = self.run.ledger.readable()
        self._ticker = Ticker(entries)
        self._jobs: tuple[Settings | None, dict[Key, Job]] = (None, {})
        self._alone, self._engine = Alone(self), Engine(self)
        self._stack, self._fleet = ExitStack(), ""
        # Stores that have not said yet whose they are, and what one said then.
        self._unclaimed: list[Store] = []
        self._claimed_at = 0.0
        self._foreign: ConfigurationError | None = None
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self.state, self.reason = "working", ""
        self._has_missed = False

    def stop(self) -> None:
        """Finish what runs, and take nothing new; asked twice, end what runs."""
        self.stops += 1
        if self.stops > 1:
            for each in [*self._engine.running.values(), *self._alone.running]:
                each.stop()
        self.wake.set()

    def serve(
        self, *, until_idle: bool = False, also: Callable[[], None] = lambda: None
    ) -> None:
        """Work until `stop` is called, or with `until_idle` until nothing is left.

        Now and then, call `also`.

        Raises:
            ConfigurationError: the queue cannot be used as it is, a store belongs to
                another fleet, or the clock is off for one that ends by itself.
        """
        self._warn_of_labels()
        with self._stack:
            while not self._has_ended:
                with suppress(OSError):  # what watches it then starts it again
                    (self.run.state_dir / ALIVE).touch()
                also()
                if self.stops:
                    self._engine.drain()  # whether the queue answers or not
                has_work = self._look()
                if until_idle and self.state == "clock-off":
                    self._engine.drain()
                    raise ConfigurationError(
                        f"this worker takes no jobs: {self.reason}",
                        hint="Set the clock of this machine, then run this again.",
                    )
                if until_idle and not has_work:
                    self.stops = self.stops or 1
                self.wake.wait(min(self.pause, 1) if self.stops else self.pause)
            with suppress(OpskitError), self._asking() as connection:
                connection.execute("DELETE FROM workers WHERE id = %s", (self._id,))
        self._search.close()
        deadline = time.monotonic() + _REPORT_SECONDS
        self.journal.close(deadline)
        for each in self._reports:
            each.join(max(0.0, deadline - time.monotonic()))
        if self._foreign is not None:
            raise self._foreign

    def _warn_of_labels(self) -> None:
        settings = self.settings
        sections = (settings.databases, settings.discover, settings.files)
        known = {each.label for sources in sections for each in sources.values()}
        if unknown := {*self.labels} - known - {"default"}:
            logger().warning(
                f"no source has the label {', '.join(sorted(unknown))}",
                hint=f"These have sources: {', '.join(sorted(known))}.",
            )

    def _look(self) -> bool:
        """Keep house, or go on without the queue; return whether there is work left."""
        self.settings = self._search.look()
        try:
            with self._asking() as connection:
                has_work = self._keep_house(connection)
            self._alone.back()
            return has_work
        except OpskitError as error:
            if isinstance(error, ConfigurationError) and not self._fleet:
                raise
            self._disconnect()
            try:
                with machine_faults("fleet-worker"):
                    self._alone.away(error)
            except OpskitError as fault:
                logger().error(fault.message, hint=fault.hint)
            return True

    @property
    def _has_ended(self) -> bool:
        is_busy = self._engine.is_alive or bool(self._alone.running)
        return bool(self.stops) and not is_busy

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        """Yield the connection to the queue; if it hangs, it is cut off."""
        with machine_faults("fleet-worker"), translated("the queue"):
            connection = self._connected()
            with cut_off(connection, _ANSWER):
                yield connection

    def _connected(self) -> Connection:
        """Return the connection to the queue; a new one is looked at first."""
        if self._connection is None:
            connection = self._stack.enter_context(
                session(self.settings.fleet, "fleet worker")
            )
            fleet = require_schema(connection)
            if fleet != self._fleet:
                self._unclaimed = self.run.stores
                self._claim(fleet)
                self._claimed_at = time.monotonic()
            self._connection, self._fleet = connection, fleet
            self._connected_at = time.monotonic()
        return self._connection

    def _claim(self, fleet: str) -> None:
        """Have the stores belong to this fleet; those that are away come later.

        Raises:
            ConfigurationError: one belongs to another.
        """
        away = []
        for store in self._unclaimed:
            try:
                claim(store, fleet)
            except StoreError as error:
                away.append(store)
                logger().warning(error.message, store=store.name)
        self._unclaimed = away

    def _claim_late(self) -> None:
        """Claim what was away; end if it turns out to be another fleet's."""
        try:
            self._claim(self._fleet)
        except ConfigurationError as error:
            self._unclaimed, self._foreign = [], error
            # What runs may end: somebody who has stopped it once did not mean that.
            self.stops = self.stops or 1
            self.wake.set()
        finally:
            self._claimed_at = time.monotonic()

    def _disconnect(self) -> None:
        self._connection = None
        with suppress(OpskitError):
            self._stack.close()

    def _keep_house(self, connection: Connection) -> bool:
        """Give a sign of life, sweep and tick; return whether there is work left."""
        offset = self._sign_of_life(connection)
        tolerance = self.settings.fleet.clock_tolerance.total_seconds()
        if self.stops:
            self._set("draining")
        elif abs(offset) > tolerance:
            self._set("clock-off", f"its clock is off by {offset:+.0f} seconds")
        else:
            self._set("working")
        if self.state != "working":
            return True
        self._engine.start()
        is_late = time.monotonic() > self._claimed_at + _CLAIM_SECONDS
        if self._unclaimed and is_late:
            self._claimed_at = math.inf  # until it has ended
            Thread(self._claim_late, name="claim")
        dead_after = self.settings.fleet.dead_after
        # Where the queue was away for all, the living get the time to come back.
        if time.monotonic() - self._connected_at > dead_after.total_seconds():
            sweep(connection, dead_after)
        self._search.record(connection, self.journal)
        if not self._search.is_over:
            return True
        self._report_missed(self._ticker.tick(connection, self.settings))
        return not self._ticker.has_ticked or has_row(
            connection,
            "SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
            " AND queue_name = ANY(%s)",
            list(self.labels),
        )

    def _report_missed(self, missed: Sequence[tuple[Job, Missed]]) -> None:
        if missed:
            number = sum(each.number for _job, each in missed)
            names = some([*dict.fromkeys(job.name for job, _each in missed)])
            self.report(
                OpskitError(
                    f"{count(number, 'run')} {'was' if number == 1 else 'were'} missed "
                    f"and will not be made up for; of each job only the last run is "
                    f"done: {names}",
                    hint="See whether each label has a worker, and when "
                    "the work ends: `inv fleet-status`.",
                )
            )
        elif self._has_missed:
            self.report()
        self._has_missed = bool(missed)

    def report(self, error: OpskitError | None = None) -> None:
        """Put a failure on record, or without one that it is over, and notify.

        Slow stores hold up nothing.
        """

        def record() -> None:
            with self.run.recorded("fleet-worker", watched=True) as made:
                made.begin()
                if error is not None:
                    logger().error(error.message, hint=error.hint)
                    raise error

        thread = Thread(record, name="report")
        self._reports = [thread, *(e for e in self._reports if e.is_alive())]

    def _set(self, state: str, reason: str = "") -> None:
        if (state, reason) != (self.state, self.reason):
            self.say(f"{state}: {reason}" if reason else state)
        self.state, self.reason = state, reason

    def _sign_of_life(self, connection: Connection) -> float:
        """Say in the queue's database who this is; return how far its clock is off."""
        before = time.monotonic()
        server = query_value(connection, "SELECT clock_timestamp()")
        delay = timedelta(seconds=(time.monotonic() - before) / 2)
        offset: float = (self.run.now() - delay - server).total_seconds()
        engine = self._engine.number
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
        # An earlier process of this worker that was killed must not count as dead.
        connection.execute(
            "DELETE FROM workers WHERE name = %s AND id <> %s AND seen_at < now() - %s",
            (self.run.ledger.id, self._id, self.settings.fleet.dead_after),
        )
        # procrastinate stops doing so when its worker drains, which may take hours.
        beaten = connection.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = %s",
            (engine,),
        )
        if engine is not None and not beaten.rowcount:
            self._engine.drain()  # it was taken for dead, and needs a new number
        return offset

    def launch(
        self,
        job: Job,
        due: str,
        turn: Mapping[str, object],
        on_end: Callable[[], None],
    ) -> Running:
        """Start the process of a job."""
        at = datetime.fromisoformat(due)
        self.say(f"{job.name}, due at {at:%Y-%m-%d %H:%M:%S} UTC, begins")
        return launch(
            job,
            at,
            settings=self.settings.scheduler,
            configuration=self._search.configuration(job.source),
            state_dir=self.run.state_dir,
            on_end=on_end,
            environment={"OPSKIT_TURN": json.dumps(turn)},
        )

    @property
    def is_full(self) -> bool:
        """Whether it does as many jobs as it may."""
        return len(self._engine.running) + len(self._alone.running) >= self.capacity

    @property
    def may_work_alone(self) -> bool:
        """Whether it may back up without the queue."""
        return not self.stops and self.state != "clock-off"

    def is_known(self, operation: str, source: str) -> bool:
        """Whether the queue knows a job, which another worker may be able to do."""
        return self._search.is_known(operation, source)

    def find(self, operation: str, source: str) -> Job | None:
        """Return a job of the configuration."""
        if self._jobs[0] is not self.settings:
            self._jobs = (
                self.settings,
                {each.key: each for each in jobs(self.settings)},
            )
        return self._jobs[1].get((operation, source))
