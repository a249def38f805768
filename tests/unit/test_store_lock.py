"""The lock on a store: never two hold it, and who is dead gives it up."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opskit.catalog import catalog, sets
from opskit.errors import (
    LockHeld,
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.store import LocalStore, ObjectInfo, Store
from opskit.store import locks as store_locks
from opskit.store.locks import Claim, HeldLock, Timing, hold, judge
from tests.unit.store_contract import keys
from tests.unit.turns import SharedStore, Turns

FOLDER = "_locks/shop/"
STARTED = datetime(2026, 3, 10, 3, tzinfo=UTC)
# Nothing is renewed while a test takes a look.
CALM = Timing(renew_seconds=3600, dead_after_seconds=300, attempts=2)
BUSY = Timing(renew_seconds=0.01, dead_after_seconds=300, attempts=2)
Check = Callable[[], None]


@pytest.fixture
def store() -> SharedStore:
    """An empty store."""
    return SharedStore()


def _hold(
    store: Store,
    run_id: str = "aaa",
    source: str = "shop",
    timing: Timing = CALM,
    owner: str = "",
) -> AbstractContextManager[HeldLock]:
    uptime = (lambda: store.seconds) if isinstance(store, SharedStore) else None
    return hold(
        store,
        source,
        operation=f"backup {source}",
        run_id=run_id,
        clock=lambda: STARTED,
        sleep=lambda seconds: None,
        random=lambda: 0.5,
        timing=timing,
        owner=owner,
        uptime=uptime or store_locks.uptime,
    )


def _try(store: Store, run_id: str) -> str:
    """Take the lock and give it back at once; return the error, if there is one."""
    try:
        with _hold(store, run_id) as check:
            check()
    except LockHeld as error:
        return error.message
    return ""


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


class NoDelete(SharedStore):
    """Credentials that may not delete."""

    may_delete = False

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        if not self.may_delete:
            raise StoreError(f"store {self.name} refused to delete {key}")
        super().delete(key)


def test_a_lock_is_held_and_given_back(store: SharedStore) -> None:
    """While it is held a claim says so; afterwards nothing is left."""
    with _hold(store) as check:
        during = keys(store)
        check()

    assert during == [f"{FOLDER}aaa/000000.json"]
    assert keys(store) == []


def test_who_comes_second_is_told_who_holds_it(store: SharedStore) -> None:
    """Operation, run, process, host and time; exit code 11, and no claim is left."""
    with (
        _hold(store),
        pytest.raises(LockHeld, match="shop is locked") as raised,
        _hold(store, "bbb"),
    ):
        pass

    assert raised.value.exit_code == 11
    assert raised.value.message == (
        "shop is locked in store shared by backup shop (run aaa, "
        f"process {os.getpid()} on {socket.gethostname()}, "
        "started 2026-03-10T03:00:00+00:00)"
    )
    assert "after 5 minutes" in raised.value.hint
    assert keys(store) == []


def test_the_holder_is_not_disturbed_by_those_who_try(store: SharedStore) -> None:
    """After many have tried, the first still holds it and nobody else's claim is left."""
    with _hold(store) as check:
        refused = [_try(store, f"bbb{number}") for number in range(5)]
        check()
        left = keys(store)

    assert all("run aaa" in each for each in refused)
    assert left == [f"{FOLDER}aaa/000000.json"]


def test_locks_of_two_sources_are_two(store: SharedStore) -> None:
    """Another source, even one whose name begins alike, is not locked."""
    with ExitStack() as stack:
        for source in ("shop", "shop2", "sho"):
            stack.enter_context(_hold(store, "aaa", source))
        assert _try(store, "bbb") != ""


def test_locks_are_no_backup_sets(store: SharedStore) -> None:
    """The catalog passes over the folder of the locks."""
    with _hold(store):
        assert catalog.read([store]).sets == ()
        assert sets.places_of(store.list()) == []


@pytest.mark.parametrize(
    ("ahead", "blocks"),
    [
        (timedelta(days=400), False),
        (timedelta(minutes=6), False),
        (timedelta(minutes=4), True),
        (timedelta(minutes=-4), True),
        (timedelta(minutes=-6), False),
    ],
)
def test_only_a_claim_of_about_now_is_a_sign_of_life(
    tmp_path: Path, ahead: timedelta, blocks: bool
) -> None:
    """One from the future would hold up every host for ever."""
    store = LocalStore("disk", tmp_path)
    planted = store.put(f"{FOLDER}planted/000000.json", [b"{}"])
    time = (planted.modified_at + ahead).timestamp()
    os.utime(tmp_path / planted.key, (time, time))

    assert bool(_try(store, "aaa")) == blocks
    assert (planted.key in keys(store)) == blocks


def test_the_time_is_that_of_the_store(store: SharedStore) -> None:
    """Whoever decides by age asks the store, whose clock all hosts share."""
    store.put("now", [])
    with _hold(store) as lock:
        assert lock.got_at - store.stat("now").modified_at < timedelta(seconds=60)
    assert lock.got_at != STARTED


def test_an_error_in_the_block_gives_the_lock_back(store: SharedStore) -> None:
    """However the block ends, the next one may go."""
    with pytest.raises(KeyboardInterrupt), _hold(store):
        raise KeyboardInterrupt

    assert keys(store) == []


def test_who_may_not_delete_can_lock_again_and_again() -> None:
    """A mark says that the claim is over, for others and for the same run."""
    store = NoDelete()
    first = [_try(store, "aaa"), _try(store, "bbb"), _try(store, "aaa")]
    with _hold(store, "ccc"):
        refused = _try(store, "aaa")
    last = _try(store, "aaa")

    assert first == ["", "", ""]
    assert "run ccc" in refused
    assert last == ""


def test_what_others_could_not_delete_is_cleaned_up() -> None:
    """Credentials that may delete leave nothing of released claims."""
    store = NoDelete()
    for run_id in ("aaa", "bbb"):
        _try(store, run_id)
    store.may_delete = True

    assert len(keys(store)) == 4
    assert _try(store, "ccc") == ""
    assert keys(store) == []


def test_what_a_kill_left_of_an_unfinished_claim_goes_away(store_dir: Path) -> None:
    """The next holder discards it; its own claims and foreign files stay."""
    folder = store_dir / FOLDER
    left = folder / "killed" / ".000000.json.abc"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{")
    (folder / ".foreign").touch()
    store = LocalStore("local", store_dir)

    assert _try(store, "bbb") == ""
    assert not left.parent.exists()
    assert [each.name for each in folder.iterdir()] == [".foreign"]


def _killed(store: SharedStore, run_id: str = "aaa", owner: str = "") -> None:
    """Leave what a holder leaves that was killed."""
    store.put(
        f"{FOLDER}{run_id}/000000.json",
        [json.dumps({"run_id": run_id, "owner": owner} if owner else {}).encode()],
    )


@pytest.mark.parametrize("age", [0, 299, 300])
def test_a_young_claim_counts_whoever_put_it(store: SharedStore, age: float) -> None:
    """A run that was killed holds the lock until its claim is dead."""
    _killed(store)
    store.seconds += age

    assert _try(store, "bbb").startswith("shop is locked in store shared by None (run")
    assert keys(store) == [f"{FOLDER}aaa/000000.json"]


@pytest.mark.parametrize("kind", [SharedStore, NoDelete])
def test_the_claim_of_a_killed_holder_is_taken_over(kind: type[SharedStore]) -> None:
    """Past its age the lock is free, also where nobody may delete the old claim."""
    store = kind()
    _killed(store)
    store.seconds += 301
    with _hold(store, "bbb") as check:
        check()
        claims = keys(store)
        third = _try(store, "ccc")

    assert "run bbb" in third
    assert (f"{FOLDER}aaa/000000.json" in claims) == (kind is NoDelete)


@pytest.mark.parametrize("kind", [SharedStore, NoDelete])
def test_who_runs_one_at_a_time_does_not_wait_for_its_killed_run(
    kind: type[SharedStore],
) -> None:
    """A claim of the same owner is dead at once; it is over also for everybody else."""
    store = kind()
    _killed(store, owner="web1-state")
    with _hold(store, "bbb", owner="web1-state") as check:
        check()
        third = _try(store, "ccc")

    assert "run bbb" in third
    assert _try(store, "ddd") == ""


@pytest.mark.parametrize("owner", ["", "web2-state"])
def test_the_claim_of_another_owner_is_respected(
    store: SharedStore, owner: str
) -> None:
    """Who does not know that the holder is dead waits until its claim is."""
    _killed(store, owner="" if not owner else "web1-state")
    with (
        pytest.raises(LockHeld, match="is locked"),
        _hold(store, "bbb", owner=owner),
    ):
        pass


@contextmanager
def _unrenewed(store: SharedStore) -> Iterator[None]:
    """Let no claim be renewed meanwhile: what somebody reads of it would be gone."""
    goes_on = threading.Event()

    def before() -> None:
        if threading.current_thread().name == "store lock":
            goes_on.wait(60)

    store.before = before
    try:
        yield
    finally:
        store.before = lambda: None
        goes_on.set()


def test_a_holder_that_renews_never_gets_old(store: SharedStore) -> None:
    """After hours the claim is young; of the renewals two are kept at most."""
    with _hold(store, timing=BUSY) as check:
        for _ in range(5):
            store.seconds += 200
            before = len(store.puts)
            # Of these one may have begun before the time went on, and one may not
            # have ended.
            _wait_for(lambda: len(store.puts) > before + 2)  # noqa: B023
            check()
        with _unrenewed(store):
            refused = _try(store, "bbb")
            left = len(keys(store))

    assert "run aaa" in refused
    assert left <= 3
    assert keys(store) == []


def test_a_holder_whose_claim_was_removed_learns_of_it(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody took it for dead: the next renewal finds that, and `check` tells."""
    renew = Claim.renew
    renewals: list[Claim] = []

    def renew_what_was_removed(claim: Claim) -> None:
        # Not at any time: a renewal that had just looked for the claim puts it back.
        if not renewals:
            store.discard(FOLDER)
        renewals.append(claim)
        renew(claim)

    monkeypatch.setattr(Claim, "renew", renew_what_was_removed)
    with _hold(store, timing=BUSY) as check:
        _wait_for(lambda: len(renewals) > 1 or _raises(check, LockHeld))
        with pytest.raises(LockHeld, match="was lost: another run took its claim"):
            check()

    assert len(renewals) == 1


def _raises(check: Check, kind: type[OpskitError]) -> bool:
    """Tell whether a check raises that."""
    try:
        check()
    except kind:
        return True
    return False


def test_a_holder_that_was_stopped_too_long_learns_of_it(store: SharedStore) -> None:
    """Before its claim is dead to others it is not sure of it any more."""
    with _hold(store) as check:
        store.seconds += 240
        check()
        store.seconds += 1
        with pytest.raises(StoreError, match="could not be renewed in time"):
            check()


def test_who_took_too_long_to_look_does_not_hold_it(store: SharedStore) -> None:
    """A listing that lasts as long as a claim lives says nothing about now."""

    def slow() -> None:
        store.seconds += 121

    store.before = slow
    with pytest.raises(StoreError, match="not be renewed in time"), _hold(store):
        pytest.fail("the block was entered")

    assert keys(store) == []


def test_a_renewal_that_came_too_late_does_not_make_it_good(
    store: SharedStore,
) -> None:
    """Whoever came in between may hold the lock, though the claim is young again."""
    with _hold(store, timing=BUSY) as check:
        store.before = partial(setattr, store, "seconds", 1000)

        def is_lost() -> bool:
            # As long as the renewal has not ended, the claim is only too old.
            with suppress(StoreError):
                return _raises(check, LockHeld)
            return False

        _wait_for(is_lost)
        store.before = lambda: None


class Down(SharedStore):
    """Takes nothing while it is down."""

    down = False

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        if self.down:
            self.puts.append(key)
            raise StoreError("store shared is down")
        return super().put(key, chunks)


def test_a_store_that_is_down_for_a_moment_does_no_harm() -> None:
    """Renewing is tried again; only when it was too long does `check` tell, and why."""
    store = Down()
    with _hold(store, timing=BUSY) as check:
        store.down = True
        before = len(store.puts)
        _wait_for(lambda: len(store.puts) > before + 2)
        check()
        store.seconds += 241
        with pytest.raises(StoreError, match="in time: store shared is down"):
            check()
        store.down = False
        _wait_for(lambda: not _raises(check, StoreError))
        check()

    assert keys(store) == []


def test_a_store_that_is_down_gives_no_lock() -> None:
    """Its own error comes through, and nothing is left."""
    store = Down()
    store.down = True
    with pytest.raises(StoreError, match="is down"), _hold(store):
        pass

    assert keys(store) == []


class Vanishing(SharedStore):
    """Loses the first claim that it is given, with or without a word."""

    error: type[StoreError] | None = None

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        found = super().put(key, chunks)
        if len(self.puts) == 1:
            super().delete(key)
            if self.error is not None:
                raise self.error(f"store {self.name}: {key}")
        return found


@pytest.mark.parametrize(
    ("error", "number"), [(None, 1), (ObjectExists, 0), (ObjectNotFound, 0)]
)
def test_a_claim_that_is_gone_at_once_is_put_again(
    error: type[StoreError] | None, number: int
) -> None:
    """Where others empty the folder at this moment, the run tries again."""
    store = Vanishing()
    store.error = error
    with _hold(store) as check:
        check()
        during = keys(store)

    assert during == [f"{FOLDER}aaa/00000{number}.json"]
    assert len(store.puts) == 2


def test_a_claim_that_arrived_though_it_seemed_to_fail_counts() -> None:
    """The second try finds the key taken, by the first."""

    class Doubtful(SharedStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            super().put(key, [b"{}"])
            return super().put(key, chunks)

    store = Doubtful()
    with _hold(store) as check:
        check()

    assert keys(store) == []


def _info(name: str, seconds: float) -> ObjectInfo:
    return ObjectInfo(
        key=FOLDER + name,
        size_bytes=1,
        modified_at=STARTED + timedelta(seconds=seconds),
    )


def test_claims_are_judged_by_the_clock_of_the_store() -> None:
    """Dead, released, renewed and foreign ones, as they stand in one listing."""
    seen = judge(
        [
            _info("dead/000000.json", 0),
            _info("dead/000001.json", 99),
            _info("gone/000004.json", 390),
            _info("gone/000004.released", 395),
            _info("back/000002.json", 380),
            _info("back/000002.released", 381),
            _info("back/000003.json", 390),
            _info("old/000000.json", 0),
            _info("old/000001.json", 100),
            _info("me/000000.json", 400),
            _info("notes.txt", 0),
        ],
        run_id="me",
        dead_after=timedelta(seconds=300),
    )

    assert [each.run_id for each in seen.others] == ["old", "back"]
    assert seen.mine is not None
    assert [each.removeprefix(FOLDER) for each in seen.litter] == [
        "dead/000000.json",
        "dead/000001.json",
        "gone/000004.json",
        "gone/000004.released",
    ]


def test_without_an_own_claim_nothing_is_dead() -> None:
    """Who does not know the store's time takes every claim for alive."""
    seen = judge(
        [_info("old/000000.json", 0)], run_id="me", dead_after=timedelta(seconds=1)
    )

    assert (seen.mine, len(seen.others), seen.litter) == (None, 1, ())


class _Room:
    """Counts who believes to be alone."""

    def __init__(self) -> None:
        self.inside: dict[str, Check] = {}
        self.entered = 0

    def alone(self) -> bool:
        """Whether at most one of those inside may rely on the lock."""
        sure = [c for c in [*self.inside.values()] if not _raises(c, OpskitError)]
        return len(sure) <= 1


def _visit(store: Store, room: _Room, name: str, stay: Callable[[], None]) -> None:
    try:
        with _hold(store, name) as check:
            room.inside[name] = check
            room.entered += 1
            try:
                stay()
            finally:
                del room.inside[name]
    except OpskitError:
        return  # somebody else holds it, or it took too long to be sure


@settings(max_examples=150)
@given(st.integers(2, 4), st.booleans(), st.data())
def test_never_do_two_hold_it_however_their_steps_mix(
    count: int, may_delete: bool, data: st.DataObject
) -> None:
    """Any order of the steps of all contenders, with the clock running meanwhile.

    A step may take longer than claims live: then its run must know it.
    """
    store = SharedStore() if may_delete else NoDelete()
    room = _Room()

    def choose(waiting: Sequence[str]) -> str:
        assert room.alone()
        store.seconds += data.draw(st.sampled_from([0, 0, 0, 0, 1, 130, 301]))
        assert room.alone()
        return data.draw(st.sampled_from(waiting))

    turns = Turns(choose)
    store.before = turns.step

    def stay() -> None:
        for _ in range(3):
            turns.step()

    turns.run(
        {f"run{n}": partial(_visit, store, room, f"run{n}", stay) for n in range(count)}
    )
    store.before = lambda: None
    store.seconds += 301

    assert room.alone()
    assert _try(store, "last") == ""


@pytest.fixture(params=["memory", "local"])
def any_store(request: pytest.FixtureRequest, store_dir: Path) -> Store:
    """A store of each kind, with a clock of its own."""
    return (
        SharedStore() if request.param == "memory" else LocalStore("local", store_dir)
    )


def test_of_many_threads_one_at_a_time_holds_it(any_store: Store) -> None:
    """Contenders that come again and again: no two are inside, and many get in."""
    room = _Room()
    crowded: list[int] = []
    until = time.monotonic() + 60

    def stay() -> None:
        if len(room.inside) > 1:
            crowded.append(len(room.inside))
        threading.Event().wait(0.001)

    def contend(name: str) -> None:
        # How many get in of so many tries is a matter of who is let run when.
        for number in itertools.count():
            _visit(any_store, room, f"{name}{number}", stay)
            if room.entered >= 20 or time.monotonic() > until:
                return

    threads = [threading.Thread(target=contend, args=[f"run{n}x"]) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert crowded == []
    assert room.entered >= 20
    assert keys(any_store) == []


def test_of_two_that_come_together_one_gets_it() -> None:
    """Who was first keeps its claim and looks again: they do not drive each other off."""
    order = iter(["a", "b", "a", "b", "a", "b", *"ab" * 50])
    store = SharedStore()
    room = _Room()

    def choose(waiting: Sequence[str]) -> str:
        name = next(order)
        return name if name in waiting else waiting[0]

    turns = Turns(choose)
    store.before = turns.step
    turns.run({n: partial(_visit, store, room, n, turns.step) for n in "ab"})

    assert room.entered >= 1
