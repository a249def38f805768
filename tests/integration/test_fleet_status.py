"""How a fleet is, read from a real queue, and shown by a real worker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest

from opskit.config import Settings
from opskit.config.discover import DiscoverSettings
from opskit.fleet import queue, status
from opskit.fleet.setup import run_now
from opskit.fleet.tick import Ticker
from opskit.operations.run import begin
from opskit.postgres.connect import Connection, connect, execute, query_value
from opskit.postgres.parameters import database_name
from opskit.watch.fleet import FleetState
from tests.conftest import MakeDatabase
from tests.fleet.workers import Worker
from tests.watching import until

LABELS = {"a": "default", "b": "default", "c": "eu"}


@pytest.fixture
def fleet(make_database: MakeDatabase) -> Settings:
    """The settings of a fleet of three sources, whose queue is there."""
    # Due some hours ago, and not again for most of a day.
    line = f"0 {(datetime.now(UTC) - timedelta(hours=2)).hour} * * *"
    database = {"url": "postgresql://ops@db.example/x", "schedule": line}
    settings = Settings.model_validate(
        {
            "fleet": {"url": make_database(script="SELECT 1")},
            "databases": {
                name: database | {"label": label} for name, label in LABELS.items()
            },
            "stores": {"s": {"url": "file:///nowhere"}},
            "scheduler": {"verify": "", "drill": "", "prune": "", "report": ""},
        }
    )
    with queue.session(settings.fleet, "test") as connection:
        queue.init(connection)
    return settings


@pytest.fixture
def connection(fleet: Settings) -> Iterator[Connection]:
    """A session in the fleet's schema."""
    with queue.session(fleet.fleet, "test") as session:
        yield session


def worker(connection: Connection, name: str, **changes: object) -> int:
    """Have a worker, and return the number that the queue knows it by."""
    engine: int = query_value(
        connection, "INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id"
    )
    row: dict[str, object] = {
        "id": uuid4(),
        "engine": engine,
        "name": name,
        "host": "h",
        "pid": 1,
        "version": "1",
        "labels": ["default"],
        "capacity": 1,
        "state": "working",
    }
    row |= changes
    values = ", ".join(f"%({key})s" for key in row)
    connection.execute(f"INSERT INTO workers ({', '.join(row)}) VALUES ({values})", row)
    return engine


def started(connection: Connection, source: str, engine: int) -> None:
    """Have a worker do the backup of a source."""
    connection.execute(
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s"
        " WHERE args->>'source' = %s",
        (engine, source),
    )


def read(connection: Connection, fleet: Settings) -> FleetState:
    return status.read(connection, fleet, ())


def test_what_waits_and_what_runs_is_told_by_label_and_worker(
    fleet: Settings, connection: Connection
) -> None:
    """A worker without a sign of life is dead, whatever it said last."""
    Ticker().tick(connection, fleet)
    started(connection, "a", worker(connection, "one"))
    seen = query_value(connection, "SELECT now() - interval '1 hour'")
    worker(connection, "two", seen_at=seen)
    worker(connection, "off", state="clock-off", reason="an hour", clock_offset=3600)

    state = read(connection, fleet)

    assert state.labels == LABELS
    assert state.todo == {"default": 1, "eu": 1}
    (doing,) = state.doing
    assert (doing.name, doing.label, doing.worker) == ("backup a", "default", "one")
    assert doing.since is not None
    assert {e.name: e.state for e in state.workers} == {
        "one": "working",
        "two": "dead",
        "off": "clock-off",
    }
    assert state.serving == {"default": 1, "eu": 0}
    assert state.workers[0].clock_offset_seconds == 3600


def test_the_end_of_the_work_follows_from_how_long_jobs_took(
    fleet: Settings, connection: Connection
) -> None:
    """One after the other in a worker with one slot; what nobody does is left out."""
    Ticker().tick(connection, fleet)
    connection.execute("UPDATE turns SET seconds = 3600")
    engine = worker(connection, "one")

    def hours(settings: Settings = fleet) -> int:
        ends_at = read(connection, settings).ends_at
        now = query_value(connection, "SELECT now()")
        return 0 if ends_at is None else round((ends_at - now) / timedelta(hours=1))

    assert hours() == 2
    started(connection, "a", engine)
    assert hours() == 2
    worker(connection, "two", labels=["default", "eu"], capacity=2)
    assert hours() == 2  # by per_server
    caps = fleet.fleet.model_copy(update={"per_server": 3})
    assert hours(fleet.model_copy(update={"fleet": caps})) == 1
    connection.execute("DELETE FROM procrastinate_jobs")
    assert hours() == 0


def test_what_one_rule_finds_lies_on_one_server(
    fleet: Settings, connection: Connection
) -> None:
    """How to reach it is not known here; a file may name a server for each."""
    Ticker().tick(connection, fleet)
    connection.execute("UPDATE turns SET seconds = 3600")
    worker(connection, "one", labels=["default", "eu"], capacity=3)
    connection.execute(
        "INSERT INTO sources (name, rule, label)"
        " SELECT name, 'r', 'eu' FROM unnest('{a,b,c}'::text[]) name"
    )
    hours = []
    for rule in ({"url": "postgresql://x/y", "pattern": ["*"]}, {"file": "/f"}):
        discover = {"r": DiscoverSettings.model_validate(rule)}
        settings = fleet.model_copy(update={"discover": discover})
        ends_at = read(connection, settings).ends_at
        assert ends_at is not None
        now = query_value(connection, "SELECT now()")
        hours.append(round((ends_at - now) / timedelta(hours=1)))

    assert hours == [2, 1]


def test_a_job_that_will_be_due_again_before_its_end_is_late(
    fleet: Settings, connection: Connection
) -> None:
    """It is named; that of a quicker worker is not."""
    Ticker().tick(connection, fleet)
    worker(connection, "one", labels=["default", "eu"], capacity=3)
    assert read(connection, fleet).late == ()

    connection.execute(
        "UPDATE turns SET seconds = CASE source WHEN 'b' THEN 90000 ELSE 60 END"
    )

    assert read(connection, fleet).late == ("backup b",)


def test_without_workers_it_is_known_what_is_due(
    fleet: Settings, connection: Connection
) -> None:
    """Nobody puts it into the queue."""
    Ticker().tick(connection, fleet)
    connection.execute("DELETE FROM procrastinate_jobs")
    assert read(connection, fleet).due == 0

    connection.execute("UPDATE turns SET done_until = now() - interval '2 days'")
    connection.execute("UPDATE turns SET known_since = now() - interval '2 days'")

    assert read(connection, fleet).due == 3
    worker(connection, "one")
    assert read(connection, fleet).due == 0


def test_what_fails_and_what_is_gone_is_told(
    fleet: Settings, connection: Connection
) -> None:
    """A job that the timetable does not have any more fails no more."""
    Ticker().tick(connection, fleet)
    connection.execute("UPDATE turns SET failures = 2 WHERE source = 'a'")
    connection.execute(
        "INSERT INTO turns (operation, source, known_since, failures)"
        " VALUES ('backup', 'removed', now(), 4)"
    )
    connection.execute(
        "INSERT INTO sources (name, rule, label, gone_since)"
        " VALUES ('x', 'r', 'eu', now()), ('y', 'r', 'eu', NULL)"
    )
    connection.execute("INSERT INTO rules (name, fault) VALUES ('r', ''), ('s', 'no')")

    state = read(connection, fleet)

    assert [(e.name, e.failures) for e in state.failing] == [("backup a", 2)]
    assert [(e.name, e.rule) for e in state.gone] == [("x", "r")]
    assert state.rules == {"r": "", "s": "no"}


def test_a_source_that_is_gone_is_confirmed_on_record(
    fleet: Settings, connection: Connection, tmp_path: Path
) -> None:
    """Then it is not told any more; of another source that cannot be said."""
    connection.execute(
        "INSERT INTO sources (name, rule, label, gone_since)"
        " VALUES ('x', 'r', 'eu', now())"
    )
    run = begin(fleet.model_copy(update={"state_dir": tmp_path}))

    refused, done = status.confirm(run, "a"), status.confirm(run, "x")

    assert (refused.exit_code, done.exit_code) == (2, 0)
    assert done.as_json()["confirmed"] == "x"
    assert read(connection, fleet).gone == ()
    records, _faults = run.ledger.readable()
    assert [(e.source, e.outcome) for e in records] == [("x", "ok")]


def test_a_queue_without_a_fleet_is_a_fault_of_the_configuration(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    """And so is no queue at all."""
    empty = {"fleet": {"url": make_database(script="SELECT 1")}}
    for given, words in ((empty, "no schema opskit_fleet"), ({}, "no queue")):
        settings = Settings.model_validate({"state_dir": tmp_path, **given})

        done = status.status(begin(settings))

        assert done.exit_code == 2
        assert words in done.errors[0].message


def test_a_run_that_is_asked_for_may_fail_as_often_as_any(
    fleet: Settings, connection: Connection, tmp_path: Path
) -> None:
    """After a night of failures it would not be tried again."""
    Ticker().tick(connection, fleet)
    connection.execute("UPDATE turns SET failures = 4")
    run = begin(fleet.model_copy(update={"state_dir": tmp_path}))

    assert run_now(run, sources=["a"]).exit_code == 0

    rows = connection.execute("SELECT source FROM turns WHERE failures = 0").fetchall()
    assert rows == [("a",)]


def test_a_run_of_nothing_is_refused(fleet: Settings, tmp_path: Path) -> None:
    """What rules find is not known before a worker has asked them."""
    run = begin(fleet.model_copy(update={"state_dir": tmp_path}))

    done = run_now(run, operation="restore-drill")

    assert done.exit_code == 2
    assert "no restore-drill is in the timetable" in done.errors[0].message


def configured(folder: Path, url: str, queue_url: str) -> Path:
    """Write the configuration of a fleet of one database, not yet drilled."""
    (folder / "store").mkdir()
    path = folder / "opskit.toml"
    path.write_text(
        f"[databases.shop]\nurl = {json.dumps(url)}\nschedule = '0 9 * * *'\n"
        f"[stores.local]\nurl = {json.dumps((folder / 'store').as_uri())}\n"
        f"[fleet]\nurl = {json.dumps(queue_url)}\ndead_after = '20s'\n"
        "[scheduler]\nlisten = '127.0.0.1:0'\ndrill = ''\nprune = ''\n"
        "verify = ''\nreport = ''\n"
    )
    return path


def test_a_worker_shows_the_fleet_and_fleet_status_says_the_same(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    """From the first job that waits for a worker, to a set, to a queue that is away."""
    queue_url = make_database(script="SELECT 1")
    url = make_database()
    configured(tmp_path, url, queue_url)
    with ExitStack() as stack:
        worker = Worker(name="one", folder=tmp_path, stack=stack)
        assert worker.command("fleet-init").returncode == 0
        before = worker.command("fleet-status", "--json")
        assert before.returncode == 4
        assert json.loads(before.stdout)["sources"][0]["newest"] is None
        worker.start()
        stack.callback(worker.lose)
        log = tmp_path / "1.log"
        (address,) = until(
            lambda: re.findall(r"http://127\.0\.0\.1:\d+/", log.read_text())
        )

        def metrics() -> str:
            with urlopen(f"{address}metrics", timeout=60) as answer:
                return str(answer.read().decode())

        until(lambda: 'opskit_sets{source="shop",store="local"} 1.0' in metrics())
        until(lambda: 'opskit_fleet_workers{state="working"} 1.0' in metrics())
        assert "opskit_source_reachable" not in metrics()
        with urlopen(address, timeout=60) as answer:
            assert "What would be lost" in answer.read().decode()
        done = worker.command("fleet-status", "--json")
        said = json.loads(done.stdout)

        assert done.returncode == 3  # nothing is drilled
        (shop,) = said["sources"]
        assert (shop["proof"], shop["lost_seconds"]) == ("unproven", None)
        assert [each["state"] for each in said["fleet"]["workers"]] == ["working"]
        text = worker.command("fleet-status").stdout
        assert re.search(r"^shop +default +all +shop-\S+ +unproven$", text, re.M)
        with connect(url, purpose="test") as connection:
            name = database_name(queue_url)
            execute(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
        away = worker.command("fleet-status")
        assert away.returncode == 4
        assert re.search(
            r"^unhealthy fleet: queue: the queue: .*not currently", away.stdout, re.M
        )
        assert "its workers and jobs are not known" in away.stdout
