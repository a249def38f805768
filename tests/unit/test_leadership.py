"""Leadership: when it is new, and what other hosts have run meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit.config import Settings
from opskit.errors import StoreError
from opskit.ledger import Ledger, copies
from opskit.operations.run import Run
from opskit.scheduler import journal as journals
from opskit.scheduler.jobs import Ended
from opskit.scheduler.journal import Journal
from opskit.scheduler.lease import Lease
from opskit.scheduler.timetable import Missed
from opskit.store import ObjectInfo, Store
from tests.acceptance.scheduling import PATIENCE_SECONDS, eventually
from tests.memory_store import MemoryStore
from tests.unit.scheduled import timetable

(JOB,) = timetable("@hourly")
NOW = datetime.now(UTC)


class Stubborn(MemoryStore):
    """A store that cannot be listed, or that does not answer, until a test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.answers = threading.Event()
        self.answers.set()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List, if that is possible now."""
        self._answer()
        if self.is_away:
            raise StoreError("it is away", hint="")
        return super().list(prefix)

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """Take an object when it answers."""
        self._answer()
        return super().put(key, chunks)

    def _answer(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        assert self.answers.is_set() or not main, "the main loop waits"
        self.answers.wait(PATIENCE_SECONDS)


@pytest.fixture
def store(tmp_path: Path) -> Stubborn:
    """A store with the ledger of another host, which has just run the job."""
    made = Stubborn()
    ledger = Ledger(tmp_path / "other.jsonl")
    ledger.append(
        now=NOW, run_id="run", operation="backup", outcome="ok",
        details={"source": "shop"}, started_at=NOW,
    )  # fmt: skip
    copies.push(ledger, ledger_id="other", stores=[made])
    return made


@pytest.fixture
def journal(tmp_path: Path, store: Stubborn) -> Journal:
    """The journal of a host for which the job is overdue."""

    class Served(Run):
        @property
        def stores(self) -> list[Store]:
            return [store]

    stores = {"local": {"url": (tmp_path / "store").as_uri()}}
    run = Served(
        Settings.model_validate({"state_dir": tmp_path / "state", "stores": stores})
    )
    (tmp_path / "state").mkdir()
    Ledger(tmp_path / "state" / "ledger.jsonl").append(
        now=NOW - timedelta(hours=3), run_id="run", operation="scheduler",
        outcome="ok", details={"lines": {JOB.name: JOB.written}},
    )  # fmt: skip
    made = Journal(run)
    assert made.history().since(JOB) == NOW - timedelta(hours=3)
    return made


def test_the_first_answer_of_a_store_is_waited_for(
    journal: Journal, store: Stubborn
) -> None:
    """The main loop goes on meanwhile, and knows then what the other host has run."""
    store.answers.clear()
    journal.take_over([JOB])
    assert not journal.is_ready

    store.answers.set()

    eventually(lambda: journal.is_ready, that="the store has answered")
    assert journal.history().since(JOB) == NOW


def test_a_store_that_never_answers_is_not_waited_for_long(
    journal: Journal, store: Stubborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that is taken twice is better than none."""
    monkeypatch.setattr(journals, "_ANSWER_SECONDS", 0.1)
    store.answers.clear()

    journal.take_over([JOB])

    eventually(lambda: journal.is_ready, that="it waits no more")
    store.answers.set()


def test_a_store_that_was_away_is_asked_again(
    journal: Journal, store: Stubborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs do not wait for it; what it says counts as soon as it can be read."""
    monkeypatch.setattr(journals, "_AGAIN_SECONDS", 0.1)
    store.is_away = True
    journal.take_over([JOB])
    eventually(lambda: journal.is_ready, that="the store was asked")
    assert journal.history().since(JOB) != NOW

    store.is_away = False

    eventually(lambda: journal.history().since(JOB) == NOW, that="it is asked again")


def test_records_do_not_wait_for_stores(journal: Journal, store: Stubborn) -> None:
    """A store that is silent gets its copies when it answers."""
    before = len([*store.list()])
    store.answers.clear()

    journal.learn([])
    journal.ended(JOB, NOW, Ended(code=40))
    journal.ended(JOB, NOW, Ended(code=0))
    journal.missed(JOB, Missed(first=NOW, last=NOW, number=1))

    store.answers.set()
    journal.close(time.monotonic() + PATIENCE_SECONDS)
    assert len([*store.list()]) == before + 5


def test_a_lease_is_new_once(tmp_path: Path) -> None:
    """Also if it was lost and got again before anybody asked."""
    run = Run(
        Settings.model_validate(
            {
                "state_dir": tmp_path / "state",
                "stores": {"local": {"url": (tmp_path / "store").as_uri()}},
            }
        )
    )
    (tmp_path / "store").mkdir()
    lease = Lease(run)

    states = []
    for _ in range(2):
        for _ in range(2):
            assert lease.acquire()
            states.append(lease.is_new)
        lease.release()

    assert states == [True, False, True, False]
