"""Observers: what they learn of operations, and what their own errors do not do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from opskit import log
from opskit.errors import BackupFailed, ConfigurationError, StoreError
from opskit.operations.outcome import Record
from opskit.operations.recording import RunLedger
from opskit.operations.run import Run
from opskit.scheduler.journal import Journal
from opskit.scheduler.timetable import Missed
from tests.unit.conftest import LoadConfig
from tests.unit.scheduled import moment, timetable

NINE = moment("2026-03-10T09:00")


class Noting:
    """An observer that keeps what it learns, and may raise an error of its own."""

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.error = error

    def started(self, run: Run, record: Record) -> None:
        """Keep what began."""
        self.seen.append(("started", record.operation, dict(record.details)))
        self._raise()

    def ended(self, run: Run, record: Record) -> None:
        """Keep how it ended, and its number in the ledger."""
        number = None if record.entry is None else record.entry.sequence
        self.seen.append(("ended", record.operation, record.ended, number))
        self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def noting() -> Noting:
    """An observer without errors."""
    return Noting()


@pytest.fixture
def run(load_config: LoadConfig, tmp_path: Path, noting: Noting) -> Run:
    """A run with one store and one observer."""
    (tmp_path / "store").mkdir()
    url = (tmp_path / "store").as_uri()
    return Run(load_config(f'[stores.local]\nurl = "{url}"'), observers=(noting,))


def _raise(error: BaseException) -> None:
    raise error


def _interrupt(run: Run) -> None:
    with run.recorded("backup") as record:
        record.begin()
        _raise(KeyboardInterrupt())


def test_an_observer_learns_when_something_begins_and_how_it_ended(
    run: Run, noting: Noting
) -> None:
    """The end comes after the record is in the ledger."""
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        assert noting.seen == [("started", "backup", {"source": "shop"})]

    assert noting.seen[1:] == [("ended", "backup", "ok", 0)]


def test_observers_do_not_wait_for_the_copies_of_the_ledger(
    run: Run, noting: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs would keep a failure from being reported."""
    seen: list[int] = []
    monkeypatch.setattr(
        RunLedger, "copy", lambda *_arguments: seen.append(len(noting.seen))
    )
    with run.recorded("backup") as record:
        record.begin()

    assert seen == [2]


def test_what_is_not_recorded_is_not_observed(run: Run, noting: Noting) -> None:
    """A list of the sets is not announced."""
    with run.recorded("backups"):
        pass

    assert noting.seen == []


def test_a_failure_and_an_interrupt_differ(run: Run, noting: Noting) -> None:
    """The interrupt goes on, the failure is in the outcome."""
    with run.recorded("backup") as record:
        record.begin()
        _raise(BackupFailed("no"))
    with pytest.raises(KeyboardInterrupt):
        _interrupt(run)

    ended = [each[2] for each in noting.seen if each[0] == "ended"]
    assert ended == ["failed", "interrupted"]


def test_the_ledger_keeps_the_code_of_an_operation_that_did_part_of_its_work(
    run: Run,
) -> None:
    """The ledger alone shows whether everything was done."""
    with run.recorded("backup", "shop") as record:
        record.begin(source="shop")
        record.report(StoreError("offsite is away", said="in its own words"))

    assert record.entry is not None
    assert record.entry.outcome == "ok"
    assert record.entry.details == {
        "source": "shop",
        "code": 10,
        "error": "offsite is away",
    }


def test_an_observer_that_fails_ends_nothing(
    run: Run, noting: Noting, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its error is a warning, at the beginning and at the end."""
    log.configure(run_id="a1", form="json")
    noting.error = ValueError("out of order")
    with run.recorded("backup") as record:
        record.begin()

    assert record.outcome.exit_code == 0
    assert record.entry is not None
    assert record.entry.outcome == "ok"
    assert capsys.readouterr().err.count("ValueError: out of order") == 2


def test_an_observer_may_refuse_an_operation(run: Run, noting: Noting) -> None:
    """Nothing is done, and the refusal is on record."""
    noting.error = ConfigurationError("not now")
    done = False
    with run.recorded("backup") as record:
        record.begin()
        done = True

    assert not done
    assert record.outcome.exit_code == 2
    assert record.entry is not None
    assert record.entry.details == {"error": "not now", "code": 2}


def test_an_event_without_an_operation_is_recorded_and_observed(
    run: Run, noting: Noting
) -> None:
    """A missed run is one: nothing ran that could have recorded it."""
    (job,) = timetable("0 9 * * *")
    missed = Missed(first=NINE, last=NINE, number=1)
    journal = Journal(run)
    journal.missed(job, missed)
    journal.close(time.monotonic() + 60)

    assert noting.seen == [("ended", "backup", "missed", 0)]
    (entry,) = run.ledger.entries()
    assert (entry.operation, entry.outcome) == ("backup", "missed")
    assert entry.details == {
        "source": "shop",
        "due": missed.as_json(),
        "code": 1,
        "error": "backup shop: a run was missed, due at 2026-03-10 09:00 UTC",
    }
