"""Sources of a fleet that come and go: backed up the same night, never dropped."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from opskit.config import DatabaseSettings, Settings
from opskit.config.fleet import FleetSettings
from opskit.errors import DatabaseError, UsageError
from opskit.fleet import queue, sources
from opskit.fleet.sources import Search
from opskit.fleet.tick import Ticker, defer
from opskit.log import hide
from opskit.operations.discovery import Found, with_found
from opskit.operations.outcome import Failure
from opskit.operations.schedule import Job
from opskit.postgres import database
from opskit.postgres.connect import Connection, connect, query, user_query
from tests.conftest import MakeDatabase
from tests.watching import until

PASSWORD = "battery-staple"
RULES: dict[str, dict[str, Any]] = {
    name: {"url": "postgresql://x/y", "pattern": ["*"]} for name in ("one", "two")
}


@pytest.fixture
def fleet(make_database: MakeDatabase) -> Settings:
    """The settings of a fleet with two rules, whose queue is there."""
    settings = Settings.model_validate(
        {
            "fleet": {"url": make_database(script="SELECT 1")},
            "discover": RULES,
            "files": {"folder": {"path": "/tmp/folder"}},
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


def found(answered: str = "one two", fault: str = "", /, **rules: str) -> Found:
    """What rules found: each source with its rule; `one` may have a fault."""
    each = DatabaseSettings.model_validate({"url": "postgresql://x/y"})
    return Found(
        databases=dict.fromkeys(rules, each),
        rules=rules,
        answered=frozenset(answered.split()),
        faults={"one": DatabaseError(fault)} if fault else {},
    )


def gone(connection: Connection) -> list[str]:
    rows = query(connection, "SELECT name FROM sources WHERE gone_since IS NOT NULL")
    return sorted(name for (name,) in rows)


def test_each_change_is_reported_once(fleet: Settings, connection: Connection) -> None:
    """By the first worker that sees it: new, gone, back, and gone again."""

    def record(*known: str) -> dict[str, Failure | None]:
        rules = dict.fromkeys(known, "one")
        first = sources.record(connection, fleet, found(**rules))
        assert sources.record(connection, fleet, found(**rules)) == {}
        return first

    assert record("a", "b") == {"a": None, "b": None}
    assert record("a") == {"b": sources._gone("b", "one")}
    assert gone(connection) == ["b"]
    assert record("a", "b") == {"b": None}
    assert record("b") == {"a": sources._gone("a", "one")}
    assert gone(connection) == ["a"]


def test_nothing_is_gone_while_its_rule_does_not_answer(
    fleet: Settings, connection: Connection
) -> None:
    """A server that is away says nothing of its databases."""
    sources.record(connection, fleet, found(a="one", b="two"))

    assert sources.record(connection, fleet, found("two")) == {
        "b": sources._gone("b", "two")
    }


def test_an_older_search_does_not_overrule_a_newer_one(
    fleet: Settings, connection: Connection
) -> None:
    """A worker asked before a database was made, and says so after another found it."""
    sources.record(connection, fleet, found(a="one", b="one"))
    older = found(b="one")
    sources.record(connection, fleet, found(a="one", new="one"))

    assert sources.record(connection, fleet, older) == {}

    assert gone(connection) == ["b"]


def test_what_a_rule_found_before_it_failed_does_not_come_back(
    fleet: Settings, connection: Connection
) -> None:
    """A worker that cannot ask keeps it; another has seen that it is gone."""
    sources.record(connection, fleet, found(a="one", b="one"))
    sources.record(connection, fleet, found(b="one"))
    away = found("two", "away", a="one", b="one")

    assert sources.record(connection, fleet, away) == {}

    assert gone(connection) == ["a"]


def test_a_report_that_breaks_off_is_made_by_the_next(
    fleet: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it: what was noted and not told would never be told."""
    told: list[str] = []
    journal = cast(Any, SimpleNamespace(discovered=lambda name, *_: told.append(name)))
    monkeypatch.setattr(sources, "find", lambda *_, **__: found(a="one"))
    search = Search(fleet, b"", labels=["default"], wake=lambda: None)
    until(lambda: search.look() and search.found)
    search.look()

    with monkeypatch.context() as breaks:
        breaks.setattr(sources, "_faults", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search.record(connection, journal)
    search.record(connection, journal)
    search.close()

    assert told == ["a"]


def test_what_others_found_stays_known_after_each_search(
    fleet: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the queue is asked again: their jobs would fail for good."""
    journal = cast(Any, SimpleNamespace(discovered=lambda *_: None))
    sources.record(connection, fleet, found(b="two"))
    monkeypatch.setattr(sources, "find", lambda *_, **__: found("one", a="one"))
    monkeypatch.setattr(sources, "_EVERY_SECONDS", 0.0)
    search = Search(fleet, b"", labels=["default"], wake=lambda: None)
    until(lambda: search.look() and search.found)
    search.look()
    search.record(connection, journal)
    first = search.found

    until(lambda: search.look() and search.found is not first)
    search.look()
    known = tomllib.loads(search.configuration("").decode())["databases"]
    search.close()

    assert set(known) == {"a", "b"}


def test_another_rule_may_find_a_source(
    fleet: Settings, connection: Connection
) -> None:
    """A rule was renamed, or a database was moved to another server."""
    sources.record(connection, fleet, found(a="one"))

    assert sources.record(connection, fleet, found(a="two")) == {}
    assert query(connection, "SELECT name, rule FROM sources") == [("a", "two")]


def test_what_the_configuration_lists_is_not_gone(
    fleet: Settings, connection: Connection
) -> None:
    """Somebody has moved it there from a rule."""
    sources.record(connection, fleet, found(folder="one", a="one"))

    assert sources.record(connection, fleet, found()) == {
        "a": sources._gone("a", "one")
    }


def test_what_was_gone_and_is_listed_is_there(
    fleet: Settings, connection: Connection
) -> None:
    """Somebody has moved it there from a rule, and its jobs are not cancelled."""
    both = found(a="one", b="one")
    sources.record(connection, fleet, both)
    sources.record(connection, fleet, found(b="one"))
    listing = fleet.model_copy(update={"databases": {"a": both.databases["a"]}})
    _queue(connection, listing, "a")

    changes = sources.record(connection, listing, found(b="one"))

    assert changes == {"a": None}
    assert _queued(connection) == [("a", "todo")]


def test_the_sources_of_a_rule_that_was_removed_are_gone_after_a_day(
    fleet: Settings, connection: Connection
) -> None:
    """Not at once: workers that were not restarted yet still find them."""
    sources.record(connection, fleet, found(a="one", b="two"))
    without = fleet.model_copy(update={"discover": {"two": fleet.discover["two"]}})
    other = found("two", b="two")

    assert sources.record(connection, without, other) == {}

    connection.execute("UPDATE sources SET last_seen = last_seen - interval '2 days'")
    assert sources.record(connection, without, other) == {
        "a": sources._gone("a", "one")
    }


def test_what_is_gone_is_listed_until_somebody_confirms_it(
    fleet: Settings, connection: Connection
) -> None:
    """Then it is forgotten; should it come again, it is new."""
    sources.record(connection, fleet, found(a="one", b="one"))
    sources.record(connection, fleet, found(b="one"))
    for name in ("b", "none"):
        with pytest.raises(UsageError, match=f"no source {name} is gone"):
            sources.confirm_gone(connection, name)

    sources.confirm_gone(connection, "a")

    assert query(connection, "SELECT name FROM sources") == [("b",)]
    both = found(a="one", b="one")
    assert sources.record(connection, fleet, both) == {"a": None}


def test_what_is_gone_is_not_backed_up_any_more(
    fleet: Settings, connection: Connection
) -> None:
    """Its jobs that wait are cancelled; nobody would do them, and nobody could."""
    both = found(a="one", b="one")
    sources.record(connection, fleet, both)
    _queue(connection, with_found(fleet, both), "a", "b")

    sources.record(connection, fleet, found(a="one"))

    assert _queued(connection) == [("a", "todo"), ("b", "cancelled")]


def _queue(connection: Connection, settings: Settings, *names: str) -> None:
    """Put backups into the queue."""
    zone = ZoneInfo("UTC")
    due = [
        (
            Job(operation="backup", line="@daily", zone=zone, source=name),
            datetime(2026, 1, 31, tzinfo=zone),
        )
        for name in names
    ]
    defer(connection, settings, due)


def _queued(connection: Connection) -> list[Any]:
    """Return the sources of the jobs, and their states."""
    return query(
        connection, "SELECT args ->> 'source', status::text FROM procrastinate_jobs"
    )


def test_workers_of_other_labels_know_what_was_found(
    fleet: Settings, connection: Connection
) -> None:
    """The one that ticks puts the jobs of all into the queue."""
    sources.record(connection, fleet, found(a="one", b="two", folder="two"))
    sources.record(connection, fleet, found("two", folder="two", b="two"))
    sources.record(connection, fleet, found("one"))

    known = sources.with_known(connection, fleet)

    assert set(known.databases) == {"b"}
    assert known.databases["b"].resolve_url() == "postgresql://unknown.invalid"


def test_a_rule_that_fails_is_reported_once_when_it_lasts(
    fleet: Settings, connection: Connection
) -> None:
    """So is its end; a restart of its server is nobody's business."""
    hide("battery-staple")

    def away() -> Found:
        return found("two", "no battery-staple")

    def record(what: Found) -> dict[str, Failure | None]:
        return sources.record(connection, fleet, what)

    def later() -> None:
        connection.execute("UPDATE rules SET since = since - interval '16 minutes'")

    assert record(away()) == record(found()) == {}
    later()
    assert record(away()) == {}
    later()
    assert record(away()) == {"rule one": sources._failing("no ***")}
    later()
    assert record(away()) == {}
    rows = query(
        connection, "SELECT name, fault, answered_at < now() FROM rules ORDER BY 1"
    )
    assert rows == [("one", "no ***", True), ("two", "", True)]
    older = away()
    assert record(found()) == {"rule one": None}
    assert record(older) == record(found()) == {}
    later()
    # What was asked before says nothing of the rule now.
    assert record(older) == {}
    assert query(connection, "SELECT fault FROM rules WHERE name = 'one'") == [("",)]


def test_a_worker_queues_what_others_have_found(
    fleet: Settings, connection: Connection
) -> None:
    """For the workers of that label, with the schedule of the rule."""
    sources.record(connection, fleet, found(a="one", b="two"))
    rules = {name: rule | {"schedule": "@daily"} for name, rule in RULES.items()}
    rules["two"] |= {"label": "far"}
    scheduled = Settings.model_validate({"discover": rules})

    Ticker().tick(connection, scheduled)

    queued = "SELECT args ->> 'source', queue_name FROM procrastinate_jobs"
    assert set(query(connection, queued)) >= {("a", "default"), ("b", "far")}


@dataclass(frozen=True)
class Night:
    """A fleet whose workers find databases by a rule, and end when all is done."""

    folder: Path
    server: str
    queue: str

    def opskit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opskit", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def work(self) -> str:
        done = self.opskit("fleet-worker", "--until-idle", "--capacity", "3")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def execute(self, statement: str) -> None:
        with connect(self.server, purpose="test") as connection:
            database.run_script(connection, statement)

    @property
    def sets(self) -> list[str]:
        manifests = (self.folder / "store").glob("*/*/*/manifest.json")
        return sorted(json.loads(each.read_bytes())["source"] for each in manifests)

    def ledger(self, operation: str) -> list[tuple[str, str]]:
        lines = (self.folder / ".opskit/ledger.jsonl").read_text().splitlines()
        records = [json.loads(each) for each in lines]
        return [
            (each["details"]["source"], each["outcome"])
            for each in records
            if each["operation"] == operation
        ]

    @property
    def all_in_the_queue(self) -> str:
        with connect(self.queue, purpose="test") as connection:
            names = query(
                connection,
                "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace = 'opskit_fleet'::regnamespace",
            )
            rows = [
                user_query(connection, f"SELECT t::text FROM {name} t")
                for (name,) in names
            ]
        return str(rows)


@pytest.fixture
def night(tmp_path: Path, make_database: MakeDatabase) -> Night:
    """One night: every run of it is due, once."""
    server, fleet = make_database(script="SELECT 1"), make_database(script="SELECT 1")
    with queue.session(
        FleetSettings.model_validate({"url": fleet}), "test"
    ) as connection:
        queue.init(connection)
    (tmp_path / "store").mkdir()
    past = datetime.now(UTC) - timedelta(hours=2)  # not due again while this runs
    told, path = tmp_path / "told", tmp_path / "databases.json"
    path.write_text(json.dumps({"filed": f"{server}&password={PASSWORD}"}))
    (tmp_path / "opskit.toml").write_text(
        f"""
        [stores.local]
        url = "{(tmp_path / "store").as_uri()}"
        [fleet]
        url = {json.dumps(fleet)}
        dead_after = "12s"
        retries = 0
        [scheduler]
        listen = ""
        verify = ""
        drill = ""
        report = ""
        prune = ""
        [hooks]
        failed = [["sh", "-c", "cat >>{told}; echo >>{told}"]]
        [discover.here]
        url = {json.dumps(server)}
        pattern = ["night*"]
        schedule = "{past.minute} {past.hour} * * *"
        [discover.there]
        file = "{path}"
        schedule = "{past.minute} {past.hour} * * *"
        """
    )
    return Night(tmp_path, server, fleet)


def test_a_database_that_appears_is_backed_up_the_same_night(night: Night) -> None:
    """One that is dropped is reported once, its sets stay, and it can be restored."""
    night.execute("CREATE DATABASE night_a")
    night.execute('CREATE DATABASE "Night B"')

    words = night.work()
    assert night.sets == ["filed", "night_a"]
    assert sorted(night.ledger("discover")) == [("filed", "ok"), ("night_a", "ok")]

    night.execute("CREATE DATABASE night_b")
    (night.folder / "databases.json").write_text('{"filed": "postgresql://')
    words += night.work()
    assert night.sets == ["filed", "night_a", "night_b"]
    assert words.count("databases.json cannot be used: Unterminated string") == 1

    night.execute("DROP DATABASE night_b")
    words += night.work()
    assert night.ledger("discover")[-1] == ("night_b", "failed")
    gone = "night_b is gone: discover.here does not find it any more"
    assert words.count(gone) == 1
    told = (night.folder / "told").read_text().splitlines()
    assert [json.loads(each)["error"] for each in told] == [gone]

    restored = night.opskit(
        "restore", "--backup", "latest", "--database", "night_b", "--to", "night_b"
    )
    assert restored.returncode == 0, restored.stderr
    assert "night_a" in night.all_in_the_queue
    assert PASSWORD not in words + night.all_in_the_queue
