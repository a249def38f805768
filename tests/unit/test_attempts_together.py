"""Two runs make one set, stopped and killed anywhere: never two sets, never half a one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from opskit.backup.create import BackupResult, create_backup
from opskit.catalog import catalog, retention
from opskit.catalog.reader import verify_set
from opskit.catalog.retention import GRACE
from opskit.catalog.sets import BackupSet
from opskit.errors import LockHeld
from opskit.store import ObjectInfo, Store
from opskit.store.wrappers import StoreWrapper
from tests.faulty import Crash
from tests.unit.builders import STARTED_AT
from tests.unit.store_contract import keys
from tests.unit.test_protection import FakeSource
from tests.unit.turns import SharedStore

SECONDS_MAX = 60
# More than a run has: some are never stopped.
STEPS = 24
TIMES = 12


class Killed(Crash):
    """The process of a run has died: none of its steps is done any more."""


class Seen(StoreWrapper):
    """A store as one run sees it, which is stopped before one of its steps."""

    def __init__(self, inner: Store, before: Callable[[], None]) -> None:
        super().__init__(inner)
        self._before = before

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        content = [*chunks]
        self._before()
        return self.inner.put(key, content)

    @contextmanager
    def open(self, key: str, start: int = 0) -> Iterator[BinaryIO]:
        self._before()
        with self.inner.open(key, start) as file:
            yield file

    def stat(self, key: str) -> ObjectInfo:
        self._before()
        return self.inner.stat(key)

    def delete(self, key: str) -> None:
        self._before()
        self.inner.delete(key)

    def discard(self, prefix: str) -> None:
        self._before()
        for each in [*self.inner.list(prefix)]:
            self.inner.delete(each.key)


class Run:
    """One run in a thread of its own; before one of its steps it does something else."""

    def __init__(
        self, name: str, stores: Sequence[Store], folder: Path, stop_at: int
    ) -> None:
        self.name, self._folder, self._left = name, folder, stop_at
        self._lock = threading.Lock()
        self.is_killed = False
        self.at_stop: Callable[[], None] = lambda: None
        self.result: BackupResult | BaseException | None = None
        self._stores = [Seen(each, self._before) for each in stores]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _before(self) -> None:
        with self._lock:
            self._left -= 1
            is_here = self._left == 0
        if is_here:
            self.at_stop()
        if self.is_killed:
            raise Killed

    def _run(self) -> None:
        try:
            self.result = create_backup(
                FakeSource(),
                self._stores,
                run_id=self.name,
                state_dir=self._folder / self.name,
                clock=lambda: STARTED_AT,
                due=STARTED_AT,
            )
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.result = error
        finally:
            self.stopped.set()

    def end(self) -> None:
        """Wait for its end."""
        self.thread.join(SECONDS_MAX)
        assert not self.thread.is_alive()


def _both(one: Run, two: Run, killed: Run | None) -> None:
    """Run one up to its stop, then two up to its own, then one, then two.

    The one that is killed gets no further than its stop.
    """
    go_on = threading.Event()

    def begin_two() -> None:
        two.thread.start()
        assert two.stopped.wait(SECONDS_MAX)
        one.is_killed = killed is one

    def wait() -> None:
        two.stopped.set()
        assert go_on.wait(SECONDS_MAX)
        two.is_killed = killed is two

    one.at_stop, two.at_stop = begin_two, wait
    one.thread.start()
    one.end()
    go_on.set()
    if two.thread.ident is None:
        two.thread.start()
    two.end()


def _require_one_set(stores: Sequence[Store]) -> BackupSet:
    found = catalog.read(stores)
    assert found.unreadable == ()
    (made,) = found.sets
    for store in made.stores:
        assert verify_set(made.manifest, store).bad == ()
    return made


def _folders(store: Store) -> set[str]:
    return {each.split("/")[3] for each in keys(store)} - {"manifest.json"}


@pytest.mark.parametrize(
    ("which", "kills"),
    [
        (("ab", "ab"), False),
        (("ab", "b"), False),
        (("a", "ab"), False),
        (("b", "ab"), False),
        (("ab", "ab"), True),
        (("a", "ab"), True),
    ],
)
def test_of_two_runs_one_makes_the_set(
    which: tuple[str, str], kills: bool, tmp_path: Path
) -> None:
    """Wherever each is stopped or killed, and whichever stores each can reach."""
    chance = random.Random(str(which))
    ends = set()
    for number in range(TIMES):
        stores = {name: SharedStore(name) for name in "ab"}
        folder = tmp_path / str(number)
        one, two = (
            Run(name, [stores[e] for e in reached], folder, chance.randint(1, STEPS))
            for name, reached in zip(("aa", "bb"), which, strict=True)
        )
        _both(one, two, chance.choice([one, two]) if kills else None)
        results = [one.result, two.result]
        won = [each for each in results if isinstance(each, BackupResult)]
        lost = [each for each in results if isinstance(each, LockHeld)]
        ends.add((len(won), len(lost)))
        if not kills:
            made = _require_one_set([*stores.values()])
            assert (len(won), len(lost)) == (1, 1)
            assert won[0].manifest == made.manifest
            assert won[0].stores == tuple(each.name for each in made.stores)
            for store in stores.values():
                mine = {made.manifest.attempt[:-1]} if store in made.stores else set()
                assert _folders(store) == mine
            continue
        third = Run("cc", [*stores.values()], folder, 0)
        third.thread.start()
        third.end()
        made = _require_one_set([*stores.values()])
        for store in stores.values():
            later = datetime(2026, 3, 10, tzinfo=UTC) + 2 * GRACE
            for left in retention.orphans(store, source="shop", now=later):
                store.discard(left)
            assert _folders(store) <= {made.manifest.attempt[:-1]}
        _require_one_set([*stores.values()])
    assert kills or ends == {(1, 1)}
