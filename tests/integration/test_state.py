"""What is gathered of real databases, folders, stores and runs."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from opskit import config
from opskit.checks import Health
from opskit.config import Settings
from opskit.errors import DatabaseError
from opskit.ledger import Ledger, LedgerEntry
from opskit.operations import run as run_module
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import Run, begin
from opskit.postgres.connect import connect
from opskit.store import Store
from opskit.watch import gathering as gathering_module
from opskit.watch import metrics, web
from opskit.watch.fleet import FleetState
from opskit.watch.gathering import Gathering, Watch, gather
from opskit.watch.health import checks
from opskit.watch.state import Answer, StoreState
from tests import s3_servers
from tests.conftest import MakeDatabase
from tests.receivers import away
from tests.s3_servers import S3Server
from tests.support import value

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def configured(folder: Path, more: str) -> Run:
    """Return a run with two stores, `near` and `far`, whose folders a test makes."""
    text = "".join(
        f"[stores.{name}]\nurl = {json.dumps((folder / name).as_uri())}\n"
        for name in ("near", "far")
    )
    path = folder / "opskit.toml"
    path.write_text(text + more)
    return begin(config.load(path))


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def source(folder: Path) -> str:
    """Return the section of a folder with a file in it."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "file").write_text("content")
    return f"[files.data]\npath = {json.dumps(str(folder / 'data'))}\n"


def test_success_is_known_by_store_also_of_one_that_went_away(tmp_path: Path) -> None:
    """A store without the folder got nothing; one that went away is remembered."""
    (tmp_path / "near").mkdir()
    outcome = backup(configured(tmp_path, source(tmp_path)), BackupRequest())
    assert outcome.exit_code == 10

    state = gather(configured(tmp_path, source(tmp_path)))

    (data,) = state.sources
    assert [each.reachable for each in state.stores] == [True, False]
    assert "far" in state.stores[1].error
    assert list(data.last_success) == ["near"]
    assert data.backups[-1].details["failed_stores"] == ["far"]
    (tmp_path / "near").rename(tmp_path / "away")

    away = gather(configured(tmp_path, source(tmp_path)))

    assert away.sources[0].sets == ()
    near = away.sources[0].last_success["near"]
    assert abs((near - data.last_success["near"]).total_seconds()) < 60


def test_a_drill_shows_its_times_and_its_verdict(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    """The ledger tells of it; without the ledger the evidence in the store does."""
    shop = f"[databases.shop]\nurl = {json.dumps(make_database(16))}\n"
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    backup(configured(tmp_path, shop), BackupRequest())
    drill(configured(tmp_path, shop), RestoreDrillRequest())

    began = time.monotonic()
    state = gather(configured(tmp_path, shop))
    took = time.monotonic() - began

    (database,) = state.sources
    assert database.reachable
    assert database.clock_offset_seconds is not None  # it may be none at all, 0.0
    assert abs(database.clock_offset_seconds) <= took + 1
    (drilled,) = database.drills
    assert drilled == database.last_passed
    assert drilled.rto_seconds
    assert {"fetch", "restore"} <= set(drilled.phases)
    assert {*database.last_success} == {"near", "far"}
    (tmp_path / ".opskit" / "ledger.jsonl").unlink()

    (remembered,) = gather(configured(tmp_path, shop)).sources[0].drills

    assert remembered.passed
    assert remembered.run_id == drilled.run_id


def test_a_database_that_is_away_is_part_of_the_state(tmp_path: Path) -> None:
    """So is a folder that nobody may read."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        port = silent.getsockname()[1]
        away = f'[databases.shop]\nurl = "postgresql://ops@127.0.0.1:{port}/shop"\n'
        gone = '[files.data]\npath = "/nowhere/at/all"\n'

        state = gather(configured(tmp_path, away + gone))

    shop, data = state.sources
    assert not shop.reachable
    assert "refused" in shop.error
    assert shop.hint
    assert not data.reachable


def test_a_broken_ledger_keeps_nothing_from_being_gathered(tmp_path: Path) -> None:
    """Records that can be read are shown, and what is wrong is told."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    for _ in range(2):
        backup(configured(tmp_path, source(tmp_path)), BackupRequest())
    ledger = tmp_path / ".opskit" / "ledger.jsonl"
    whole = ledger.read_text()
    record = json.loads(whole.splitlines()[0])
    altered: dict[str, Any] = {
        "time": "yesterday", "operation": 3, "details": [], "seconds": "long"
    }  # fmt: skip
    bad = [json.dumps(record | {name: each}) for name, each in altered.items()]
    ledger.write_text(whole + "\n".join(["{", "[]", "\0", *bad]) + "\n")
    run = configured(tmp_path, source(tmp_path))

    state = gather(run)

    assert [each.sequence for each in state.entries] == [0, 1]
    assert state.ledger_faults
    assert {e.name: e.passed for e in checks(state, run.settings)}["ledger"] is False
    assert b"opskit_ledger_intact 0.0" in metrics.render(state, Health.UNHEALTHY)


def test_records_that_were_cut_off_are_missed_without_asking_a_store(
    tmp_path: Path,
) -> None:
    """Also if the whole file is gone."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    for _ in range(3):
        backup(configured(tmp_path, source(tmp_path)), BackupRequest())
    ledger = tmp_path / ".opskit" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)

    def faults() -> tuple[str, ...]:
        return gather(configured(tmp_path, source(tmp_path))).ledger_faults

    assert faults() == ()
    ledger.write_text("".join(lines[:2]))
    assert faults() == ("the end is gone here: 1 record",)
    ledger.unlink()
    assert faults() == ("the end is gone here: 3 records",)


def test_a_store_is_not_listed_again_before_something_happens(tmp_path: Path) -> None:
    """A record is what happens; a store that was away is listed when it is back."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    section = source(tmp_path)
    backup(configured(tmp_path, section), BackupRequest())
    gathering = Gathering(configured(tmp_path, section))
    gathering()
    shutil.rmtree(tmp_path / "near" / "data")
    (tmp_path / "far").rename(tmp_path / "away")

    known = gathering()

    assert [len(each.sets) for each in known.stores] == [1, 0]
    assert not known.stores[1].reachable
    (tmp_path / "away").rename(tmp_path / "far")
    assert [len(each.sets) for each in gathering().stores] == [1, 1]
    backup(configured(tmp_path, section), BackupRequest())
    assert [len(each.sets) for each in gathering().stores] == [1, 2]


def test_a_store_on_a_server_that_is_away_is_given_up_soon(tmp_path: Path) -> None:
    """The state of the others does not wait for every retry."""
    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    section = f'[stores.bucket]\nurl = "s3://bucket/x"\nendpoint_url = "{away()}"\n'
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_servers.environment().items():
            patch.setenv(name, value)
        state = gather(configured(tmp_path, source(tmp_path) + section))

    assert [each.reachable for each in state.stores] == [True, True, False]
    assert time.monotonic() - began < 60


def test_the_clock_of_an_s3_server_is_compared(tmp_path: Path, moto: S3Server) -> None:
    """A store in a folder has no clock of its own."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    section = (
        f'[stores.bucket]\nurl = "s3://{s3_servers.BUCKET}/state"\n'
        f'endpoint_url = "{moto.endpoint_url}"\nregion = "us-east-1"\n'
        'addressing = "path"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_servers.environment().items():
            patch.setenv(name, value)
        began = time.monotonic()
        stores = gather(configured(tmp_path, source(tmp_path) + section)).stores
        took = time.monotonic() - began

    assert [each.reachable for each in stores] == [True, True, True]
    assert stores[0].clock_offset_seconds is None
    assert stores[2].clock_offset_seconds is not None
    # The server tells whole seconds.
    assert abs(stores[2].clock_offset_seconds) <= took + 2
    assert stores[2].latency_seconds is not None


def test_what_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes connections and is silent is asked once, not again."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    monkeypatch.setattr(gathering_module, "_SECONDS", 0.5)
    asked: list[str] = []
    answered = threading.Event()

    def wait(_run: Run, name: str) -> Answer:
        asked.append(name)
        answered.wait(60)
        return Answer()

    monkeypatch.setattr(gathering_module, "_connect", wait)
    gathering = Gathering(configured(tmp_path, source(tmp_path)))

    assert gathering().sources[0].error == "no answer within 0.5 seconds"
    assert not gathering().sources[0].reachable
    assert asked == ["data"]
    answered.set()
    until(lambda: gathering().sources[0].reachable)
    assert set(asked) == {"data"}


def test_sets_and_drills_of_a_time_to_come_are_not_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was a month ahead once: the set before counts until then."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    section, real = source(tmp_path), datetime.now(UTC)

    def clock(ahead: timedelta) -> Run:
        monkeypatch.setattr(run_module, "now", lambda: datetime.now(UTC) + ahead)
        return configured(tmp_path, section)

    month = timedelta(days=30)
    backup(clock(timedelta(0)), BackupRequest())
    backup(clock(month), BackupRequest())
    drill(clock(month), RestoreDrillRequest())

    (data,) = gather(clock(timedelta(0))).sources
    assert len(data.sets) == 2
    assert data.drills == ()
    assert data.last_success.keys() == {"near", "far"}
    assert all(at - real < timedelta(hours=1) for at in data.last_success.values())
    (tmp_path / "near").rename(tmp_path / "away")
    (data,) = gather(clock(timedelta(0))).sources
    assert data.last_success["near"] - real < timedelta(hours=1)
    (tmp_path / "away").rename(tmp_path / "near")
    (data,) = gather(clock(month)).sources
    assert data.last_passed is not None
    assert data.last_success["near"] - real > timedelta(days=29)


def test_what_another_host_has_run_is_not_overdue(tmp_path: Path) -> None:
    """A scheduler that stands by runs nothing; the copies in the stores are asked."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    section = source(tmp_path) + 'schedule = "0 * * * *"\n'
    standby = tmp_path / "standby"
    standby.mkdir()
    leading = configured(tmp_path, section)
    text = (tmp_path / "opskit.toml").read_text()
    (standby / "opskit.toml").write_text(text)

    (standby / ".opskit").mkdir()
    Ledger(standby / ".opskit" / "ledger.jsonl").append(
        now=datetime.now(UTC) - timedelta(hours=5),
        run_id="before",
        operation="scheduler",
        outcome="ok",
        details={"lines": {"backup data": "0 * * * * UTC"}},
    )

    def status() -> Health:
        run = begin(config.load(standby / "opskit.toml"))
        made = {each.name: each for each in checks(gather(run), run.settings)}
        return made["timetable: backup data"].status

    assert status() is Health.DEGRADED
    backup(leading, BackupRequest())
    assert status() is Health.HEALTHY


def test_a_server_that_hangs_gets_few_sessions_and_holds_up_no_other(
    tmp_path: Path, make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold hundreds of databases: a thread and a session for each are many."""

    before = {*threading.enumerate()}

    def hanging() -> int:
        return len({*threading.enumerate()} - before)

    def wait(futures: Collection[Any], timeout: float) -> None:
        until(lambda: sum(not each.done() for each in futures) == 20)

    monkeypatch.setattr(gathering_module, "wait", wait)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        place = f"postgresql://ops@127.0.0.1:{silent.getsockname()[1]}"
        urls = {f"s{n}": f"{place}/s{n}?connect_timeout=60" for n in range(20)}
        section = "".join(
            f"[databases.{name}]\nurl = {json.dumps(url)}\n"
            for name, url in (urls | {"shop": make_database(16)}).items()
        )
        sources = Gathering(configured(tmp_path, section))().sources

        assert [each.name for each in sources if each.reachable] == ["shop"]
        until(lambda: hanging() == gathering_module._SESSIONS_MAX)
    until(lambda: hanging() == 0)


def test_in_a_fleet_nobody_but_its_workers_connects(tmp_path: Path) -> None:
    """The queue says which sources there are; without an answer, what it said last."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        port = silent.getsockname()[1]
        away = f'[databases.shop]\nurl = "postgresql://ops@127.0.0.1:{port}/shop"\n'
        run = configured(tmp_path, away)
        databases = run.settings.databases
        known = run.settings.model_copy(
            update={"databases": databases | {"found": databases["shop"]}}
        )
        said: list[tuple[Settings, FleetState]] = [
            (known, FleetState(todo={"default": 7}))
        ]

        def ask(_entries: Sequence[LedgerEntry]) -> tuple[Settings, FleetState]:
            if said:
                return said.pop()
            raise DatabaseError("the queue", said="refused", hint="Start it.")

        gathering = Gathering(run, ask)
        for error in ("", "refused"):
            state = gathering()

            assert [each.name for each in state.sources] == ["shop", "found"]
            assert all(each.reachable for each in state.sources)
            assert state.fleet is not None
            assert error in state.fleet.error
            assert bool(state.fleet.error) is bool(error)
            assert state.fleet.todo == {"default": 7}


def test_in_a_fleet_a_store_is_listed_again_by_how_long_that_takes(
    tmp_path: Path,
) -> None:
    """Others change it all the time, and a ledger here does not tell of them."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    run = configured(tmp_path, source(tmp_path))
    gathering = Gathering(run, lambda _entries: (run.settings, FleetState()))
    slow = run_module.now() - timedelta(seconds=30)

    def sets(listing_time: timedelta) -> int:
        state = gathering()
        stores = tuple(
            replace(each, listed_at=slow, listing_time=listing_time)
            for each in state.stores
        )
        gathering._before = replace(state, stores=stores)
        return len(state.stores[0].sets)

    assert sets(timedelta(seconds=10)) == 0
    backup(configured(tmp_path, source(tmp_path)), BackupRequest())
    assert sets(timedelta(seconds=1)) == 0  # 20 times 10 seconds have not passed
    assert sets(timedelta(seconds=1)) == 1


def test_silent_stores_are_waited_for_together_and_their_last_lists_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes late counts; it is not thrown away and asked for again."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    section = source(tmp_path)
    backup(configured(tmp_path, section), BackupRequest())
    gathering = Gathering(configured(tmp_path, section))
    gathering()
    look_into, answers = gathering_module._look_into, threading.Event()
    asked, waited = [], []

    def slow(run: Run, store: Store, known: StoreState | None) -> StoreState:
        asked.append(store.name)
        answers.wait(60)
        return look_into(run, store, known)

    def wait(futures: Collection[Any], timeout: float) -> None:
        waited.append(timeout)
        concurrent.futures.wait(futures, 0 if len(waited) < 3 else 60)

    monkeypatch.setattr(gathering_module, "_look_into", slow)
    monkeypatch.setattr(gathering_module, "wait", wait)

    for _ in range(2):
        silent = gathering().stores

        assert [each.error for each in silent] == ["no answer within 30 seconds"] * 2
        assert [len(each.sets) for each in silent] == [1, 1]
    assert waited == [30, 30]
    answers.set()
    assert all(each.reachable for each in gathering().stores)
    assert sorted(asked) == ["far", "near"]


def test_a_set_that_differs_between_stores_is_named(tmp_path: Path) -> None:
    """Each manifest is a valid one; one of them was altered."""
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    backup(configured(tmp_path, source(tmp_path)), BackupRequest())
    (manifest,) = (tmp_path / "far").glob("data/*/*/manifest.json")
    manifest.write_text(manifest.read_text() + "\n")
    gathering = Gathering(configured(tmp_path, source(tmp_path)))

    for state in (gathering(), gathering()):
        (bad,) = state.stores[1].unreadable
        assert "not the same" in bad.reason
        assert [each.stores[0].name for each in state.sources[0].sets] == ["near"]


def test_a_scrape_during_a_backup_sees_what_was_there_before(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    """Neither half a set nor a run that has not ended, and the backup goes on."""
    url = make_database(16)
    section = f"[databases.shop]\nurl = {json.dumps(url)}\n"
    section += '[scheduler]\nlisten = "127.0.0.1:0"\n'
    for store in ("near", "far"):
        (tmp_path / store).mkdir()
    backup(configured(tmp_path, section), BackupRequest())
    run = configured(tmp_path, section)
    with ThreadPoolExecutor(1) as pool:
        with connect(url, purpose="test", autocommit=False) as holder:
            holder.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
            backing_up = pool.submit(
                backup, configured(tmp_path, section), BackupRequest()
            )
            until(lambda: value(url, WAITING) > 0)
            text = scraped(run)
            assert not backing_up.done()
        assert backing_up.result().exit_code == 0

    assert 'opskit_sets{source="shop",store="near"} 1.0' in text
    assert 'opskit_backup_last_run_succeeded{source="shop"} 1.0' in text
    assert [len(each.sets) for each in gather(run).stores] == [2, 2]


def scraped(run: Run) -> str:
    """Serve the state of a run and return its metrics."""
    watch = Watch(Gathering(run))
    serving = web.serve(run, watch)
    try:
        until(lambda: watch.state is not None)
        host, port = serving.address
        with urlopen(f"http://{host}:{port}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
            return text
    finally:
        serving.stop()
        watch.stop()
