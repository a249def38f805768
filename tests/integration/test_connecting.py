"""How a backup comes to its server: through poolers, past locks, by odd URLs."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from opskit.backup import database as backup_database
from opskit.catalog.manifest import of_database
from opskit.checks import Health
from opskit.doctor import databases
from opskit.errors import BackupFailed, DatabaseError
from opskit.postgres import client
from opskit.postgres import locks as postgres_locks
from opskit.postgres.connect import connect
from opskit.postgres.locks import LockWait
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_client, find_server
from tests.conftest import MakeDatabase
from tests.integration.test_backup_faults import stub
from tests.ports import free_port
from tests.support import back_up, bound, execute, failed, run_drill, sets, value
from tests.unit import stock
from tests.watching import until


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pooled(port: int, settings: str) -> Iterator[str]:
    """Yield a URL that leads through PgBouncer to a server on loopback."""
    program = stock.program("pgbouncer")
    own_port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={port} "
            f"user={throwaway.SUPERUSER}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {own_port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = session\n{settings}\n"
        )
        user = 65534 if os.geteuid() == 0 else -1
        command = [str(program), "-q", f"{folder}/ini"]
        with bound(command, log=Path(folder) / "log", user=user, cwd="/"):
            until(lambda: listens(own_port))
            yield f"postgresql://{throwaway.SUPERUSER}@127.0.0.1:{own_port}/postgres"


def test_a_pooler_that_swallows_the_pins_is_refused(
    store_dir: Path, installations: list[Installation]
) -> None:
    """The dump would have the database's own time zone, and a drill find damage."""
    port = free_port()
    with (
        throwaway.throwaway(
            find_server(installations, major=16),
            port=port,
            settings={"listen_addresses": "127.0.0.1", "TimeZone": "Asia/Tokyo"},
        ) as running,
        pooled(
            port, "ignore_startup_parameters = options,extra_float_digits"
        ) as through,
    ):
        hba = running.folder / "data" / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 trust\nlocal all all trust\n")
        execute(running.url(), "SELECT pg_reload_conf()")
        with pytest.raises(DatabaseError) as refused:
            back_up(through, store_dir)
        found = databases.examine("shop", through, installations).checks

    assert type(refused.value).exit_code == 30
    assert "the connection pooler at 127.0.0.1:" in refused.value.message
    assert "ignore_startup_parameters" in refused.value.hint
    assert [each.status for each in found] == [Health.UNHEALTHY]
    assert "the connection pooler" in found[0].observed
    assert not list(store_dir.iterdir())


def _await_end_of_sessions(url: str, role: str) -> None:
    """Wait until the server counts no session of a role that has just closed them."""
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"
    deadline = time.monotonic() + 60
    while value(url, sessions):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("lingers", [False, True])
def test_too_few_connections_are_reported_with_a_hint(
    make_database: MakeDatabase,
    store_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    lingers: bool,
) -> None:
    """Three do for a dump in one stream; fewer are named with their number.

    Also while the server still counts a session that has ended, and refuses another.
    """

    def refused_again(*_arguments: Any, **_options: Any) -> NoReturn:
        raise DatabaseError("too many connections", hint="Free a connection.")

    url = make_database(16)
    role = (
        "DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT {}; "
        "GRANT pg_read_all_data TO few; "
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
    )
    few = url.replace("opskit_throwaway@", "few@")

    execute(url, role.format(3))
    back_up(few, store_dir)
    _await_end_of_sessions(url, "few")
    execute(url, role.format(2))
    if lingers:
        monkeypatch.setattr(backup_database, "connect", refused_again)
    with pytest.raises(BackupFailed) as refused:
        back_up(few, store_dir)

    assert "needs 3 connections at once" in refused.value.hint
    assert "allowed 2" in refused.value.hint


def test_the_session_of_a_program_has_ended_before_the_next_one_begins(
    make_database: MakeDatabase, installations: list[Installation]
) -> None:
    """A server ends it a moment after its client, and counts it until then."""
    url = make_database(16)
    psql = find_client(installations, server_major=16)
    run, ended = client.run, threading.Event()

    with (
        connect(url, purpose="test") as connection,
        connect(url, purpose="lingers") as lingers,
        pytest.MonkeyPatch.context() as patched,
    ):

        def of_another(*arguments: Any, **options: Any) -> tuple[bytes, str]:
            output, words = run(*arguments, **options)
            # Not before: this may have taken longer.
            threading.Timer(0.5, end).start()
            pid = str(lingers.info.backend_pid).encode()
            return b"\n".join([*output.splitlines()[:-1], pid]), words

        def end() -> None:
            ended.set()
            execute(url, f"SELECT pg_terminate_backend({lingers.info.backend_pid})")

        patched.setattr(client, "run", of_another)
        client.require_same_server(url, psql, connection)
        lingers.close()

    assert ended.is_set()


def test_what_the_role_may_not_read_is_named_whatever_pg_dump_says(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """Its words may come in any language, and name what they will."""
    url = make_database(16)
    execute(url, "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    real = find_client(installations, server_major=16)
    foreign = stub(
        tmp_path / "bin", real, "echo 'LOCK TABLE: Zugriff verweigert' >&2; exit 1"
    )

    with pytest.raises(BackupFailed) as refused:
        back_up(
            url.replace("opskit_throwaway@", "poor@"),
            store_dir,
            installations=[foreign],
        )
    with pytest.raises(BackupFailed) as unknown:
        back_up(url, store_dir, installations=[foreign])

    assert "pg_read_all_data" in refused.value.hint
    assert unknown.value.hint == "The program's own words say what it refused."


def test_a_parameter_that_the_programs_do_not_know_is_named(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """The libpq of opskit may be newer than that of pg_dump."""
    url = make_database(16)

    with pytest.raises(DatabaseError, match="sslnegotiation") as refused:
        back_up(f"{url}&sslnegotiation=postgres", store_dir)

    assert type(refused.value).exit_code == 30
    assert "install newer client programs" in refused.value.hint


@pytest.mark.parametrize(
    "locked", ["pg_catalog.pg_trigger", "pg_catalog.pg_policy", "public.orders"]
)
def test_no_lock_is_waited_for_longer_than_allowed(
    locked: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """Neither of a table nor of what pg_dump reads of the catalog; the holder is told."""
    url = make_database(16)

    with connect(url, purpose="migration", autocommit=False) as holder:
        holder.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE".encode())
        began = time.monotonic()
        with pytest.raises(LockWait) as waited:
            back_up(url, store_dir, lock_wait=timedelta(seconds=2))

        assert time.monotonic() - began < 50
        assert f"{locked} is locked by server process " in waited.value.message
        assert "opskit migration" in waited.value.message
    assert not list(store_dir.iterdir())


def test_our_own_reading_of_the_catalog_waits_no_longer_either(
    make_database: MakeDatabase, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that comes when pg_dump has read its part is told the same way."""
    from opskit.postgres import snapshot

    url = make_database(16)
    with connect(url, purpose="migration", autocommit=False) as holder:
        unlocked = snapshot.rewritten_tables

        def locked(connection: Any) -> list[str]:
            holder.execute("LOCK TABLE pg_catalog.pg_auth_members")
            return unlocked(connection)

        monkeypatch.setattr(snapshot, "rewritten_tables", locked)
        with pytest.raises(LockWait, match=r"pg_catalog\.pg_auth_members is locked by"):
            back_up(url, store_dir, lock_wait=timedelta(seconds=1))


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE public.lines",
        "DROP TABLE other.orders",
        "ALTER TABLE public.lines ALTER n TYPE bigint",
    ],
)
def test_what_waits_for_the_dump_does_not_spoil_it(
    statement: str,
    make_database: MakeDatabase,
    store_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However small the database is: the dump is looked at while it has its locks."""
    from opskit.postgres import snapshot

    url = make_database(16)
    waiting = threading.Thread(target=execute, args=(url, statement))
    unlocked = snapshot.rewritten_tables

    def beside(connection: Any) -> list[str]:
        waiting.start()
        wait = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until = time.monotonic() + 60
        while not value(url, wait) and time.monotonic() < until:
            time.sleep(0.05)
        return unlocked(connection)

    monkeypatch.setattr(snapshot, "rewritten_tables", beside)
    manifest = back_up(url, store_dir).manifest
    waiting.join()

    assert of_database(manifest).rows == 2102
    assert failed(run_drill(sets(store_dir)[0])) == []


def test_a_dump_that_the_schema_ran_away_from_begins_again(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """A table that is dropped between the snapshot and the locks costs a moment."""
    url = make_database(16)
    real = find_client(installations, server_major=16)
    once = (
        f"test -e {tmp_path}/once || {{ touch {tmp_path}/once; "
        f"{real.program('psql')} -qX -d \"{url}\" -c 'TRUNCATE other.orders'; }}\n"
    )
    racing = stub(tmp_path / "bin", real, once + 'exec REAL "$@"')

    manifest = back_up(url, store_dir, installations=[racing]).manifest

    assert of_database(manifest).rows == 2002
    assert failed(run_drill(sets(store_dir)[0])) == []


def _failing(
    folder: Path, real: Installation, url: str, *, beside: str, words: str
) -> Installation:
    """Return programs whose pg_dump fails the first time, after a statement."""
    script = (
        f"echo . >>{folder}/tries; test $(wc -l <{folder}/tries) -gt 1 || "
        f"{{ {real.program('psql')} -qX -d \"{url}\" -c '{beside}' >/dev/null; "
        f"echo '{words}' >&2; exit 1; }}\n"
    )
    return stub(folder / "bin", real, script + 'exec REAL "$@"')


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE other.orders",
        "ALTER TABLE public.lines RENAME TO rows",
        "ALTER TABLE other.orders RENAME COLUMN x TO number",
        "CREATE OR REPLACE VIEW public.seen AS SELECT 2 AS a",
        "CREATE OR REPLACE FUNCTION public.given() RETURNS int RETURN 2",
        "DROP FUNCTION public.given()",
    ],
)
def test_what_changed_before_the_locks_is_a_reason_to_begin_again(
    statement: str,
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """The catalog says so, whatever pg_dump's words are."""
    url = make_database(16)
    execute(
        url,
        "CREATE VIEW public.seen AS SELECT 1 AS a; "
        "CREATE FUNCTION public.given() RETURNS int RETURN 1",
    )
    real = find_client(installations, server_major=16)
    racing = _failing(tmp_path, real, url, beside=statement, words="weg")

    back_up(url, store_dir, installations=[racing])

    assert (tmp_path / "tries").read_text() == ".\n.\n"
    assert failed(run_drill(sets(store_dir)[0])) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "CREATE TABLE public.more (a int)",
        "CREATE TEMP TABLE lines (n int)",
        "ANALYZE; UPDATE public.lines SET n = n",
    ],
)
def test_what_no_new_snapshot_mends_fails_at_once(
    statement: str,
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """A relation that pg_dump calls by its number is named."""
    url = make_database(16)
    oid = value(url, "SELECT 'public.lines'::regclass::oid")
    real = find_client(installations, server_major=16)
    words = f"could not open relation with OID {oid}"
    broken = _failing(tmp_path, real, url, beside=statement, words=words)

    with pytest.raises(BackupFailed) as refused:
        back_up(url, store_dir, installations=[broken])

    assert (tmp_path / "tries").read_text() == ".\n"
    assert refused.value.message == f"pg_dump exited with 1: {words} (public.lines)"


def test_a_role_without_rights_is_refused_at_once(
    make_database: MakeDatabase, store_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may not read any better under another snapshot."""
    url = make_database(16)
    execute(url, "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")

    with pytest.raises(BackupFailed, match="permission denied") as refused:
        back_up(url.replace("opskit_throwaway@", "poor@"), store_dir)

    assert "pg_read_all_data" in refused.value.hint
    assert "begins again" not in capsys.readouterr().out


def test_a_table_that_went_away_before_the_snapshot_is_a_reason_too(
    make_database: MakeDatabase,
) -> None:
    """The commands are planned before: pg_dump is asked for what is not there."""
    error = BackupFailed("pg_dump exited with 1: no matching tables were found")

    with connect(make_database(16), purpose="test") as now:
        found = postgres_locks.explanation(
            error, now, now, planned=[("public", "rows")]
        )
        unchanged = postgres_locks.explanation(error, now, now, planned=[])

    assert isinstance(found, postgres_locks.SchemaChanged)
    assert found.message.startswith("public.rows changed while the backup began: pg_d")
    assert unchanged is None


def test_a_table_that_went_is_called_by_its_own_name(
    make_database: MakeDatabase,
) -> None:
    """Not that of the types which every table brings."""
    url = make_database(16)
    error = BackupFailed("pg_dump exited with 1: cache lookup failed")

    with (
        connect(url, purpose="test", autocommit=False) as before,
        connect(url, purpose="test") as now,
    ):
        before.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        execute(url, "DROP TABLE public.lines")
        found = postgres_locks.explanation(error, before, now, planned=[])

    assert found is not None
    assert found.message.startswith("public.lines and ")
