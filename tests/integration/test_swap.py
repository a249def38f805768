"""Copies and the swap: only marked databases are dropped, and pools are kept out."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opskit.errors import DatabaseError
from opskit.postgres import database, scratch
from opskit.postgres.connect import connect, query
from opskit.postgres.inventory import Inventory, Locale
from opskit.postgres.parameters import parse
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from opskit.restore import run as restore_beside
from opskit.restore.run import RestoreRequest, RestoreResult, restore
from tests import initialised
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import LIMITS, back_up, execute, now, sets, value

INVENTORY = Inventory(
    encoding="UTF8",
    locale=Locale(provider="libc", collate="C", ctype="C"),
    owner="nobody here",
)


@pytest.fixture
def running(server_of: MajorServer) -> Iterator[Server]:
    """A server whose databases are the same after the test as before."""
    found = server_of(16)
    before = names(found)
    yield found
    with connect(found.url(), purpose="test") as connection:
        for name in names(found) - before:
            database.allow_connections(connection, name, allowed=True)
            database.drop(connection, name)


def names(running: Server) -> set[str]:
    """Return the names of a server's databases."""
    with connect(running.url(), purpose="test") as connection:
        return {
            name for (name,) in query(connection, "SELECT datname FROM pg_database")
        }


def left_copy(running: Server, name: str, *, closed: int | None = None) -> None:
    """Leave a copy as a killed run does."""
    with connect(running.url(), purpose="test") as connection:
        scratch.create(connection, name, INVENTORY, run_id="dead01")
        scratch.mark(connection, name, "dead01", closed=closed)
        pid = connection.info.backend_pid
    # A server ends a session after its client: until then the copy is in use.
    ended = f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}"
    deadline = time.monotonic() + 60
    while not value(running.url(), ended) and time.monotonic() < deadline:
        time.sleep(0.05)


def is_open(running: Server, name: str) -> bool:
    """Tell whether a database accepts sessions."""
    return bool(
        value(
            running.url(),
            f"SELECT datallowconn FROM pg_database WHERE datname = '{name}'",
        )
    )


@contextmanager
def pool(url: str, size: int) -> Iterator[list[int]]:
    """Keep sessions in a database that come back at once; yield how often each did."""
    stopping = threading.Event()
    returned = [0] * size

    def hold(number: int) -> None:
        parameters: dict[str, Any] = parse(url)
        while not stopping.is_set():
            with (
                suppress(psycopg.Error),
                psycopg.connect(**parameters, connect_timeout=5) as session,
            ):
                returned[number] += 1
                while not stopping.wait(0.05):
                    session.execute("SELECT 1")

    threads = [threading.Thread(target=hold, args=(each,)) for each in range(size)]
    for each in threads:
        each.start()
    try:
        yield returned
    finally:
        stopping.set()
        for each in threads:
            each.join()


@pytest.mark.parametrize(
    "name",
    [
        "live_restoring_20261128",
        "live_restoring_deadbeef",
        "opskit_drill_0123456789ab",
        "opskit_drill_0123456789ab_reference",
    ],
)
def test_no_database_is_dropped_for_its_name(name: str, running: Server) -> None:
    """A user may call a database anything, also an empty one."""
    execute(running.url(), f"CREATE DATABASE {name}")

    with connect(running.url(), purpose="test") as connection:
        restore_beside.sweep(connection, running.url(), "live")
        scratch.sweep(connection, running.url(), looks_like="opskit_drill_.*")
        scratch.drop_copy(connection, running.url(), name)

    assert name in names(running)


def test_what_a_killed_run_left_is_dropped_whatever_its_name(running: Server) -> None:
    """The mark decides, not the name."""
    left_copy(running, "anything at all")

    with connect(running.url(), purpose="test") as connection:
        restore_beside.sweep(connection, running.url(), "live")

    assert "anything at all" not in names(running)


@pytest.mark.parametrize("how", ["renamed", "comment copied", "comment changed"])
def test_a_mark_is_bound_to_its_database(how: str, running: Server) -> None:
    """A copy that somebody keeps under another name is theirs, and so is its twin."""
    left_copy(running, "a copy")
    described = "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
    text = value(running.url(), f"{described} WHERE datname = 'a copy'")
    if how == "renamed":
        execute(running.url(), 'ALTER DATABASE "a copy" RENAME TO kept')
    elif how == "comment copied":
        execute(running.url(), "CREATE DATABASE kept")
        execute(running.url(), f"COMMENT ON DATABASE kept IS '{text}'")
    else:
        execute(running.url(), 'ALTER DATABASE "a copy" RENAME TO kept')
        execute(running.url(), "COMMENT ON DATABASE kept IS 'mine now'")

    with connect(running.url(), purpose="test") as connection:
        restore_beside.sweep(connection, running.url(), "live")

    assert "kept" in names(running)
    assert "a copy" not in names(running)


@pytest.mark.parametrize("held_by", ["the run that made it", "a session inside"])
def test_a_copy_in_use_stays(held_by: str, running: Server) -> None:
    """Another host restores into the same server."""
    with ExitStack() as stack:
        other = stack.enter_context(connect(running.url(), purpose="another run"))
        scratch.create(other, "busy", INVENTORY, run_id="alive1")
        if held_by == "a session inside":
            stack.enter_context(connect(running.url("busy"), purpose="another run"))
            other.close()
        with connect(running.url(), purpose="test") as connection:
            restore_beside.sweep(connection, running.url(), "live")
        assert "busy" in names(running)


def test_the_sets_own_comment_outlives_the_mark(
    make_database: MakeDatabase, running: Server, store_dir: Path
) -> None:
    """After the swap the database has the comment of the source, and no mark."""
    url = make_database(16)
    name = parse(url)["dbname"]
    execute(url, f"""COMMENT ON DATABASE "{name}" IS '[opskit copy] it''s a shop'""")
    back_up(url, store_dir)

    run_restore(sets(store_dir)[0], running, "commented")
    run_restore(sets(store_dir)[0], running, "commented", replace=True)

    described = "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
    text = value(running.url(), f"{described} WHERE datname = 'commented'")
    assert text == "[opskit copy] it's a shop"


@pytest.mark.parametrize("size", [20, 50])
def test_a_pool_that_reconnects_without_pause_does_not_stop_the_swap(
    size: int, make_database: MakeDatabase, running: Server, store_dir: Path
) -> None:
    """Everybody is kept out, and finds the restored database a moment later."""
    url = make_database(16)
    back_up(url, store_dir)
    execute(url, "TRUNCATE public.orders CASCADE")

    with pool(url, size) as returned:
        result = run_restore(
            sets(store_dir)[0], running, parse(url)["dbname"], replace=True
        )
        # On a busy machine the pool may still be on its way back.
        deadline = time.monotonic() + 60
        while sum(returned) <= size and time.monotonic() < deadline:
            time.sleep(0.05)

    assert sum(returned) > size
    assert result.replaced is not None
    assert value(url, "SELECT count(*) FROM public.orders") == 500
    assert (
        value(running.url(result.replaced), "SELECT count(*) FROM public.orders") == 0
    )


def test_a_failed_swap_lets_sessions_in_again(
    make_database: MakeDatabase,
    running: Server,
    store_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever stops it, the old database serves on, and the copy is gone."""
    url = make_database(16)
    name = parse(url)["dbname"]
    back_up(url, store_dir)
    before = names(running)

    def refuse(*_arguments: object) -> None:
        assert not is_open(running, name)
        raise DatabaseError("renaming: refused")

    monkeypatch.setattr(scratch, "_rename", refuse)
    with pytest.raises(DatabaseError, match="renaming: refused"):
        run_restore(sets(store_dir)[0], running, name, replace=True)

    assert is_open(running, name)
    assert names(running) == before


def test_a_database_that_a_killed_swap_left_closed_is_opened(
    make_database: MakeDatabase, running: Server
) -> None:
    """The mark of the copy says which one it was."""
    url = make_database(16)
    name = parse(url)["dbname"]
    oid = value(url, "SELECT oid FROM pg_database WHERE datname = current_database()")
    left_copy(running, "left", closed=oid)
    with connect(running.url(), purpose="test") as connection:
        for each in (name, "left"):
            database.allow_connections(connection, each, allowed=False)

        restore_beside.sweep(connection, running.url(), "something else")

    assert is_open(running, name)
    assert "left" not in names(running)


KILLED = """
import os, signal, sys
from pathlib import Path
from opskit.postgres import scratch
from opskit.postgres.servers import programs
from opskit.restore.run import RestoreRequest, restore
from tests.support import LIMITS, now, sets

scratch._rename_when_free = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
restore(
    RestoreRequest(
        chosen=sets(Path(sys.argv[1]))[0], server_url=sys.argv[2], target=sys.argv[3],
        run_id="killed", replace=True, installations=programs.installations(),
        limits=LIMITS,
    ),
    clock=now,
)
"""


def test_after_a_kill_in_the_swap_the_next_run_opens_the_database(
    make_database: MakeDatabase, running: Server, store_dir: Path
) -> None:
    """SIGKILL when nobody is let in any more: nothing is lost, nothing stays closed."""
    url = make_database(16)
    name = parse(url)["dbname"]
    back_up(url, store_dir)
    execute(url, "TRUNCATE public.orders CASCADE")
    before = names(running)

    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store_dir), running.url(), name],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    was_open = is_open(running, name)
    deadline = time.monotonic() + 60
    while names(running) != before:  # the killed run's session ends a moment later
        assert time.monotonic() < deadline
        with connect(running.url(), purpose="test") as connection:
            restore_beside.sweep(connection, running.url(), "another")

    assert done.returncode == -signal.SIGKILL
    assert not was_open
    assert is_open(running, name)
    assert value(url, "SELECT count(*) FROM public.orders") == 0


@pytest.fixture
def plain(running: Server) -> Iterator[str]:
    """A database that a role owns which may create databases and nothing more."""
    execute(running.url(), "CREATE ROLE restorer LOGIN CREATEDB")
    execute(running.url(), "CREATE DATABASE plain OWNER restorer")
    url = running.url("plain").replace(throwaway.SUPERUSER, "restorer")
    execute(url, "CREATE TABLE public.t AS SELECT generate_series(1, 500) i")
    yield url
    with connect(running.url(), purpose="test") as connection:
        owned = query(
            connection,
            "SELECT datname FROM pg_database WHERE datdba = 'restorer'::regrole",
        )
        for (name,) in owned:
            database.drop(connection, name)
        connection.execute("DROP ROLE restorer")


def restore_plain(store_dir: Path, url: str) -> RestoreResult:
    """Replace the database with its owner's rights."""
    request = RestoreRequest(
        chosen=sets(store_dir)[0],
        server_url=url,
        target="plain",
        run_id="abc123",
        replace=True,
        installations=programs.installations(),
        limits=LIMITS,
    )
    return restore(request, clock=now)


def test_a_superusers_session_is_named_before_anything_is_read(
    plain: str, running: Server, store_dir: Path
) -> None:
    """A monitor that a mere owner may not end would stop the swap at the end."""
    manifest = back_up(plain, store_dir).manifest
    (store_dir / manifest.object("dump").key).unlink()

    with (
        connect(running.url("plain"), purpose="monitor"),
        pytest.raises(DatabaseError, match="session of the role opskit_throwaway"),
    ):
        restore_plain(store_dir, plain)


def test_a_superusers_session_that_comes_late_costs_no_restored_copy(
    plain: str, running: Server, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came while the copy was loaded: the copy is kept, and the steps are told."""
    back_up(plain, store_dir)
    monkeypatch.setattr(scratch, "_SECONDS_MAX", 0.0)
    with ExitStack() as stack:
        real = restore_beside.beside

        def beside(*arguments: Any) -> Any:
            stack.enter_context(connect(running.url("plain"), purpose="monitor"))
            return real(*arguments)

        monkeypatch.setattr(restore_beside, "beside", beside)
        with pytest.raises(DatabaseError, match="while they are in use") as caught:
            restore_plain(store_dir, plain)
        assert is_open(running, "plain")

    kept = str(caught.value.details["kept"])
    assert value(running.url(kept), "SELECT count(*) FROM public.t") == 500
    with connect(running.url(), purpose="test") as connection:
        restore_beside.sweep(connection, running.url(), "plain")
        for statement in caught.value.hint.split(": ", 1)[1].split(";")[:2]:
            connection.execute(statement.encode())
    assert value(plain, "SELECT count(*) FROM public.t") == 500


def test_a_superusers_monitor_that_polls_does_not_stop_the_swap(
    plain: str, running: Server, store_dir: Path
) -> None:
    """Once nobody is let in, its next poll fails, and the rename goes on."""
    back_up(plain, store_dir)
    stopping = threading.Event()

    def poll() -> None:
        while not stopping.wait(0.02):
            with (
                suppress(psycopg.Error),
                psycopg.connect(running.url("plain"), autocommit=True) as session,
            ):
                session.execute("SELECT pg_sleep(0.3)")

    before = scratch.obstacles
    monitor = threading.Thread(target=poll)
    with pytest.MonkeyPatch.context() as patched:
        # It begins when the restore has looked whether it is there.
        def then_poll(*arguments: Any) -> list[str]:
            found = before(*arguments)
            monitor.start()
            return found

        patched.setattr(scratch, "obstacles", then_poll)
        result = restore_plain(store_dir, plain)
    stopping.set()
    monitor.join()

    assert result.replaced is not None


@pytest.fixture(scope="module")
def logical() -> Iterator[Server]:
    """A server with slots and prepared transactions."""
    found = programs.find_server(programs.installations(), major=16)
    settings = {
        "max_prepared_transactions": "2",
        "wal_level": "logical",
        "max_wal_senders": "2",
        "max_replication_slots": "2",
    }
    with initialised.copied(), throwaway.throwaway(found, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    ("statements", "told", "undo"),
    [
        (
            ["BEGIN", "CREATE TABLE b (a int)", "PREPARE TRANSACTION 'half done'"],
            "the prepared transaction half done",
            "ROLLBACK PREPARED 'half done'",
        ),
        (
            ["SELECT pg_create_logical_replication_slot('feed', 'pgoutput')"],
            "the replication slot feed",
            "SELECT pg_drop_replication_slot('feed')",
        ),
        (
            [
                "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere.invalid' "
                "PUBLICATION p WITH (connect = false, slot_name = 'far')",
                "ALTER SUBSCRIPTION sub ENABLE",
            ],
            "the enabled subscription sub",
            "ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub "
            "SET (slot_name = NONE)",
        ),
    ],
)
def test_what_ties_a_database_to_its_name_is_named_first(
    statements: list[str],
    told: str,
    undo: str,
    logical: Server,
    store_dir: Path,
) -> None:
    """The dump is not even looked at."""
    execute(logical.url(), "DROP DATABASE IF EXISTS tied")
    execute(logical.url(), "CREATE DATABASE tied")
    url = logical.url("tied")
    execute(url, "CREATE TABLE public.t (a int)")
    manifest = back_up(url, store_dir).manifest
    (store_dir / manifest.object("dump").key).unlink()
    try:
        with psycopg.connect(url, autocommit=True) as session:
            for each in statements:
                session.execute(each.encode())

        with pytest.raises(DatabaseError, match=told):
            run_restore(sets(store_dir)[0], logical, "tied", replace=True)
    finally:
        for each in undo.split("; "):
            execute(url, each)

    assert is_open(logical, "tied")
