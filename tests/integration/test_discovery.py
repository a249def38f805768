"""Discovery: what rules find on real servers, in queries and in files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit import config
from opskit.config import DatabaseSettings, Settings, SourceRetention
from opskit.errors import DatabaseError, UsageError
from opskit.log import mask
from opskit.operations import discovery
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.discovery import Found, as_configuration, find, with_found
from opskit.operations.doctor import doctor
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.prune import PruneRequest, prune
from opskit.operations.restore import RestoredDatabase, RestoreSetRequest, restore
from opskit.operations.run import begin
from opskit.postgres import database, scratch
from opskit.postgres.connect import connect, query_value, quoted
from opskit.postgres.servers.throwaway import Server
from opskit.watch.gathering import Gathering
from tests.conftest import MajorServer

ODD = "found \"Über\" 'Shop'"
MADE = (
    "found_shop",
    "found_orders",
    "found_template",
    "found_closed",
    "found_half",
    ODD,
)
AWAY = "postgresql://nobody@127.0.0.1:9/none"
# A role that may not do anything can still see which databases there are.
PATTERN = ["found*", f"!{ODD}"]


@pytest.fixture(scope="module")
def server(server_of: MajorServer) -> Iterator[Server]:
    """A server with two ordinary databases and four that cannot be sources."""
    running = server_of(16)
    with connect(running.url(), purpose="test") as connection:
        for name in MADE:
            database.run_script(connection, f"CREATE DATABASE {quoted(name)}")
        script = (
            "ALTER DATABASE found_template IS_TEMPLATE true;"
            "ALTER DATABASE found_closed ALLOW_CONNECTIONS false;"
            # What a DROP DATABASE leaves that was interrupted.
            "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'found_half'"
        )
        database.run_script(connection, script)
    with connect(running.url("found_shop"), purpose="test") as connection:
        database.run_script(
            connection, "CREATE TABLE public.tenants AS SELECT 'x' AS name"
        )
    yield running
    with connect(running.url(), purpose="test") as connection:
        script = "ALTER DATABASE found_template IS_TEMPLATE false"
        database.run_script(connection, script)
        for name in MADE:
            database.drop(connection, name)


def settings(rules: dict[str, dict[str, Any]], **others: Any) -> Settings:
    return Settings.model_validate({"discover": rules, **others})


def words(found: Found) -> dict[str, str]:
    return {name: error.message for name, error in found.faults.items()}


def test_a_pattern_finds_the_databases_of_a_server(server: Server) -> None:
    """Neither templates nor what takes no connections; the URL leads to each."""
    rule = {"url": server.url(), "pattern": PATTERN}

    found = find(settings({"here": rule}))

    assert set(found.databases) == {"found_shop", "found_orders"}
    assert set(found.rules.values()) == set(found.answered) == {"here"}
    assert not found.faults
    for name, each in found.databases.items():
        with connect(each.resolve_url(), purpose="test") as connection:
            assert query_value(connection, "SELECT current_database()") == name


def test_what_a_pattern_leaves_out_is_not_found(server: Server) -> None:
    """Whatever the order of the patterns is."""
    rule = {"url": server.url(), "pattern": ["!*_shop", "found_*"]}

    assert set(find(settings({"here": rule})).databases) == {"found_orders"}


@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": ["found_*"]},
        {"query": "SELECT datname FROM pg_database WHERE datname LIKE 'found_%'"},
    ],
    ids=["pattern", "query"],
)
def test_the_copy_of_a_restore_that_goes_on_is_no_source(
    server: Server, rule: dict[str, Any]
) -> None:
    """It would be backed up half full, and reported as gone when it gets its name."""
    rule = {"url": server.url(), **rule}
    name = "found_shop_restoring_0a1b2c3d"
    with connect(server.url(), purpose="test") as connection:
        database.run_script(connection, f"CREATE DATABASE {name}")
        try:
            assert name in find(settings({"here": rule})).databases
            scratch.mark(connection, name, "a1b2c3d4e5f6")
            assert name not in find(settings({"here": rule})).databases
        finally:
            database.drop(connection, name)


def test_a_name_that_is_no_source_is_reported_and_the_others_are_found(
    server: Server,
) -> None:
    """Quotes, capitals, blanks: nothing of it is dropped in silence."""
    rule = {"url": server.url(), "pattern": ["found*"]}

    found = find(settings({"here": rule}))

    assert set(found.databases) == {"found_shop", "found_orders"}
    assert found.answered == {"here"}
    assert words(found) == {
        "here": f"discover.here finds what is not backed up: {ODD!r} (no name for a "
        "source)"
    }


def test_only_the_first_of_many_useless_names_are_shown(tmp_path: Path) -> None:
    """A line of a log is no place for two hundred of them."""
    path = tmp_path / "found.json"
    names = ["shop", *(f"Shop {number}" for number in range(200))]
    path.write_text(json.dumps(dict.fromkeys(names, AWAY)))

    (fault,) = words(find(settings({"here": {"file": path}}))).values()

    assert fault.endswith("'Shop 4' (no name for a source) and 195 more")


def test_two_sources_never_share_a_name(server: Server) -> None:
    """The configuration comes first, then the rules in their order."""
    rule = {"url": server.url(), "pattern": PATTERN}
    listed = {"found_orders": {"url": AWAY}}

    found = find(settings({"one": rule, "two": rule}, databases=listed))

    assert found.rules == {"found_shop": "one"}
    assert found.answered == {"one", "two"}
    assert "'found_orders' (the name is taken by a section)" in words(found)["one"]
    assert "'found_shop' (the name is taken by discover.one)" in words(found)["two"]
    folder = {"found_shop": {"path": "/tmp/x"}}
    assert "found_shop" not in find(settings({"one": rule}, files=folder)).rules


def test_a_prefix_keeps_the_names_of_two_servers_apart(server: Server) -> None:
    """The prefix belongs to the source, not to the database."""
    rule = {"url": server.url(), "pattern": PATTERN}

    found = find(settings({"one": rule, "two": rule | {"prefix": "eu-"}}))

    assert {**found.rules} == {
        "found_shop": "one",
        "found_orders": "one",
        "eu-found_shop": "two",
        "eu-found_orders": "two",
    }
    url = found.databases["eu-found_shop"].resolve_url()
    with connect(url, purpose="test") as connection:
        assert query_value(connection, "SELECT current_database()") == "found_shop"


def test_a_query_says_which_databases_there_are(server: Server) -> None:
    """Once each, in the order of the query, with tables by their schema."""
    rule = {
        "url": server.url("found_shop"),
        "query": "SELECT datname, 1 FROM pg_database, public.tenants "
        "WHERE datname IN ('found_shop', 'found_orders') ORDER BY 1 DESC",
    }

    found = find(settings({"here": rule}))

    assert [*found.databases] == ["found_shop", "found_orders"]
    assert not found.faults


def test_what_a_query_names_must_exist(server: Server) -> None:
    """NULL, a database that was dropped, and a template: all are reported."""
    values = "('found_shop'), (NULL), ('found_dropped'), ('found_template')"
    rule = {"url": server.url(), "query": f"VALUES {values}"}

    found = find(settings({"here": rule}))

    assert set(found.databases) == {"found_shop"}
    assert words(found)["here"].removeprefix("discover.here ") == (
        "finds what is not backed up: None (no database to connect to), "
        "'found_dropped' (no database to connect to), "
        "'found_template' (no database to connect to)"
    )


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT datname FROM pg_database WHERE false", "no database is found"),
        ("SELECT nothing FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT", "no database is found, only None (no database to connect to)"),
        ("DELETE FROM public.tenants RETURNING name", "read-only transaction"),
        ("SET work_mem = '1MB'", "didn't produce records"),
        ("SELECT 1", "1 (no database to connect to)"),
        ("SELECT ARRAY['a']", "\"['a']\" (no database to connect to)"),
        ("SELECT pg_sleep(60)", "statement timeout"),
    ],
)
def test_a_query_that_is_no_use_is_a_fault(
    statement: str, said: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may fail, return nothing, write or never end: other rules go on."""
    monkeypatch.setattr(discovery, "_SECONDS_MAX", 0.5)
    bad = {"url": server.url("found_shop"), "query": statement}
    good = {"url": server.url(), "pattern": PATTERN}

    found = find(settings({"bad": bad, "good": good}))

    assert said in words(found)["bad"]
    assert words(found)["bad"].startswith("discover.bad: ")
    assert found.answered == {"good"}
    assert set(found.rules.values()) == {"good"}


WHOLE = '{"shop": "postgresql://ops:hunter22@db.example/shop"}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"{}", "no database is found"),
        (WHOLE[:-1].encode(), "Expecting ',' delimiter"),
        (WHOLE[:30].encode(), "Unterminated string"),
        (b"\x00" * 10, "can't decode"),
        (b"\xff\xfe{", "can't decode"),
        (b"[" * 100_000, "recursion"),
        (b'["shop"]', "it is no JSON object"),
        (b'{"shop": 7}', "'shop' has no URL that begins with postgresql://"),
        (b'{"shop": "mysql://ops:hunter22@x/y"}', "'shop' has no URL that begins"),
        (b'{"shop": "postgresql://ops:hunter22@[x/y"}', "is not valid"),
        (b'{"a": "postgresql://x/a", "a": "postgresql://x/b"}', "stands there twice"),
        (b" " * 20_000_000, "it is larger than"),
        (None, "there is no such file"),
    ],
)
def test_a_file_that_is_not_whole_makes_nothing_vanish(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    """What it said before is kept, and its secrets are not shown."""
    path = tmp_path / "found.json"
    path.write_text(WHOLE)
    rules = settings({"here": {"file": path}})
    before = find(rules)
    assert set(before.databases) == {"shop"}
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    found = find(rules, before=before)

    assert words(found)["here"].startswith(
        f"discover.here: {path} cannot be used: "
    ) or (said == "no database is found")
    assert said in words(found)["here"]
    assert "hunter22" not in str(found.faults["here"])
    assert not found.answered
    assert found.databases == before.databases
    assert found.rules == before.rules


def test_a_file_that_vanishes_while_it_is_read_is_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another message would count as another fault, and be reported once more."""
    rules = settings({"here": {"file": tmp_path / "found.json"}})
    gone = words(find(rules))
    monkeypatch.setattr(Path, "is_file", lambda _path: True)

    assert words(find(rules)) == gone


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write into it."""
    path = tmp_path / "found.json"
    os.mkfifo(path)

    assert "no such file" in words(find(settings({"here": {"file": path}})))["here"]


def test_a_server_that_is_away_keeps_what_was_known(server: Server) -> None:
    """The rule is reported, and another is asked all the same."""
    rule = {"url": server.url(), "pattern": PATTERN}
    before = find(settings({"here": rule}))
    gone = rule | {"url": AWAY}

    found = find(settings({"here": gone, "too": rule | {"prefix": "x"}}), before=before)

    assert isinstance(found.faults["here"], DatabaseError)
    assert words(found)["here"].startswith("discover.here: database none: ")
    assert found.answered == {"too"}
    assert {name for name, rule in found.rules.items() if rule == "here"} == {
        "found_shop",
        "found_orders",
    }
    assert set(find(settings({"here": gone})).databases) == set()


def test_only_the_rules_of_some_labels_are_asked(server: Server) -> None:
    """A worker does not reach every server."""
    rule = {"url": server.url(), "pattern": PATTERN}
    away = {"url": AWAY, "pattern": PATTERN, "label": "far"}

    found = find(settings({"here": rule, "far": away}), labels=["default"])

    assert found.answered == {"here"}
    assert not found.faults


def test_what_was_found_can_be_listed_in_a_configuration(
    server: Server, tmp_path: Path
) -> None:
    """A job gets it as text, to the last odd character, and reads the same."""
    odd = "public.\"Ü\" 'x' \\ \x7f \t 😀"
    written = json.dumps([odd, "b"], ensure_ascii=False).replace("\x7f", "\\u007f")
    path = tmp_path / "opskit.toml"
    path.write_text(
        f"""
        [discover.here]
        url = {json.dumps(server.url())}
        pattern = {json.dumps(PATTERN)}
        schedule = "0 2 * * *"
        max_age = "90m"
        label = "eu"
        exclude_tables = {written}
        retention = {{ keep_last = 3, keep_within = "2d" }}
        restore_url_file = "/run/secrets/restore"
        """
    )
    given = config.load(path)
    found = find(given)
    path.write_bytes(path.read_bytes() + as_configuration(found.databases))

    read = config.load(path)

    assert read.databases == found.databases == with_found(given, found).databases
    shop = read.databases["found_shop"]
    assert type(shop) is DatabaseSettings
    assert (shop.schedule, shop.label) == ("0 2 * * *", "eu")
    assert shop.max_age == timedelta(minutes=90)
    assert shop.exclude_tables == [odd, "b"]
    assert shop.retention == SourceRetention(keep_last=3, keep_within=timedelta(days=2))
    assert shop.restore_url_file == Path("/run/secrets/restore")


def test_a_password_is_masked_wherever_it_goes(tmp_path: Path) -> None:
    """That of a rule, and those of the URLs in a file."""
    path = tmp_path / "found.json"
    path.write_text('{"shop": "postgresql://ops:correct-horse@127.0.0.1:9/shop"}')
    url = "postgresql://ops:battery-staple@127.0.0.1:9/x"
    run = begin(settings({"a": {"file": path}, "b": {"url": url, "pattern": ["*"]}}))

    assert mask("battery-staple") == "***"
    assert set(run.found.databases) == {"shop"}
    assert mask("correct-horse battery-staple") == "*** ***"
    assert "horse" not in repr(run.found)


def stored(tmp_path: Path, rules: dict[str, dict[str, Any]]) -> Settings:
    """Return settings with a store and a state folder."""
    store = tmp_path / "store"
    store.mkdir()
    return settings(
        rules,
        stores={"local": {"url": store.as_uri()}},
        state_dir=tmp_path / "state",
    )


def test_what_is_found_is_backed_up_drilled_and_restored(
    server: Server, tmp_path: Path
) -> None:
    """By its name, as if it were listed; once it is gone its pattern leads there."""
    rule = {"url": server.url(), "pattern": PATTERN}
    configured = stored(
        tmp_path, {"here": rule, "away": {"url": AWAY, "pattern": ["*"]}}
    )

    every = backup(begin(configured), BackupRequest())

    assert every.result
    assert [each.subject for each in every.result.sources] == [
        "found_orders",
        "found_shop",
    ]
    assert every.errors[0].exit_code == DatabaseError.exit_code
    assert every.errors[0].message.startswith("discover.away: database none: ")
    one = backup(begin(configured), BackupRequest(database="found_shop"))
    assert not one.errors
    drilled = drill(begin(configured), RestoreDrillRequest(database="found_shop"))
    assert drilled.result
    assert drilled.result.evidence.passed
    state = Gathering(begin(configured))()
    assert {each.name: (each.error, len(each.sets)) for each in state.sources} == {
        "found_orders": ("", 1),
        "found_shop": ("", 2),
    }
    pruned = prune(begin(configured), PruneRequest(dry_run=True))
    assert pruned.result
    assert len(pruned.result.as_json()["keep"]) == 3

    with connect(server.url(), purpose="test") as connection:
        database.drop(connection, "found_shop")
    only = configured.model_copy(
        update={"discover": {"here": configured.discover["here"]}}
    )
    wanted = RestoreSetRequest(at="2999-01-01", database="found_shop", to="found_shop")
    restored = restore(begin(only), wanted)
    assert not restored.errors
    assert isinstance(restored.result, RestoredDatabase)
    assert restored.result.restored.tables == 1


def test_a_database_that_is_gone_is_looked_for_in_one_place_only(
    server: Server,
) -> None:
    """Where two patterns take its name, a restore must not choose a server."""
    rule = {"url": server.url(), "pattern": PATTERN}
    gone = "found_dropped"

    one = begin(settings({"here": rule, "more": rule | {"prefix": "eu-"}}))
    assert "dbname=found_dropped" in one.database(gone).resolve_url()
    assert "dbname=found_dropped" in one.database(f"eu-{gone}").resolve_url()

    for run in (begin(settings({"a": rule, "b": rule})), begin(settings({}))):
        with pytest.raises(UsageError, match=f"no database {gone} is configured"):
            run.database(gone)


def test_doctor_asks_each_rule(server: Server, tmp_path: Path) -> None:
    """How many databases it finds, or what is wrong with it; and if none is due."""
    rule: dict[str, Any]
    rule = {"url": server.url(), "pattern": PATTERN, "schedule": "@daily"}
    file = {"file": tmp_path / "none.json"}
    rules = {"here": rule, "idle": rule | {"schedule": "", "prefix": "x"}, "bad": file}

    examined = doctor(begin(stored(tmp_path, rules))).result

    assert examined
    here, idle, bad = (e for e in examined.checks if e.name.startswith("discover "))

    assert (here.name, here.status, here.observed, here.hint) == (
        "discover here",
        "healthy",
        "2 databases found",
        "",
    )
    assert idle.passed
    assert idle.hint == "No backup of them is due: set schedule."
    assert bad.status == "unhealthy"
    assert bad.observed.endswith("none.json cannot be used: there is no such file")
    assert bad.hint
