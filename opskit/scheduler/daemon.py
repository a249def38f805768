"""Daemon: leads or stands by, starts what is due, and ends when it is asked to."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from apscheduler.schedulers.background import BackgroundScheduler

from opskit.config import configuration_path
from opskit.errors import LockHeld, OpskitError, machine_faults
from opskit.log import logger
from opskit.operations.outcome import Outcome, worst
from opskit.operations.run import Run
from opskit.operations.schedule import Job, jobs
from opskit.scheduler.dispatcher import Dispatcher
from opskit.scheduler.jobs import Running, launch
from opskit.scheduler.journal import Journal
from opskit.scheduler.lease import Lease
from opskit.scheduler.timetable import wake_up
from opskit.threads import Wake
from opskit.watch.gathering import Fleet, Gathering, Watch
from opskit.watch.runs import observed

if TYPE_CHECKING:
    from opskit.watch.web import Serving

# The clock may be set, so the next due time is computed anew at least so often.
_LOOK_SECONDS_MAX = 30.0
_ONCE_SECONDS = 1.0
# How long a killed process may take to end.
_KILL_SECONDS = 5.0
_WAKE = "wake"


class Daemon:
    """The scheduler of one configuration, which it can read again."""

    def __init__(
        self,
        load: Callable[[], Run],
        *,
        say: Callable[..., None] = lambda *_lines: None,
    ) -> None:
        self._load, self._say = load, say
        self.run = observed(load())
        self._configuration = configuration_path().read_bytes()
        self._wake = Wake()
        self._stopping = self._reloading = False
        self._stop_asked_at: float | None = None
        self._leads: bool | None = None
        self._has_to_wait = False
        self._journal = Journal(self.run)
        self._lease = self._new_lease()
        self._dispatcher = Dispatcher(journal=self._journal, launch=self._launch)
        self._timetable: tuple[Job, ...] = ()
        self._began = self.run.now()
        self._web: Web | None = None

    def stop(self) -> None:
        """Let it end, and its jobs at once; callable from a signal's handler."""
        self._stopping = True
        self._stop_asked_at = self._stop_asked_at or time.monotonic()
        self._dispatcher.stop()
        self._wake.set()

    def reload(self) -> None:
        """Let it read the configuration again; callable from a signal's handler."""
        self._reloading = True
        self._wake.set()

    def serve(self) -> None:
        """Run until `stop` is called."""
        alarm = BackgroundScheduler(timezone=UTC)
        alarm.start()
        try:
            self._learn()
            self._web = self._new_web(self.run)
            while not self._stopping:
                try:
                    with machine_faults("scheduler"):
                        self._tick()
                except OpskitError as error:
                    logger().error("the scheduler tries again", reason=error.message)
                if (due := wake_up(self._timetable, now=self.run.now())) is not None:
                    alarm.add_job(
                        self._wake.set,
                        "date",
                        run_date=due,
                        id=_WAKE,
                        replace_existing=True,
                        misfire_grace_time=None,
                    )
                self._wake.wait(self._pause)
        finally:
            alarm.shutdown(wait=False)
            self._end()
            if self._web is not None:
                self._web.close()

    def once(self) -> Outcome[Any]:
        """Run what is due, and what comes due meanwhile; then end.

        Raises:
            LockHeld: another scheduler leads.
        """
        began = time.monotonic()
        try:
            self._learn()
            self._lease = Lease(self.run)
            self._leads = False
            self._tick()
            if not self._leads:
                raise LockHeld(
                    f"another scheduler leads: {self._lease.holder}",
                    hint="It runs what is due; there is nothing to do for this one.",
                )
            while (
                self._dispatcher.is_busy or self._has_to_wait
            ) and not self._stopping:
                self._wake.wait(_ONCE_SECONDS)
                self._tick()
        finally:
            self._end()
        failures = self._dispatcher.failures
        return Outcome(
            operation="scheduler",
            status="error" if failures else "ok",
            run_id=self.run.run_id,
            started_at=self._began,
            seconds=round(time.monotonic() - began, 3),
            errors=(worst(failures),) if failures else (),
        )

    @property
    def _pause(self) -> float:
        """How long to sleep at most: the lease is kept alive meanwhile."""
        takeover = self.run.settings.scheduler.takeover.total_seconds()
        return min(_LOOK_SECONDS_MAX, takeover / 6)

    def _new_web(self, run: Run) -> Web | None:
        return Web(run, self._say) if run.settings.scheduler.listen else None

    def _new_lease(self) -> Lease:
        return Lease(self.run, patience=self.run.settings.scheduler.takeover)

    def _learn(self) -> None:
        """Take the timetable from the settings, and have the ledger know it."""
        self._timetable = jobs(self.run.settings)
        if self.run.settings.discover:
            logger().warning(
                "what [discover] finds is backed up by fleet-worker, not by a scheduler"
            )
        self._journal.learn(self._timetable)

    def _tick(self) -> None:
        if self._reloading:
            self._reloading = False
            self._read_again()
        has_news = self._dispatcher.collect()
        if self._web is not None and has_news:
            self._web.refresh()
        self._lease.check()
        held = self._lease.acquire()
        if held != self._leads:
            self._leads = held
            self._say("leading" if held else f"standing by: {self._lease.holder}")
        if self._lease.is_new:
            self._journal.take_over(self._timetable)
        self._has_to_wait = held and not self._journal.is_ready
        if held and not self._has_to_wait:
            self._dispatcher.start(
                self._timetable,
                new_since=self._began,
                now=self.run.now(),
                grace=self.run.settings.scheduler.grace,
                may_start=lambda: not self._stopping and self._lease.check(),
            )
        if self._web is not None:
            self._web.open()

    def _launch(self, job: Job, at: datetime) -> Running:
        self._say(f"{job.name}, due at {at:%Y-%m-%d %H:%M:%S} UTC, begins")
        return launch(
            job,
            at,
            settings=self.run.settings.scheduler,
            configuration=self._configuration,
            state_dir=self.run.state_dir,
            on_end=self._wake.set,
        )

    def _read_again(self) -> None:
        """Take a new configuration; one that is broken changes nothing."""
        # Its log and its masked secrets become this thread's once it is accepted.
        context = copy_context()
        try:
            run = context.run(self._load)
            configuration = configuration_path().read_bytes()
            web = context.run(self._new_web, run)
            try:
                # Last: the client of error tracking is the whole process's.
                run = context.run(observed, run)
            except OpskitError:
                if web is not None:
                    web.close()
                raise
        except OpskitError as error:
            logger().error(
                "the configuration was not read again, the one before stays in use",
                reason=error.message,
            )
            return
        for variable, value in context.items():
            variable.set(value)
        if self._web is not None:
            self._web.close()
        self._lease.release()
        self._web, self._configuration = web, configuration
        self.run = self._journal.run = run
        self._lease = self._new_lease()
        self._learn()
        self._say("the configuration was read again")

    def _end(self) -> None:
        """End what runs, within the time that the settings give."""
        self._dispatcher.stop()
        deadline = (self._stop_asked_at or time.monotonic()) + _KILL_SECONDS
        deadline += self.run.settings.scheduler.stop_timeout.total_seconds()
        while self._dispatcher.is_busy and time.monotonic() < deadline:
            self._wake.wait(_ONCE_SECONDS)
            self._dispatcher.collect()
        self._lease.release()
        self._journal.close(deadline)


class Web:
    """Health, metrics and the page over HTTP, as soon as their address is free."""

    def __init__(
        self, run: Run, say: Callable[..., None], fleet: Fleet | None = None
    ) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: the settings are wrong; not if the port is in use.
        """
        self._run, self._say = run, say
        self._serving: Serving | None = None
        self._ledger = (0, 0)
        self._has_said_so = False
        self._watch = Watch(Gathering(run, fleet))
        try:
            self._open()
        except BaseException as error:
            if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
                self.close()
                raise

    def open(self) -> None:
        """Listen, if that is not done; say once if it cannot be.

        Whatever is wrong with the page, the jobs run.
        """
        try:
            with machine_faults("scheduler"):
                self._open()
        except OpskitError as error:
            if not self._has_said_so:
                self._has_said_so = True
                logger().warning(
                    "there is no page yet, its address is tried again",
                    reason=error.message,
                )

    def refresh(self) -> None:
        """Have the state gathered again soon."""
        self._watch.refresh()

    def look(self) -> None:
        """Listen, as `open` does, and gather again if a run has ended here."""
        self.open()
        with suppress(OSError):  # whatever is wrong with the page, the jobs run
            before, self._ledger = self._ledger, self._run.ledger.state
            if before != self._ledger:
                self.refresh()

    def _open(self) -> None:
        if self._serving is not None:
            return
        from opskit.watch import web

        self._serving = web.serve(self._run, self._watch)
        host, port = self._serving.address
        self._say(f"status page: http://{host}:{port}/")

    def close(self) -> None:
        """End it."""
        self._watch.stop(wait_seconds=1)
        if self._serving is not None:
            self._serving.stop()
