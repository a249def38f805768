"""Gathering: asks sources, stores, host and ledger for a state, once or in turn."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from opskit import __version__, log
from opskit.catalog import catalog, retention
from opskit.catalog.catalog import Catalog
from opskit.catalog.sets import ListedSet
from opskit.config import Settings
from opskit.config.cron import longest_interval
from opskit.doctor import stores as probes
from opskit.errors import OpskitError, StoreError
from opskit.ledger import LedgerEntry
from opskit.operations import keys
from opskit.operations.discovery import with_found
from opskit.operations.run import Run
from opskit.operations.schedule import REMEMBERED, is_credible, overdue
from opskit.store import LocalStore, Store, unwrapped
from opskit.threads import Lane, Thread
from opskit.watch.fleet import FleetState
from opskit.watch.receivers import last_notified
from opskit.watch.state import (
    Answer,
    Room,
    SourceState,
    State,
    StoreState,
    drills_of,
    ended_at,
)

_MEMORY = Path("/proc/meminfo")
# Lists of large stores cost money; what this host does is seen at once.
_LISTED_AGAIN = timedelta(minutes=10)
_OTHERS, _QUEUE = "other hosts", "queue"
# How long all that is asked may take together.
_SECONDS = 30.0
_PATIENCE = "See what it waits for; it is asked again once it has answered."
# In a fleet a store is not listed again for so many times what that took.
_IDLE_SHARE = 20
# A server may hold hundreds of databases, and sessions are scarce.
_SESSIONS_MAX = 4

# Given the ledger, says which sources a fleet has, and how it is.
Fleet = Callable[[Sequence[LedgerEntry]], tuple[Settings, FleetState]]
_Answered = TypeVar("_Answered", bound=Answer)
_OfSource = TypeVar("_OfSource", ListedSet, LedgerEntry)


def gather(run: Run) -> State:
    """Ask everything that the settings name; what does not answer is part of the state.

    Raises:
        ConfigurationError: there is no store, or a key cannot be used.
    """
    return Gathering(run)()


class Gathering:
    """Gathers a state each time it is called.

    The ledger is read again if it has changed; stores are listed again then, or after
    a while. What has not answered in time is not asked once more: its answer counts
    when it comes, and of a store its last list counts until then.
    """

    def __init__(self, run: Run, fleet: Fleet | None = None) -> None:
        """Prepare; in a fleet backups and drills alone connect to the databases."""
        self._run, self._fleet = run, fleet
        self._known = (run.settings, FleetState())
        self._before: State | None = None
        self._ledger = (0, 0)
        self._changed = run.now()
        self._others: tuple[LedgerEntry, ...] = ()
        self._others_asked: datetime | None = None
        self._asked: dict[str, Future[Any]] = {}
        self._lanes: defaultdict[str, Lane] = defaultdict(
            lambda: Lane(threads_max=_SESSIONS_MAX)
        )

    def __call__(self) -> State:
        """Return the state now; see `gather`."""
        run = self._run
        before, ledger = self._before, run.ledger.state
        if before is not None and ledger == self._ledger:
            entries, faults = before.entries, before.ledger_faults
        else:
            records, wrong = run.ledger.readable()
            entries, faults = tuple(records), tuple(wrong)
            self._ledger, self._changed = ledger, run.now()
        last = {each.name: each for each in (before.stores if before else ())}
        for store in run.stores:
            known = last.get(store.name)
            if known is None or not self._is_recent(known):
                known = None
            self._ask(f"store {store.name}", partial(_look_into, run, store, known))
        connected: list[str] = []
        if self._fleet is not None:
            self._ask(_QUEUE, partial(self._fleet, entries))
        elif not run.turn:  # servers of other labels may be out of a worker's reach
            connected += [*run.settings.databases, *run.settings.files]
            connected += run.found.databases
        for name in connected:
            call = partial(_connect, run, name)
            self._ask(f"source {name}", call, lane=_server(run, name))
        self._ask_others(entries)
        wait(self._asked.values(), timeout=_SECONDS)
        answers = {n: self._answered(f"source {n}", Answer()) for n in connected}
        stores = [
            self._answered(
                f"store {each.name}",
                last.get(each.name, StoreState(name=each.name)),
            )
            for each in run.stores
        ]
        listing = catalog.joined(
            Catalog(sets=each.sets, unreadable=each.unreadable) for each in stores
        )
        sets = _by_source(listing.sets)
        runs = _by_source(entries)
        settings, fleet = self._heard_of_fleet()
        seen = replace(run, settings=settings)
        self._before = State(
            time=run.now(),
            version=__version__,
            sources=tuple(
                _source(
                    seen,
                    name,
                    answers.get(name, Answer()),
                    stores,
                    sets[name],
                    runs[name],
                )
                for name in (*settings.databases, *settings.files)
            ),
            stores=tuple(_with_unreadable(each, listing) for each in stores),
            entries=entries,
            others=self._heard_of_others(),
            fleet=fleet,
            ledger_faults=faults,
            notified=last_notified(entries, run.settings.notify),
            disks=tuple(_disks(run)),
            memory=_memory(),
        )
        return self._before

    def _is_recent(self, store: StoreState) -> bool:
        """Return whether what a store lists is known well enough.

        In a fleet others change it all the time: how long it takes to list decides.
        """
        if store.listed_at is None:
            return False
        since = self._run.now() - _LISTED_AGAIN
        if self._fleet is None:
            since = max(since, self._changed)
        else:
            since = max(since, self._run.now() - _IDLE_SHARE * store.listing_time)
        return store.listed_at >= since

    def _heard_of_fleet(self) -> tuple[Settings, FleetState | None]:
        """Return what the queue says, with every source; or else what it said last."""
        if self._fleet is None:
            return with_found(self._run.settings, self._run.found), None
        settings, before = self._known
        if not self._asked[_QUEUE].done():
            return settings, replace(before, error=_silence(), hint=_PATIENCE)
        try:
            self._known = self._asked.pop(_QUEUE).result()
        except OpskitError as error:
            self._known = (
                settings,
                replace(before, error=error.message, hint=error.hint),
            )
        return self._known

    def _ask_others(self, entries: Sequence[LedgerEntry]) -> None:
        """Ask what other hosts have run, now and then, if something is overdue here."""
        now, asked = self._run.now(), self._others_asked
        late = overdue(entries, self._run.settings, now=now)
        if any(late.values()) and (asked is None or asked < now - _LISTED_AGAIN):
            self._others_asked = now
            self._ask(_OTHERS, partial(_records_of_others, self._run, now - REMEMBERED))

    def _heard_of_others(self) -> tuple[LedgerEntry, ...]:
        if _OTHERS in self._asked and self._asked[_OTHERS].done():
            self._others = self._asked.pop(_OTHERS).result()
        return self._others

    def _ask(self, key: str, call: Callable[[], object], *, lane: str = "") -> None:
        """Ask in a thread, unless that is being done; a lane has only so many."""
        if key not in self._asked:
            self._asked[key] = self._lanes[lane or key].ask(call)

    def _answered(self, key: str, silent: _Answered) -> _Answered:
        """Return what was answered, or `silent` with an error."""
        if not self._asked[key].done():
            return replace(
                silent,
                error=_silence(),
                hint=_PATIENCE,
                latency_seconds=None,
            )
        answer: _Answered = self._asked.pop(key).result()
        return answer


def _silence() -> str:
    return f"no answer within {_SECONDS:g} seconds"


def _by_source(items: Iterable[_OfSource]) -> defaultdict[str, list[_OfSource]]:
    """Return sets or records by their source, in their order."""
    found: defaultdict[str, list[_OfSource]] = defaultdict(list)
    for each in items:
        found[each.source].append(each)
    return found


def _records_of_others(run: Run, since: datetime) -> tuple[LedgerEntry, ...]:
    known = (run.ledger.records_of_others(store, since) for store in run.stores)
    return tuple(each for records in known for each in records or ())


def _look_into(run: Run, store: Store, known: StoreState | None) -> StoreState:
    """Ask a store for its time and, unless they are known, its sets."""
    inner = unwrapped(store)
    state = StoreState(
        name=store.name,
        disk=_disk(inner.root) if isinstance(inner, LocalStore) else None,
    )
    began = run.now()
    try:
        latency, offset = probes.ping(store, now=run.now)
        listed = run.sets_in([store]) if known is None else known
    except StoreError as error:
        return replace(state, error=error.message, hint=error.hint)
    return replace(
        state,
        latency_seconds=latency,
        clock_offset_seconds=offset,
        sets=listed.sets,
        unreadable=listed.unreadable,
        listed_at=began if known is None else known.listed_at,
        listing_time=run.now() - began if known is None else known.listing_time,
    )


def _with_unreadable(store: StoreState, listing: Catalog[ListedSet]) -> StoreState:
    """Return a store with the sets in it that differ from those in another."""
    bad = (each for each in listing.unreadable if each.store == store.name)
    return replace(store, unreadable=tuple(dict.fromkeys(bad)))


def _server(run: Run, name: str) -> str:
    """Return what the databases of one server have in common; else the source."""
    if name in run.settings.files:
        return name
    from opskit.postgres.parameters import server_of

    with suppress(OpskitError):
        return server_of(run.database(name).resolve_url())
    return name


def _connect(run: Run, name: str) -> Answer:
    """Ask a database for its time, or see whether a folder can be read."""
    if name in run.settings.files:
        path = run.folder(name).path
        if os.access(path, os.R_OK | os.X_OK):
            return Answer()
        return Answer(
            error=f"the folder {path} cannot be read",
            hint="Check the path, and run this as a user who may read it.",
        )
    from opskit.postgres.connect import connect, query_value

    began = time.monotonic()
    try:
        url = run.database(name).resolve_url()
        with connect(url, purpose="status") as connection:
            before = run.now()
            server = query_value(
                connection, "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
            here = before + (run.now() - before) / 2
            latency = time.monotonic() - began
    except OpskitError as error:
        return Answer(error=error.message, hint=error.hint)
    offset = server - here.timestamp()
    return Answer(latency_seconds=latency, clock_offset_seconds=offset)


def _source(
    run: Run,
    name: str,
    answer: Answer,
    stores: Sequence[StoreState],
    sets: Sequence[ListedSet],
    runs: Sequence[LedgerEntry],
) -> SourceState:
    is_folder = name in run.settings.files
    own = run.folder(name) if is_folder else run.database(name)
    return SourceState(
        **vars(answer),
        name=name,
        kind="files" if is_folder else "postgres",
        schedule=own.schedule,
        interval_seconds=longest_interval(own.schedule).total_seconds()
        if own.schedule
        else None,
        max_age=own.max_age,
        drill_max_age=run.settings.drill.max_age,
        sets=tuple(sets),
        unconfirmed_changes=_unconfirmed_changes(run, sets[:1]),
        last_success=_last_success(stores, sets, runs, now=run.now()),
        runs=tuple(runs),
        drills=drills_of(sets, runs, now=run.now()),
    )


def _last_success(
    stores: Iterable[StoreState],
    sets: Iterable[ListedSet],
    runs: Sequence[LedgerEntry],
    *,
    now: datetime,
) -> dict[str, datetime]:
    """Return when the newest set in each store was finished.

    What lies in a store counts. One that does not answer is believed to hold what the
    ledger says it got. A time that a wrong clock wrote would look fresh for too long.
    """
    known = [(each.name, s.finished_at) for s in sets for each in s.stores]
    for silent in (each.name for each in stores if not each.reachable):
        for run in runs:
            got = run.details.get("stores") if run.operation == "backup" else None
            if isinstance(got, list) and silent in got:
                known.append((silent, ended_at(run)))
    return dict(sorted(each for each in known if is_credible(each[1], now=now)))


def _unconfirmed_changes(run: Run, newest: Sequence[ListedSet]) -> tuple[str, ...]:
    """Return the sudden changes of the newest set that nobody has confirmed."""
    try:
        known = retention.candidates(newest, trust=keys.trust(run.settings))
    except StoreError:
        return newest[0].sudden_changes
    return tuple(change for each in known for change in each.unconfirmed_changes)


def _disks(run: Run) -> list[Room]:
    work_dir = run.settings.drill.work_dir or Path(tempfile.gettempdir())
    return [disk for each in (run.state_dir, work_dir) if (disk := _disk(each))]


def _disk(folder: Path) -> Room | None:
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        return Room(name=str(folder), free_bytes=usage.free, total_bytes=usage.total)
    return None


def _memory() -> Room | None:
    """Return the memory of this host where Linux tells it."""
    with suppress(OSError, KeyError, ValueError):
        lines = (line.split() for line in _MEMORY.read_text("ascii").splitlines())
        bytes_ = {line[0]: int(line[1]) * 1024 for line in lines if len(line) > 1}
        return Room(
            name="memory",
            free_bytes=bytes_["MemAvailable:"],
            total_bytes=bytes_["MemTotal:"],
        )
    return None


class Watch:
    """The newest state, gathered in the background: again and again, and when asked.

    Whoever reads it never waits. It is None until the first one is there; what keeps a
    newer one from being gathered is logged, and the state grows old.
    """

    def __init__(
        self, gather: Callable[[], State], *, interval_seconds: float = 30
    ) -> None:
        self.state: State | None = None
        self._gather, self._interval_seconds = gather, interval_seconds
        self._wake = threading.Event()
        self._is_stopped = False
        self._thread = Thread(self._run, name="watch")

    def refresh(self) -> None:
        """Have the state gathered again soon."""
        self._wake.set()

    def stop(self, wait_seconds: float = 5) -> None:
        """End; what is being gathered is not waited for any longer than this."""
        self._is_stopped = True
        self._wake.set()
        self._thread.join(wait_seconds)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._is_stopped:  # after the clear, which may have undone its wake
                return
            try:
                self.state = self._gather()
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                log.logger().error("the state cannot be gathered", reason=str(error))
            self._wake.wait(self._interval_seconds)
