"""Claims: objects by which a run says in a store that it works on a source.

`_locks/<source>/<run id>/<number>.json` is a claim and its renewals. With the ending
`.released` it says that the run's claims up to that number are over: that is for
credentials that may not delete. Each run has a folder of its own, so that also what a
killed run left of an unfinished claim can be discarded.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import SystemRandom

from opskit.errors import (
    LockHeld,
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.store import ObjectInfo, Store
from opskit.threads import Thread

FOLDER = "_locks/"
_PUT_TRIES = 5
_KEY = re.compile(
    r"_locks/[^/]+/(?P<run>[^/]+)/(?P<number>\d{6,})\.(?P<kind>json|released)"
)


@dataclass(frozen=True, kw_only=True, order=True)
class Living:
    """A run whose claim counts: its first and its last sign of life still there.

    In order, who was there first; of two at the same time, the same for everybody.
    """

    first_at: datetime
    run_id: str
    newest: ObjectInfo = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One look at the claims on a source.

    `litter` are the keys of dead and released claims in the order to delete them in.
    """

    mine: Living | None
    others: tuple[Living, ...]
    litter: tuple[str, ...]


def judge(objects: Iterable[ObjectInfo], *, run_id: str, dead_after: timedelta) -> Seen:
    """Return which claims count, by the clock of the store alone.

    The time is that of one's own newest claim, which was put a moment ago. Without it
    nothing counts as dead. A claim that is as far in the future is no sign of life.
    """
    claims: dict[str, dict[int, ObjectInfo]] = defaultdict(dict)
    released: dict[str, dict[int, ObjectInfo]] = defaultdict(dict)
    for each in objects:
        key = _KEY.fullmatch(each.key)
        if key is not None:
            kinds = claims if key["kind"] == "json" else released
            kinds[key["run"]][int(key["number"])] = each
    others: list[Living] = []
    litter: list[str] = []
    mine = _living(run_id, claims[run_id], released[run_id])
    for run in sorted({*claims, *released}):
        living = _living(run, claims[run], released[run])
        moments = [each.newest.modified_at for each in (mine, living) if each]
        if living is None or max(moments) - min(moments) > dead_after:
            # Releases go last: without its own, a claim would count again.
            litter += [each.key for each in claims[run].values()]
            litter += [each.key for each in released[run].values()]
        elif run != run_id:
            others.append(living)
    return Seen(mine=mine, others=tuple(sorted(others)), litter=tuple(litter))


def _living(
    run_id: str, claims: Mapping[int, ObjectInfo], released: Mapping[int, ObjectInfo]
) -> Living | None:
    over = max(released, default=-1)
    counting = [each for number, each in sorted(claims.items()) if number > over]
    if not counting:
        return None
    return Living(
        run_id=run_id,
        first_at=min(each.modified_at for each in counting),
        newest=max(counting, key=lambda each: each.modified_at),
    )


class Claim:
    """One run's claim on one source in one store."""

    def __init__(
        self,
        store: Store,
        source: str,
        *,
        run_id: str,
        record: Mapping[str, object],
        uptime: Callable[[], float],
    ) -> None:
        self.store = store
        self.source = source
        self.run_id = run_id
        self.sure_since = 0.0
        self._content = json.dumps(record).encode()
        self._uptime = uptime
        self._folder = f"{FOLDER}{source}/"
        self._own = f"{self._folder}{run_id}/"
        # Above all numbers that this run has used for this source before.
        keys = [_KEY.fullmatch(each.key) for each in store.list(self._own)]
        self._next = max((int(key["number"]) for key in keys if key), default=-1) + 1
        self._put: list[int] = []
        self._withdrawn = False

    def put(self) -> None:
        """Put the first sign of life, unless it is there.

        Raises:
            StoreError: the store refused; trying again is safe.
        """
        if not self._put:
            self._withdrawn = False
            self._put_next()

    def renew(self) -> None:
        """Put the next sign of life of a claim that must still be there.

        Raises:
            ObjectNotFound: it is not: somebody took it for dead.
            StoreError: the store refused; trying again is safe.
        """
        self.store.stat(self._key(self._next - 1))
        self._put_next()
        if self._withdrawn:
            self.withdraw()  # while this thread was waiting for the store

    def look(self, dead_after: timedelta) -> Seen:
        """Return all claims on the source."""
        objects = self.store.list(self._folder)
        return judge(objects, run_id=self.run_id, dead_after=dead_after)

    def withdraw(self) -> None:
        """Take the claim back; one that cannot be deleted is said to be over.

        If the store takes neither, the claim dies by itself.
        """
        self._withdrawn = True
        over = [*self._put]
        try:
            for number in over:
                self.store.delete(self._key(number))
        except StoreError:
            with suppress(StoreError):
                self.store.put(_release(self._key(over[-1])), [])
        del self._put[: len(over)]

    def clean(self, litter: Iterable[str]) -> None:
        """Delete what is left of dead claims, as far as the store lets us.

        Only for who holds the lock: a claim that another run is putting right now may
        go with what a killed one never finished. That run then has to try again.
        """
        with suppress(StoreError):
            for key in litter:
                self.store.delete(key)
            for folder in {
                each.key.rpartition("/")[0] + "/"
                for each in self.store.unfinished(self._folder)
            } - {self._folder, self._own}:
                self.store.discard(folder)

    def bury(self, other: Living) -> None:
        """Take back the claim of a run that is known to be dead.

        Raises:
            StoreError: the store refused.
        """
        try:
            for each in [*self.store.list(f"{self._folder}{other.run_id}/")]:
                self.store.delete(each.key)
        except StoreError:
            with suppress(ObjectExists):
                self.store.put(_release(other.newest.key), [])

    def _put_next(self) -> None:
        """Put a sign of life; the last but one is not needed any more.

        The last one stays: a listing that goes on meanwhile must not miss both.
        """
        started = self._uptime()
        number = self._next
        if number not in self._put:
            self._put.append(number)  # even if the store fails, it may be there
        _put_patiently(self.store, self._key(number), self._content)
        self.sure_since = started
        self._next += 1
        with suppress(StoreError):
            while len(self._put) > 2 and not self._withdrawn:
                self.store.delete(self._key(self._put[0]))
                del self._put[0]

    def _key(self, number: int) -> str:
        return f"{self._own}{number:06d}.json"


def _release(key: str) -> str:
    return key.removesuffix(".json") + ".released"


def _put_patiently(store: Store, key: str, content: bytes) -> None:
    """Put an object into a folder that others empty, and so remove, at any time.

    A full store often still takes an empty one. That is a claim too, by its key, and
    lets prune make room; it only does not say whose it is.
    """
    for left in reversed(range(_PUT_TRIES)):
        try:
            try:
                store.put(key, [content])
            except ObjectExists:
                # Our own, if it is there: an earlier try arrived but seemed to fail.
                store.stat(key)
            except StoreError as error:
                number = getattr(error.__cause__, "errno", None)
                if number not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                store.put(key, [])
        except (ObjectExists, ObjectNotFound):
            if not left:
                raise
        else:
            return


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


def uptime() -> float:
    """Return seconds of a clock that nobody sets, and that goes on in suspend."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def hold(
    store: Store,
    source: str,
    *,
    operation: str,
    run_id: str,
    owner: str = "",
    clock: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = _random,
    uptime: Callable[[], float] = uptime,
    timing: Timing | None = None,
) -> Iterator[HeldLock]:
    """Hold the lock of a source in a store for the length of the block.

    Yields the lock, which raises when it is called after it was lost: call it right
    before what must not be done twice. An `owner` has only one run at a time, by a lock
    or a turn of its own: another claim of the same owner is that of a run that was
    killed or comes too late.

    Raises:
        LockHeld: another run holds it; the message says who, where, and since when. Or
            the lock was lost to another run.
        StoreError: the store cannot be used, or the claim cannot be renewed.
    """
    record = {
        "operation": operation,
        "run_id": run_id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "owner": owner,
        "started_at": clock().isoformat(),
    }
    claim = Claim(store, source, run_id=run_id, record=record, uptime=uptime)
    lock = HeldLock(claim, timing or Timing(), uptime, owner)
    try:
        lock.acquire(sleep, random)
        with lock.renewed():
            yield lock
    finally:
        claim.withdraw()


@dataclass(eq=False)
class HeldLock:
    """A lock on a source in a store, got at `got_at` by the clock of the store."""

    _claim: Claim
    _timing: Timing
    _uptime: Callable[[], float]
    _owner: str
    _lost: bool = False
    _trouble: str = "its run was stopped for too long"
    got_at: datetime = field(init=False)

    def acquire(
        self, sleep: Callable[[float], None], random: Callable[[], float]
    ) -> None:
        seen = Seen(mine=None, others=(), litter=())
        dead_after = timedelta(seconds=self._timing.dead_after_seconds)
        for attempt in range(self._timing.attempts):
            if attempt:
                sleep(self._timing.pause_seconds * (0.5 + random()))
            self._claim.put()
            seen = self._without_killed(self._claim.look(dead_after))
            if seen.mine is not None and not seen.others:
                self()
                self.got_at = seen.mine.newest.modified_at
                self._claim.clean(seen.litter)
                return
            if seen.mine is None or seen.others[0] < seen.mine:
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
        sure_seconds = self._timing.dead_after_seconds * _SURE_SHARE
        if self._uptime() - self._claim.sure_since > sure_seconds:
            raise StoreError(
                f"{where} could not be renewed in time: {self._trouble}",
                hint="Check that the store can be reached, then run this again.",
            )

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim in a thread of its own for the length of the block."""
        stop = threading.Event()
        thread = Thread(self._renew, stop, name="store lock")
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
        names = ("operation", "run_id", "pid", "host", "started_at")
        what, run, process, host, since = map(holder.get, names)
        who = f"{what} (run {run}, process {process} on {host}, started {since})"
    return LockHeld(
        f"{claim.source} is locked in store {claim.store.name} by {who}",
        hint="Wait for that run to end. If it was killed, its claim dies by itself "
        f"after {timing.dead_after_seconds / 60:g} minutes.",
        details={"holder": holder},
    )


def _read_record(store: Store, other: Living) -> dict[str, object] | None:
    try:
        with store.open(other.newest.key) as file:
            record = json.loads(file.read(_RECORD_BYTES_MAX))
    except (StoreError, ValueError):
        return None  # it has just been withdrawn
    return record if isinstance(record, dict) else None
