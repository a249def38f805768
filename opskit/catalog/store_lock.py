"""A lock on a source in a store: two hosts do not write sets of it at the same time.

Safe on any store whose listing shows what was put before. A run puts its claim, then
lists: of two runs at least one sees the other. Only who sees nobody holds the lock, so
never do two. Who is there first keeps its claim and looks again; the others withdraw
theirs, so that one of them gets it.

A claim is renewed while its run lives, and is dead when the store's own clock says that
it was not for `dead_after_seconds`. Its run counts as having lost the lock somewhat
earlier, by its own clock, counted from before the claim was put.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from random import SystemRandom

from opskit.errors import LockHeld, ObjectNotFound, OpskitError, StoreError
from opskit.store import Store
from opskit.store.locks import Claim, Living, Seen

_SURE_SHARE = 0.8
_RECORD_BYTES_MAX = 64 * 1024
_LAST_RENEWAL_SECONDS = 30.0
_random = SystemRandom().random


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How often a claim is renewed, when it is dead, how long a run tries to get one.

    `pause_seconds` is the mean time between two of the `attempts`.
    """

    renew_seconds: float = 60
    dead_after_seconds: float = 300
    attempts: int = 5
    pause_seconds: float = 2

    @property
    def dead_after(self) -> timedelta:
        """The age at which a claim is dead."""
        return timedelta(seconds=self.dead_after_seconds)

    @property
    def sure_seconds(self) -> float:
        """How long after the last renewal its run may rely on the lock."""
        return self.dead_after_seconds * _SURE_SHARE


def uptime() -> float:
    """Return seconds of a clock that nobody sets, and that goes on in suspend."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@contextmanager
def hold(
    store: Store,
    source: str,
    *,
    operation: str,
    run_id: str,
    host: str,
    pid: int,
    owner: str = "",
    clock: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = _random,
    uptime: Callable[[], float] = uptime,
    timing: Timing | None = None,
) -> Iterator[HeldLock]:
    """Hold the lock of a source in a store for the length of the block.

    Yields the lock, which raises when it is called after it was lost: call it right
    before what must not be done twice. `owner` names whoever runs one at a time anyway,
    by a lock of its own: another claim of the same owner is that of a run which was
    killed.

    Raises:
        LockHeld: another run holds it; the message says who, where, and since when. Or
            the lock was lost to another run.
        StoreError: the store cannot be used, or the claim cannot be renewed.
    """
    timing = timing or Timing()
    record = {
        "operation": operation,
        "run_id": run_id,
        "host": host,
        "pid": pid,
        "owner": owner,
        "started_at": clock().isoformat(),
    }
    claim = Claim(store, source, run_id=run_id, record=record, uptime=uptime)
    lock = HeldLock(claim, timing, uptime, owner)
    try:
        lock.acquire(sleep, random)
        with lock.renewed():
            yield lock
    finally:
        claim.withdraw()


class HeldLock:
    """A lock on a source in a store.

    `got_at` is the time by the store's own clock when the lock was got.
    """

    got_at: datetime

    def __init__(
        self, claim: Claim, timing: Timing, uptime: Callable[[], float], owner: str
    ) -> None:
        self._claim = claim
        self._owner = owner
        self._timing = timing
        self._uptime = uptime
        self._lost = False
        self._trouble = "its run was stopped for too long"

    def acquire(
        self, sleep: Callable[[float], None], random: Callable[[], float]
    ) -> None:
        seen = Seen(mine=None, others=(), litter=())
        for attempt in range(self._timing.attempts):
            if attempt:
                sleep(self._timing.pause_seconds * (0.5 + random()))
            if not self._claim.is_put:
                self._claim.put()
            seen = self._without_killed(self._claim.look(self._timing.dead_after))
            if seen.mine is not None and not seen.others:
                self()
                self.got_at = seen.mine.newest.modified_at
                self._claim.clean(seen.litter)
                return
            if seen.mine is None or seen.others[0].order < seen.mine.order:
                self._claim.withdraw()
        raise _held(self._claim, seen, self._timing)

    def _without_killed(self, seen: Seen) -> Seen:
        """Bury the claims of our own owner: it runs one at a time."""
        alive = []
        for other in seen.others:
            record = _read_record(self._claim.store, other) if self._owner else None
            if record is not None and record.get("owner") == self._owner:
                self._claim.bury(other)
            else:
                alive.append(other)
        return replace(seen, others=tuple(alive))

    def __call__(self) -> None:
        """Raise if another run may hold the lock by now."""
        where = f"the lock of {self._claim.source} in store {self._claim.store.name}"
        if self._lost:
            raise LockHeld(
                f"{where} was lost: another run took its claim for dead",
                hint="See whether another host backs up the same source, and whether "
                "the clock of the store jumps.",
            )
        if self._uptime() - self._claim.sure_since > self._timing.sure_seconds:
            raise StoreError(
                f"{where} could not be renewed in time: {self._trouble}",
                hint="Check that the store can be reached, then run this again.",
            )

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim in a thread of its own for the length of the block."""
        stop = threading.Event()
        thread = threading.Thread(
            target=self._renew, args=[stop], name="store lock", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            # One that waits for the store any longer withdraws its claim itself.
            thread.join(_LAST_RENEWAL_SECONDS)

    def _renew(self, stop: threading.Event) -> None:
        pause = self._timing.renew_seconds
        while not stop.wait(pause):
            pause = self._timing.renew_seconds
            before = self._claim.sure_since
            try:
                self._claim.renew()
            except ObjectNotFound:
                self._lost = True
                return
            except OpskitError as error:
                self._trouble = error.message
                pause /= 6
                continue
            if self._uptime() - before > self._timing.dead_after_seconds:
                self._lost = True  # in between it was dead to others
                return


def _held(claim: Claim, seen: Seen, timing: Timing) -> LockHeld:
    holder = _read_record(claim.store, seen.others[0]) if seen.others else None
    who = "a run that does not say who it is"
    if holder is not None:
        who = (
            f"{holder.get('operation')} (run {holder.get('run_id')}, process "
            f"{holder.get('pid')} on {holder.get('host')}, started "
            f"{holder.get('started_at')})"
        )
    return LockHeld(
        f"{claim.source} is locked in store {claim.store.name} by {who}",
        hint="Wait for that run to end. If it was killed, its claim dies by itself "
        f"after {timing.dead_after_seconds / 60:g} minutes.",
        details={"holder": holder},
    )


def _read_record(store: Store, other: Living) -> dict[str, object] | None:
    try:
        with store.open(other.newest.key) as file:
            found = json.loads(file.read(_RECORD_BYTES_MAX))
    except (StoreError, ValueError):
        return None  # it has just been withdrawn
    return found if isinstance(found, dict) else None
