"""The search of a worker: never waited for, and what its jobs are given of it."""

from __future__ import annotations

import json
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opskit import log
from opskit.config import Settings
from opskit.fleet import sources
from opskit.fleet.sources import Search
from opskit.ledger import LedgerEntry
from opskit.operations.discovery import Found, find
from opskit.operations.outcome import Failure, Record
from opskit.operations.run import Run
from opskit.scheduler.journal import Journal

FILE = b"# the file\n"
URL = "postgresql://db.example/shop"


def settings(path: Path) -> Settings:
    return Settings.model_validate(
        {
            "databases": {"listed": {"url": URL}},
            "discover": {"here": {"file": path, "schedule": "@daily"}},
        }
    )


@contextmanager
def searching(path: Path, *labels: str) -> Iterator[Search]:
    """A search that is over at the end."""
    wake = threading.Event()
    search = Search(settings(path), FILE, labels=labels or ["default"], wake=wake.set)
    try:
        yield search
    finally:
        assert wake.wait(60)
        search.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write(path: Path, *names: str) -> None:
    path.write_text(json.dumps(dict.fromkeys(names, URL)))


def test_a_job_gets_the_database_that_it_is_for(tmp_path: Path) -> None:
    """And one that is for all of them, what was found; never what the file lists."""
    write(tmp_path / "found.json", "a", "b")
    with searching(tmp_path / "found.json") as search:
        until(lambda: "a" in search.look().databases)

        assert set(search.settings.databases) == {"listed", "a", "b"}
        given = {source: search.configuration(source) for source in ("a", "", "listed")}

    assert given["listed"] == FILE
    for source, names in (("a", {"a"}), ("", {"a", "b"})):
        assert given[source].startswith(FILE)
        found = tomllib.loads(given[source].decode())["databases"]
        assert set(found) == names
        assert found["a"]["url"] == URL
        assert found["a"]["schedule"] == "@daily"


def test_a_rule_that_is_slow_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker keeps house meanwhile; until there is an answer it does not tick."""
    answer = threading.Event()
    write(tmp_path / "found.json", "a")

    def slowly(*arguments: Any, **options: Any) -> Found:
        assert answer.wait(60)
        return find(*arguments, **options)

    monkeypatch.setattr(sources, "find", slowly)
    with searching(tmp_path / "found.json") as search:
        assert set(search.look().databases) == {"listed"}
        at_first = search.is_over
        monkeypatch.setattr(sources, "_PATIENCE_SECONDS", -1.0)
        # Without any answer it would never tick.
        assert (at_first, search.is_over) == (False, True)

        answer.set()
        until(lambda: "a" in search.look().databases)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_search_that_breaks_off_again_and_again_holds_up_no_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins anew, and the patience does not."""
    write(tmp_path / "found.json", "a")
    monkeypatch.setattr(sources, "find", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sources, "_PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(sources, "_EVERY_SECONDS", 0.1)
    search = Search(
        settings(tmp_path / "found.json"), FILE, labels=["default"], wake=lambda: None
    )

    def is_over() -> bool:
        return bool(search.look()) and search.is_over

    until(is_over)
    search.close()


def test_a_fault_is_logged_when_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not once a minute; and what was found before stays."""
    log.configure(run_id="run", form="json")
    monkeypatch.setattr(sources, "_EVERY_SECONDS", 0.0)
    path = tmp_path / "found.json"
    write(path, "a")
    with searching(path) as search:
        until(lambda: "a" in search.look().databases)
        path.unlink()
        until(lambda: bool(search.look() and search.found and search.found.faults))
        broken = search.found
        until(lambda: bool(search.look() and search.found is not broken))

        assert set(search.look().databases) == {"listed", "a"}

    assert capfd.readouterr().err.count("found.json cannot be used") == 1


def test_rules_of_other_labels_are_left_to_others(tmp_path: Path) -> None:
    """Their servers may be out of reach."""
    write(tmp_path / "found.json", "a")
    with searching(tmp_path / "found.json", "far") as search:
        until(lambda: bool(search.look() and search.found))

        assert set(search.settings.databases) == {"listed"}


class Told:
    """An observer that remembers how operations ended."""

    def __init__(self) -> None:
        self.ended_as: list[tuple[str, str, str]] = []

    def started(self, run: Run, record: Record) -> None:
        """Nothing is said at the start."""

    def ended(self, run: Run, record: Record) -> None:
        self.ended_as.append((record.operation, record.subject, record.ended))


def test_what_appears_is_put_on_record_and_told_to_observers(tmp_path: Path) -> None:
    """So that a source that was gone is reported to work again."""
    told = Told()
    run = Run(Settings(state_dir=tmp_path), observers=(told,))
    journal = Journal(run)

    journal.discovered("a")
    journal.discovered("a", Failure(exit_code=30, message="a is gone"))
    journal.close(time.monotonic() + 60)

    assert sorted(told.ended_as) == [
        ("discover", "a", "failed"),
        ("discover", "a", "ok"),
    ]
    entries: list[LedgerEntry] = run.ledger.readable()[0]
    assert [(e.source, e.outcome, e.details.get("error")) for e in entries] == [
        ("a", "ok", None),
        ("a", "failed", "a is gone"),
    ]
