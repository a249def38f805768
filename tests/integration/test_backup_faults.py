"""What goes wrong while a backup runs: no set, a clean store, an honest message."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from opskit.backup import stream
from opskit.catalog.manifest import of_database
from opskit.errors import (
    BackupFailed,
    ClientToolError,
    DatabaseError,
    LockHeld,
    ServerFault,
    StoreError,
)
from opskit.postgres import client, snapshot
from opskit.postgres.connect import query
from opskit.postgres.parameters import parse, with_database
from opskit.postgres.servers import throwaway
from opskit.postgres.servers.programs import Installation, find_client, find_server
from opskit.postgres.snapshot import DatabaseLock
from opskit.store import LocalStore
from tests.conftest import MajorServer, MakeDatabase
from tests.fleet.servers import server
from tests.ports import free_port
from tests.streams import let_small_tables_apart
from tests.support import back_up, execute, failed, run_drill, sets, users_own, value


def everything(store_dir: Path) -> list[str]:
    """Return every file in a store, temporary ones included."""
    return sorted(str(p.relative_to(store_dir)) for p in store_dir.rglob("*"))


def stub(folder: Path, real: Installation, pg_dump: str) -> Installation:
    """Return the real programs with a pg_dump that misbehaves around the real one."""
    folder.mkdir()
    for name in ("pg_dumpall", "pg_restore", "psql"):
        (folder / name).symlink_to(real.program(name))
    script = folder / "pg_dump"
    script.write_text("#!/bin/sh\n" + pg_dump.replace("REAL", real.program("pg_dump")))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return Installation(
        bin_dir=folder, version=real.version, major=real.major, embedded=False
    )


MISBEHAVIOURS = {
    "killed half-way": ('REAL "$@" | head -c 30000; kill -9 $$', "killed by signal 9"),
    "fails half-way": (
        'REAL "$@" | head -c 30000; echo "disk on fire" >&2; exit 1',
        "disk on fire",
    ),
    "fails at the very end": ('REAL "$@"; exit 1', "exited with 1"),
    "does not end": (
        'REAL "$@"; exec sleep 600 >&-',
        "had closed its output and did not end",
    ),
    "cut short, exit 0": ('REAL "$@" | head -c 30000; exit 0', "proper end"),
    "the last byte is missing": ('REAL "$@" | head -c -1; exit 0', "proper end"),
    "nothing, exit 0": ("exit 0", "proper end"),
    "no archive, exit 0": ("echo hello", "the mark of a custom-format archive"),
    "more than an archive": ('REAL "$@"; printf xxxxxxxxxxxx', "which is not due"),
    "a table left out": (
        'REAL "$@" --exclude-table-data=other.orders',
        "does not hold the data of other.orders",
    ),
}


@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_a_dump_that_goes_wrong_leaves_no_set(
    what: str,
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However pg_dump ends, a set counts only if the archive is whole; the old stays."""
    script, words = MISBEHAVIOURS[what]
    url = make_database(16)
    back_up(url, store_dir)
    before = everything(store_dir)
    real = find_client(installations, server_major=16)
    if script == "echo hello":  # it never says a word of pg_dump's
        monkeypatch.setattr(stream, "_FIRST_WORD_SECONDS_MAX", 1)
    if what == "does not end":
        monkeypatch.setattr(client, "_END_SECONDS_MAX", 3)

    with pytest.raises(BackupFailed, match=words):
        back_up(url, store_dir, installations=[stub(tmp_path / "bin", real, script)])

    assert before == everything(store_dir)
    assert not list((tmp_path / "state" / "inflight").iterdir())
    assert run_drill(sets(store_dir)[0]).passed


def test_a_connection_cut_half_way_leaves_no_set(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """The server ends pg_dump's session in the middle of the data."""
    url = make_database(16)
    execute(
        url,
        "CREATE TABLE public.wide AS SELECT repeat(md5(i::text), 30) AS t "
        "FROM generate_series(1, 60000) i",
    )
    real = find_client(installations, server_major=16)
    psql = f'{real.program("psql")} -qAtX -d "{url}"'
    # Its pipe is full, so pg_dump is in the middle of the data when its session ends.
    script = (
        'exec bash -c \'set -o pipefail; program=$1; shift; "$program" "$@" | '
        f'{{ head -c 30000; {psql} -c "$end" >/dev/null; cat; }}\' dump REAL "$@"'
    )
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'pg_dump'"
    )
    cut = stub(tmp_path / "bin", real, f'export end="{end}"\n{script}')

    with pytest.raises(BackupFailed) as caught:
        back_up(url, store_dir, installations=[cut])

    assert "pg_dump exited with 1" in caught.value.message
    assert everything(store_dir) == []


def test_ctrl_c_leaves_nothing(
    make_database: MakeDatabase, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt at each step of a backup leaves the store as it was."""
    from opskit.catalog.writer import put_everywhere

    url = make_database(16)
    for step in range(5):
        calls = 0

        def put(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls > step:  # noqa: B023 - used within the round
                raise KeyboardInterrupt
            return put_everywhere(*arguments, **keywords)

        monkeypatch.setattr("opskit.catalog.writer.put_everywhere", put)
        with pytest.raises(KeyboardInterrupt):
            back_up(url, store_dir)

        assert everything(store_dir) == []


def as_role(url: str, role: str) -> str:
    """Return the URL for another role; the throw-away server trusts everybody."""
    return url.replace("opskit_throwaway@", f"{role}@")


def test_a_table_without_rights_is_named(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """A role that may not read a table gets no backup, and the table's name."""
    url = make_database(16)
    execute(
        url,
        "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN; "
        "GRANT USAGE ON SCHEMA other TO poor; "
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, other TO poor;"
        "REVOKE SELECT ON other.empty FROM poor",
    )

    with pytest.raises(BackupFailed, match=r"permission denied for table empty"):
        back_up(as_role(url, "poor"), store_dir)

    assert everything(store_dir) == []


def test_row_level_security_that_hides_rows_is_refused(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """A dump through row-level security would be a part passed off as the whole."""
    url = make_database(16)
    execute(
        url,
        "DROP ROLE IF EXISTS half_blind; CREATE ROLE half_blind LOGIN; "
        "GRANT pg_read_all_data TO half_blind;"
        "ALTER TABLE other.orders ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY part ON other.orders USING (x > 5)",
    )

    with pytest.raises(BackupFailed, match="row-level security") as caught:
        back_up(as_role(url, "half_blind"), store_dir)

    assert "BYPASSRLS" in caught.value.hint
    assert everything(store_dir) == []


def test_a_role_without_superuser_rights_backs_up_without_passwords(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Password hashes that cannot be read are left out, which the manifest says."""
    url = make_database(16)
    execute(
        url,
        "DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD 'geheim'; "
        "GRANT USAGE ON SCHEMA public, other TO reader;"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public, other TO reader;"
        "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public, other TO reader;"
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    )

    plain = back_up(as_role(url, "reader"), store_dir).manifest
    full = back_up(url, store_dir).manifest

    assert any("without password hashes" in each for each in plain.warnings)
    assert tuple(
        of_database(each).inventory.role_passwords for each in (plain, full)
    ) == (
        False,
        True,
    )
    roles = [(store_dir / m.object("roles").key).read_text() for m in (plain, full)]
    assert tuple("SCRAM-SHA-256" in text for text in roles) == (False, True)
    assert failed(run_drill(sets(store_dir)[0])) == []
    assert failed(run_drill(sets(store_dir)[1])) == []


def test_a_locked_table_ends_the_wait(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """A migration that holds a table stops the backup after its bounded wait."""
    from opskit.postgres.connect import connect

    url = make_database(16)
    with connect(url, purpose="test", autocommit=False) as holder:
        holder.execute("LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(BackupFailed) as caught:
            back_up(url, store_dir, lock_wait=timedelta(seconds=1))

    assert "migration holds the table" in caught.value.hint


def test_an_older_client_is_refused(
    make_database: MakeDatabase, store_dir: Path, installations: list[Installation]
) -> None:
    """A pg_dump older than the server would not know what it leaves out."""
    old = [each for each in installations if each.major < 18]

    with pytest.raises(ClientToolError, match="older than the server's major 18"):
        back_up(make_database(18), store_dir, installations=old)


def test_no_client_at_all_is_said(make_database: MakeDatabase, store_dir: Path) -> None:
    """Without any pg_dump the message says what to install."""
    with pytest.raises(ClientToolError, match="no PostgreSQL client") as caught:
        back_up(make_database(16), store_dir, installations=[])

    assert "postgresql-client-16" in caught.value.hint


def test_a_newer_client_is_used_recorded_and_restores(
    make_database: MakeDatabase, store_dir: Path, installations: list[Installation]
) -> None:
    """A dump by pg_dump 18 of a server 16 says so, and still drills on a server 16.

    pg_restore of 17 and newer sets a parameter which server 16 does not know.
    """
    newer = [each for each in installations if each.major == 18]

    manifest = back_up(make_database(16), store_dir, installations=newer).manifest

    assert (of_database(manifest).server_major, of_database(manifest).client_major) == (
        16,
        18,
    )
    assert any("newer pg_dump 18" in each for each in manifest.warnings)
    evidence = run_drill(sets(store_dir)[0])
    assert failed(evidence) == []
    assert "PostgreSQL 16" in evidence.figures.drill_server


def test_a_drill_on_a_newer_major_must_be_allowed(
    make_database: MakeDatabase, store_dir: Path, installations: list[Installation]
) -> None:
    """Where only a newer server is at hand the drill says so, or is told to accept."""
    back_up(make_database(16), store_dir)
    newer = [each for each in installations if each.major == 18]
    chosen = sets(store_dir)[0]

    with pytest.raises(ClientToolError, match="no PostgreSQL 16 server") as caught:
        run_drill(chosen, installations=newer)
    evidence = run_drill(chosen, installations=newer, accept_newer_major=True)

    assert "accept_newer_major" in caught.value.hint
    assert failed(evidence) == []
    assert "newer than the source's 16" in evidence.figures.drill_server


def test_two_hosts_do_not_back_up_one_database_at_once(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """The lock in the database itself stops a second run, and names the first."""
    url = make_database(16)

    with (
        snapshot.database_lock(
            url, name="backup shop", run_id="first1", lock_wait=timedelta(seconds=60)
        ),
        pytest.raises(LockHeld, match="opskit backup shop run first1"),
    ):
        back_up(url, store_dir)

    assert of_database(back_up(url, store_dir).manifest).tables


@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_is_free_before_the_server_has_ended_its_session(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A busy server takes a while: the next run need not wait, nor be refused."""
    url, wait = make_database(16, "SELECT 1"), timedelta(seconds=60)
    lock = partial(
        snapshot.database_lock, url, name="backup shop", run_id="one1", lock_wait=wait
    )
    with monkeypatch.context() as patched:
        patched.setattr(psycopg.Connection, "close", lambda _self: None)
        with suppress(BackupFailed), lock() as left:
            if fails:
                raise BackupFailed("it failed", hint="")
    assert left.connection.execute("SELECT 1").fetchone() == (1,)

    with lock() as next_one:
        next_one.require_held()
    left.connection.close()


@pytest.mark.parametrize(
    ("later", "is_taken_over"), [((7, 2), True), ((7, 1), False), ((8, 2), False)]
)
def test_a_later_attempt_at_a_job_takes_the_lock_from_an_earlier_one(
    make_database: MakeDatabase, later: tuple[int, int], is_taken_over: bool
) -> None:
    """Whose machine may only be stopped; nobody takes it from another job's run."""
    url, wait = make_database(16, "SELECT 1"), timedelta(seconds=60)

    def locked(attempt: tuple[int, int]) -> AbstractContextManager[DatabaseLock]:
        return snapshot.database_lock(
            url, name="backup shop", run_id="one1", lock_wait=wait, attempt=attempt
        )

    with locked((7, 1)) as first:
        if is_taken_over:
            with locked(later) as second:
                second.require_held()
            with pytest.raises(ServerFault, match="another run may have started"):
                first.require_held()
        else:
            with (
                pytest.raises(LockHeld, match=r"opskit job 7\.1 backup shop run one1"),
                locked(later),
            ):
                pass
            first.require_held()


def test_the_lock_in_the_database_ends_soon_after_its_machine_vanished() -> None:
    """Two minutes after, whatever the server is set to: its default is two hours."""
    with (
        server("source", 16, "127.0.0.1") as source,
        snapshot.database_lock(
            source.url(),
            name="backup shop",
            run_id="first1",
            lock_wait=timedelta(seconds=60),
        ) as lock,
    ):
        ((idle, interval, count),) = query(
            lock.connection,
            "SELECT current_setting('tcp_keepalives_idle')::int,"
            " current_setting('tcp_keepalives_interval')::int,"
            " current_setting('tcp_keepalives_count')::int",
        )

    assert idle + interval * count == 120


def test_an_unreachable_server_is_said(store_dir: Path) -> None:
    """Nobody listens there: the message names the database, the hint what to check."""
    with pytest.raises(DatabaseError) as caught:
        back_up("postgresql://nobody@127.0.0.1:1/shop", store_dir)

    assert "shop" in caught.value.message
    assert "reachable" in caught.value.hint


def test_an_unknown_database_is_said(server_of: MajorServer, store_dir: Path) -> None:
    """The server has no such database."""
    url = with_database(server_of(16).url(), "missing")

    with pytest.raises(DatabaseError, match='database "missing" does not exist'):
        back_up(url, store_dir)


@pytest.fixture
def password_server(
    installations: list[Installation],
) -> Iterator[Callable[[str], str]]:
    """A server on loopback that asks for a password; gives a URL for one."""
    port = free_port()
    installation = find_server(installations, major=16)
    settings = {"listen_addresses": "127.0.0.1"}
    with throwaway.throwaway(installation, port=port, settings=settings) as running:
        socket_url = running.url()
        execute(socket_url, "CREATE ROLE ops SUPERUSER LOGIN PASSWORD 'right-one'")
        hba = running.folder / "data" / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 scram-sha-256\nlocal all all trust\n")
        execute(socket_url, "SELECT pg_reload_conf()")
        yield lambda password: f"postgresql://ops:{password}@127.0.0.1:{port}/postgres"


def test_a_wrong_password_is_refused_and_never_shown(
    password_server: Callable[[str], str], store_dir: Path
) -> None:
    """The message says what failed without a word of the password."""
    with pytest.raises(DatabaseError, match="password authentication failed") as caught:
        back_up(password_server("geheim-123"), store_dir)

    shown = f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    assert "geheim-123" not in shown


def test_a_password_in_the_url_reaches_every_program_but_no_command_line(
    password_server: Callable[[str], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """pg_dump gets the password by its environment; its arguments do not hold it."""
    url = password_server("right-one")
    execute(url, "CREATE TABLE public.t AS SELECT 1 AS a")
    real = find_client(installations, server_major=16)
    log = tmp_path / "arguments"
    spy = stub(tmp_path / "bin", real, f'echo "$@" >>{log}; exec REAL "$@"')

    manifest = back_up(url, store_dir, installations=[spy]).manifest

    assert of_database(manifest).rows == 1
    assert "right-one" not in log.read_text()
    stored = b"".join(
        path.read_bytes() for path in store_dir.rglob("*") if path.is_file()
    )
    assert b"right-one" not in stored


class TestStores:
    """Stores that cannot take the set."""

    def test_a_missing_folder(
        self, make_database: MakeDatabase, tmp_path: Path
    ) -> None:
        """It is not made: a file system that is not mounted looks just the same."""
        with pytest.raises(StoreError, match="does not exist"):
            back_up(make_database(16), tmp_path / "absent")

    def test_one_store_fails_and_the_set_stands_in_the_other(
        self, make_database: MakeDatabase, store_dir: Path
    ) -> None:
        """The run names the store that failed; nothing of the set is left in it."""
        from tests.faulty import FaultyStore

        other = store_dir.parent / "other"
        other.mkdir()
        bad = FaultyStore(LocalStore("bad", other), fail_put_at=2)

        result = back_up(
            make_database(16), store_dir, stores=[LocalStore("local", store_dir), bad]
        )

        assert result.stores == ("local",)
        assert list(result.failed) == ["bad"]
        assert everything(other) == []
        assert failed(run_drill(sets(store_dir)[0])) == []

    @pytest.mark.parametrize("streams", [1, 3])
    def test_every_crash_point_of_the_store(
        self,
        make_database: MakeDatabase,
        store_dir: Path,
        streams: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whichever put fails, no set is listed and the earlier one still drills."""
        from tests.faulty import FaultyStore

        let_small_tables_apart(monkeypatch)
        url = make_database(16)
        execute(url, "VACUUM")
        back_up(url, store_dir, streams=streams)
        before = everything(store_dir)
        points = 0
        while True:
            points += 1
            store = FaultyStore(LocalStore("local", store_dir), fail_put_at=points)
            try:
                back_up(url, store_dir, stores=[store], streams=streams)
            except StoreError:
                pass
            else:
                break
            assert before == everything(store_dir)

        # Each dump, roles, schema, guide, manifest; then all went well.
        assert points == streams + 5
        assert [run_drill(each).passed for each in sets(store_dir)] == [True, True]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
    def test_a_full_disk(self, make_database: MakeDatabase, tmp_path: Path) -> None:
        """No space left: no set, and the earlier one still drills."""
        import subprocess

        store_dir = tmp_path / "small"
        store_dir.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(store_dir)],
            check=True,
        )
        try:
            url = make_database(16)
            back_up(url, store_dir)
            before = everything(store_dir)
            execute(
                url,
                "CREATE TABLE public.random AS SELECT string_agg(md5(random()::text), '')"
                " AS t FROM generate_series(1, 40000) GROUP BY random() < 0.5",
            )
            with pytest.raises(StoreError, match="No space left") as caught:
                back_up(url, store_dir)

            assert "earlier backup sets are untouched" in caught.value.hint
            assert before == everything(store_dir)
            assert run_drill(sets(store_dir)[0]).passed
        finally:
            subprocess.run(["umount", str(store_dir)], check=True)


def test_values_print_the_same_whatever_the_defaults_of_role_and_database(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Odd defaults on the database do not make a difference where there is none."""
    url = make_database(16)
    name = value(url, "SELECT current_database()")
    execute(
        url,
        f"""
        CREATE TABLE public.odd AS SELECT timestamptz '2026-07-01 12:00:00+02' AS t,
          interval '1 day -2 hours' AS i, '\\xdeadbeef'::bytea AS b, 0.1::float8 AS f;
        ALTER DATABASE "{name}" SET TimeZone = 'America/New_York';
        ALTER DATABASE "{name}" SET DateStyle = 'German';
        ALTER DATABASE "{name}" SET IntervalStyle = 'sql_standard';
        ALTER DATABASE "{name}" SET bytea_output = 'escape';
        ALTER DATABASE "{name}" SET extra_float_digits = -5;
        ALTER DATABASE "{name}" SET client_encoding = 'LATIN1';
        ALTER DATABASE "{name}" SET search_path = 'other', 'public';
        """,
    )

    back_up(url, store_dir)

    assert failed(run_drill(sets(store_dir)[0])) == []


def test_a_table_truncated_after_the_snapshot_is_no_backup(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """TRUNCATE does not wait for a snapshot: pg_dump would find the table empty."""
    url = make_database(16)
    real = find_client(installations, server_major=16)
    truncate = f"{real.program('psql')} -qX -d \"{url}\" -c 'TRUNCATE other.orders'"
    racing = stub(tmp_path / "bin", real, f'{truncate}\nexec REAL "$@"')

    with pytest.raises(BackupFailed, match=r"other\.orders was truncated"):
        back_up(url, store_dir, installations=[racing])

    assert everything(store_dir) == []


def test_a_lost_lock_is_noticed_before_the_manifest(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """Without its lock another run may have begun, so this one records nothing."""
    url = make_database(16)
    real = find_client(installations, server_major=16)
    kill = (
        f'{real.program("psql")} -qX -d "{url}" -c "SELECT pg_terminate_backend(pid) FROM '
        "pg_stat_activity WHERE application_name LIKE 'opskit backup shop%'\" >/dev/null"
    )
    killing = stub(tmp_path / "bin", real, f'{kill}\nexec REAL "$@"')

    with pytest.raises(DatabaseError, match="the lock backup shop was lost"):
        back_up(url, store_dir, installations=[killing])

    assert everything(store_dir) == []


def test_a_service_in_the_environment_leads_nothing_astray(
    server_of: MajorServer,
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What PGSERVICE names is neither dumped nor restored into."""
    other = server_of(18)
    before = value(
        other.url(), "SELECT array_agg(datname ORDER BY datname) FROM pg_database"
    )
    url = users_own(make_database(16))
    service = tmp_path / "services"
    service.write_text(
        f"[other]\nhost={other.socket_dir}\nport={other.port}\nuser={throwaway.SUPERUSER}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGSERVICE", "other")

    manifest = back_up(url, store_dir).manifest
    evidence = run_drill(sets(store_dir)[0])

    assert of_database(manifest).server_major == 16
    assert failed(evidence) == []
    monkeypatch.delenv("PGSERVICE")
    after = value(
        other.url(), "SELECT array_agg(datname ORDER BY datname) FROM pg_database"
    )
    assert before == after


def test_a_service_may_name_the_database(
    make_database: MakeDatabase,
    store_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """postgresql:///?service=shop is what people write to keep passwords out."""
    parameters = parse(users_own(make_database(16)))
    service = tmp_path / "services"
    lines = "".join(f"{key}={each}\n" for key, each in parameters.items())
    service.write_text(f"[shop]\n{lines}")
    monkeypatch.setenv("PGSERVICEFILE", str(service))

    manifest = back_up("postgresql:///?service=shop", store_dir).manifest

    assert of_database(manifest).rows == 2102


def test_memberships_granted_by_another_superuser_come_back(
    server_of: MajorServer, store_dir: Path
) -> None:
    """The drill's first superuser has another name than the source's."""
    url = server_of(16).url("by_boss")
    boss = "ALTER ROLE {} RENAME TO {}"
    execute(server_of(16).url(), "DROP DATABASE IF EXISTS by_boss")
    execute(server_of(16).url(), "CREATE DATABASE by_boss")
    execute(
        server_of(16).url(),
        "DROP ROLE IF EXISTS deputy; CREATE ROLE deputy SUPERUSER LOGIN",
    )
    deputy = server_of(16).url("by_boss").replace("opskit_throwaway@", "deputy@")
    execute(deputy, boss.format("opskit_throwaway", "boss"))
    try:
        execute(
            deputy,
            "DROP ROLE IF EXISTS group_a; DROP ROLE IF EXISTS member_a; CREATE ROLE group_a;"
            "CREATE ROLE member_a; GRANT group_a TO member_a",
        )
        back_up(deputy, store_dir)
    finally:
        execute(deputy, boss.format("boss", "opskit_throwaway"))

    assert failed(run_drill(sets(store_dir)[0])) == []
    execute(url, "DROP ROLE member_a; DROP ROLE group_a")
