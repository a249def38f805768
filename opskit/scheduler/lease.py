"""Lease: of several schedulers with the same jobs, one leads."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import timedelta
from hashlib import sha256

from opskit import locks
from opskit.config import Settings
from opskit.errors import LockHeld, OpskitError
from opskit.log import logger
from opskit.operations.run import Run
from opskit.operations.schedule import jobs
from opskit.postgres.connect import (
    Connection,
    is_pooled,
    milliseconds,
    server_major,
    translated,
)
from opskit.postgres.snapshot import DatabaseLock, database_lock
from opskit.store.locks import HeldLock, Timing, hold, uptime

_FIRST_WITH_IDLE_TIMEOUT = 14
_LOCK_WAIT = timedelta(seconds=5)
# No source can have this name: it begins with a dot.
_CLAIM = ".scheduler-{}"
_NAME = "scheduler"


class Lease:
    """Leadership: a lock in the first database, or a claim in a store without one.

    While that cannot be asked, a scheduler leads alone on its host: a backup that is
    taken twice is better than none, and its failure must be reported by somebody. One
    that led goes on at once, any other waits for the time of `patience` before.
    """

    def __init__(self, run: Run, *, patience: timedelta = timedelta(0)) -> None:
        self._run, self._patience = run, patience.total_seconds()
        # When it may lead alone, by `uptime`; None if another led when it last asked.
        self._alone_from: float | None = None
        self._stack = ExitStack()
        self._lock: DatabaseLock | HeldLock | None = None
        self._is_alone = False
        self.is_new = False
        self.holder = ""

    @property
    def is_held(self) -> bool:
        """Whether it was held at the last check."""
        return self._lock is not None or self._is_alone

    def check(self) -> bool:
        """Return whether it is held now, as the database or the store has it."""
        try:
            if isinstance(self._lock, DatabaseLock):
                takeover = self._run.settings.scheduler.takeover
                self._lock.require_held(within=takeover / 2)
            elif self._lock is not None:
                self._lock()
        except OpskitError as error:
            logger().warning("this scheduler no longer leads", reason=error.message)
            self.release()
        return self.is_held

    def acquire(self) -> bool:
        """Try to get it, if it is not held; return whether it is held now.

        It `is_new` if it was got by this call.
        """
        self.is_new = False
        if self._lock is not None:
            return True
        try:
            stack, lock = self._get()
        except LockHeld as error:
            self.release()
            self.holder = error.message
            self._alone_from = None
        except OpskitError as error:
            self._lead_alone(error)
        else:
            self.release()
            self._stack, self._lock, self.holder = stack, lock, ""
            self.is_new = True
            self._alone_from = 0.0
        return self.is_held

    def release(self) -> None:
        """Give it back."""
        self._lock, self._is_alone = None, False
        try:
            self._stack.close()
        except OpskitError as error:
            logger().info("the lease ended with its connection", reason=error.message)
        finally:
            self._stack = ExitStack()

    def _get(self) -> tuple[ExitStack, DatabaseLock | HeldLock]:
        with ExitStack() as stack:
            settings = self._run.settings
            if settings.databases:
                url = next(iter(settings.databases.values())).resolve_url()
                name = f"scheduler {_place(settings)}"
                held = database_lock(
                    url, name=name, run_id=self._run.run_id, lock_wait=_LOCK_WAIT
                )
                lock = stack.enter_context(held)
                with translated("the lease"):
                    if not is_pooled(lock.connection):
                        _end_when_idle(lock.connection, settings.scheduler.takeover / 2)
                        return stack.pop_all(), lock
                # A pooler may give others the session, and with it the lock.
                stack.close()
            owner = ""
            with suppress(LockHeld):
                # While it is held, any other claim of this host is of a dead scheduler.
                stack.enter_context(self._alone_on_host())
                owner = self._run.ledger.id
            claim = stack.enter_context(self._claim(owner))
            return stack.pop_all(), claim

    def _claim(self, owner: str) -> AbstractContextManager[HeldLock]:
        settings = self._run.settings
        seconds = settings.scheduler.takeover.total_seconds()
        # A claim is put again and again: in a locked bucket each would stay for days.
        unlocked = [
            each
            for each in self._run.stores
            if not settings.stores[each.name].object_lock_days
        ]
        return hold(
            # The one that other hosts are likeliest to see: remote stores come last.
            (unlocked or self._run.stores)[-1],
            _CLAIM.format(_place(settings)),
            operation=_NAME,
            run_id=self._run.run_id,
            owner=owner,
            clock=self._run.now,
            timing=Timing(
                renew_seconds=seconds / 8, dead_after_seconds=seconds / 2, attempts=1
            ),
        )

    def _lead_alone(self, error: OpskitError) -> None:
        if self._is_alone:
            return
        if self._alone_from is None:
            self._alone_from = uptime() + self._patience
        if uptime() < self._alone_from:
            self.holder = f"the lease cannot be asked for: {error.message}"
            return
        try:
            self._stack.enter_context(self._alone_on_host())
        except LockHeld as held:
            self.holder = held.message
            return
        logger().warning(
            "this scheduler leads alone on its host: the lease cannot be asked for",
            reason=error.message,
        )
        self._is_alone, self._alone_from, self.holder = True, 0.0, ""
        self.is_new = True

    def _alone_on_host(self) -> AbstractContextManager[None]:
        return locks.exclusive(
            self._run.state_dir / "locks",
            _NAME,
            operation=_NAME,
            run_id=self._run.run_id,
            now=self._run.now(),
        )


def _place(settings: Settings) -> str:
    """Return what schedulers that do the same have in common: jobs and stores.

    The times do not count: they may be changed on one host after the other.
    """
    parts = [each.url for each in settings.stores.values()]
    parts += [each.name for each in jobs(settings)]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12]


def _end_when_idle(connection: Connection, limit: timedelta) -> None:
    """Let the server end the session of a leader that was stopped.

    Its connection stays open although it does nothing. Older servers know no such
    limit: there only the death of the leader frees the lock.
    """
    if server_major(connection) >= _FIRST_WITH_IDLE_TIMEOUT:
        connection.execute(
            "SELECT set_config('idle_session_timeout', %s, false)",
            (f"{milliseconds(limit)}ms",),
        )
