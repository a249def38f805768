"""What a review on real servers found: sound databases that alarmed, damage that passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import BackupFailed
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from tests.conftest import MajorServer
from tests.support import back_up, execute, failed, run_drill, sets


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """A running server of 15 that is not the one that the samples are on."""
    found = programs.find_server(programs.installations(), major=15)
    with throwaway.throwaway(found) as running:
        yield running


def create(running: Server, name: str, script: str) -> str:
    """Make a database anew and return its URL."""
    with connect(running.url(), purpose="test") as connection:
        database.drop(connection, name)
        connection.execute(f"CREATE DATABASE {quoted(name)}".encode())
    execute(running.url(name), script)
    return running.url(name)


SOUND = {
    "rows that break a check of a parent which was not validated": """
        CREATE TABLE public.p (a int, b int) PARTITION BY LIST (a);
        CREATE TABLE public.p1 PARTITION OF public.p DEFAULT;
        INSERT INTO public.p SELECT -5 FROM generate_series(1, 30000);
        ALTER TABLE public.p ADD CHECK (a > 0) NOT VALID;
        CREATE TABLE public.t (a int); CREATE TABLE public.ch () INHERITS (public.t);
        INSERT INTO public.ch SELECT -5 FROM generate_series(1, 30000);
        ALTER TABLE public.t ADD CHECK (a > 0) NOT VALID""",
    "more than twenty partitions": """
        CREATE TABLE public.p (a int PRIMARY KEY, b text) PARTITION BY HASH (a);
        DO $$ BEGIN FOR i IN 0..29 LOOP EXECUTE format('CREATE TABLE public.p%s
            PARTITION OF public.p FOR VALUES WITH (modulus 30, remainder %s)', i, i);
        END LOOP; END $$;
        INSERT INTO public.p SELECT g, g FROM generate_series(1, 100) g""",
    "event triggers that act in a replica's session too": """
        CREATE TABLE public.log (tag text);
        CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO public.log VALUES (tg_tag); END $$;
        CREATE MATERIALIZED VIEW public.m AS SELECT 1 AS a;
        CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION public.note();
        ALTER EVENT TRIGGER note ENABLE ALWAYS""",
    "no plpgsql": "DROP EXTENSION plpgsql",
}


@pytest.mark.parametrize("major", [15, 18])
@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_database_raises_no_alarm(
    kind: str, major: int, server_of: MajorServer, store_dir: Path
) -> None:
    """Nothing was changed, so nothing differs, with several jobs at once."""
    back_up(create(server_of(major), "sound", SOUND[kind]), store_dir)
    (chosen,) = sets(store_dir)

    mutants = 0 if "event" in kind else 40
    assert failed(run_drill(chosen, jobs=4, mutants=mutants)) == []


def test_an_excluded_sequence_that_a_column_owns_comes_with_it(
    server_of: MajorServer, store_dir: Path
) -> None:
    """pg_dump dumps it with its table, whatever the pattern says."""
    url = create(server_of(16), "owned", "CREATE TABLE public.t (a serial)")
    back_up(url, store_dir, exclude_tables=["public.t_a_seq"])

    assert failed(run_drill(sets(store_dir)[0])) == []


def test_a_database_with_an_odd_name_drills_on_an_existing_server(
    server_of: MajorServer, elsewhere: Server, store_dir: Path
) -> None:
    """Its properties name it, quoted; the copy has another name, unquoted."""
    name = 'My "Db" a=b'
    identifier = quoted(name)
    url = create(
        server_of(15),
        name,
        f"""ALTER DATABASE {identifier} SET work_mem = '7MB';
        COMMENT ON DATABASE {identifier} IS 'about it';
        GRANT CREATE ON DATABASE {identifier} TO PUBLIC""",
    )
    back_up(url, store_dir)
    (chosen,) = sets(store_dir)
    where: dict[str, Any] = {"kind": "existing", "existing_url": elsewhere.url()}

    def alter(copy: str) -> None:
        execute(
            copy,
            """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''8MB''',
            current_database()); END $$""",
        )

    assert failed(run_drill(chosen, **where)) == []
    assert [c.name for c in failed(run_drill(chosen, tamper=alter, **where))] == [
        "definitions",
        "definition of DATABASE PROPERTIES *",
    ]


def test_databases_that_only_begin_like_a_drills_are_kept(
    server_of: MajorServer, elsewhere: Server, store_dir: Path
) -> None:
    """A name that the drill could not have made is somebody's own."""
    back_up(create(server_of(15), "plain", "CREATE TABLE public.t (a int)"), store_dir)
    create(elsewhere, "opskit_drill_results", "CREATE TABLE public.kept (a int)")

    run_drill(sets(store_dir)[0], kind="existing", existing_url=elsewhere.url())

    with connect(elsewhere.url("opskit_drill_results"), purpose="test") as connection:
        assert connection.execute("SELECT count(*) FROM public.kept").fetchone() == (0,)


def test_passwords_are_an_existing_servers_own(
    server_of: MajorServer, elsewhere: Server, store_dir: Path
) -> None:
    """The same password has another hash on each server, and is said to go unchecked."""
    role = "CREATE ROLE test_secret LOGIN PASSWORD 'the same'"
    url = create(server_of(15), "secret", f"{role}; CREATE TABLE public.t (a int)")
    execute(url, "ALTER TABLE public.t OWNER TO test_secret")
    execute(elsewhere.url(), role)
    try:
        back_up(url, store_dir)
    finally:
        execute(url, "DROP OWNED BY test_secret; DROP ROLE test_secret")

    evidence = run_drill(
        sets(store_dir)[0], kind="existing", existing_url=elsewhere.url()
    )

    assert failed(evidence) == []
    assert "passwords of roles" in {each.name for each in evidence.not_checked}


PASSED = {
    "an owner became the drill's own superuser": (
        "CREATE COLLATION public.c (provider = libc, locale = 'C'); "
        "ALTER COLLATION public.c OWNER TO test_owner",
        "ALTER COLLATION public.c OWNER TO opskit_throwaway",
        "definition of COLLATION public.c",
    ),
    "grants were given by another": (
        """CREATE TABLE public.t (a int); ALTER TABLE public.t OWNER TO test_owner;
        GRANT SELECT ON public.t TO test_a, test_b WITH GRANT OPTION;
        SET ROLE test_a; GRANT SELECT ON public.t TO test_c;
        SET ROLE test_b; GRANT SELECT ON public.t TO test_d; RESET ROLE""",
        """SET ROLE test_a; REVOKE SELECT ON public.t FROM test_c;
        GRANT SELECT ON public.t TO test_d;
        SET ROLE test_b; REVOKE SELECT ON public.t FROM test_d;
        GRANT SELECT ON public.t TO test_c""",
        "definition of ACL public.TABLE t",
    ),
}
_ROLES = ("test_owner", "test_a", "test_b", "test_c", "test_d")


@pytest.mark.parametrize("kind", PASSED)
def test_damage_that_once_passed_is_named(
    kind: str, server_of: MajorServer, store_dir: Path
) -> None:
    """Owners and grantors are compared, not only that there are some."""
    script, damage, noticed_by = PASSED[kind]
    make = "; ".join(f"CREATE ROLE {role}" for role in _ROLES)
    grant = "GRANT USAGE ON SCHEMA public TO PUBLIC"
    url = create(server_of(15), "damaged", f"{make}; {grant}; {script}")
    try:
        back_up(url, store_dir)
    finally:
        names = ", ".join(_ROLES)
        execute(url, f"DROP OWNED BY {names} CASCADE; DROP ROLE {names}")
    (chosen,) = sets(store_dir)

    clean = run_drill(chosen)
    damaged = run_drill(chosen, tamper=lambda copy: execute(copy, damage))

    assert failed(clean) == []
    assert noticed_by in [check.name for check in failed(damaged)]


def test_what_the_backups_role_may_not_read_is_said(
    server_of: MajorServer, store_dir: Path
) -> None:
    """pg_dump leaves subscriptions out for others than superusers, without a word."""
    running = server_of(15)
    url = create(
        running,
        "subscribed",
        """CREATE ROLE test_backup LOGIN; GRANT pg_read_all_data TO test_backup;
        CREATE SUBSCRIPTION su CONNECTION 'host=/nowhere dbname=x' PUBLICATION p
            WITH (connect = false);
        CREATE FOREIGN DATA WRAPPER w; CREATE SERVER ss FOREIGN DATA WRAPPER w;
        CREATE USER MAPPING FOR opskit_throwaway SERVER ss OPTIONS (password 'x')""",
    )
    try:
        weak = url.replace("opskit_throwaway@", "test_backup@")
        manifest = back_up(weak, store_dir).manifest
    finally:
        execute(url, "ALTER SUBSCRIPTION su SET (slot_name = NONE)")
        execute(url, "DROP SUBSCRIPTION su")
        execute(url, "DROP OWNED BY test_backup; DROP ROLE test_backup")

    evidence = run_drill(sets(store_dir)[0])

    assert any("subscriptions su" in each for each in manifest.warnings)
    names = [each.name for each in evidence.not_checked]
    assert "subscriptions su" in names
    assert "options, if any, of user mappings opskit_throwaway on ss" in names


def test_a_role_that_went_while_the_dump_ran_fails_the_backup(
    server_of: MajorServer, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set whose owner nobody could create would not come back."""
    from opskit.backup.dump import DatabaseDump

    running = server_of(15)
    url = create(
        running,
        "renamed",
        "CREATE ROLE test_before; CREATE TABLE public.t (a int); "
        "ALTER TABLE public.t OWNER TO test_before",
    )
    real = DatabaseDump.globals

    def renamed_meanwhile(dump: DatabaseDump) -> Any:
        execute(url, "ALTER ROLE test_before RENAME TO test_after")
        return real(dump)

    monkeypatch.setattr(DatabaseDump, "globals", renamed_meanwhile)
    try:
        with pytest.raises(BackupFailed, match="gone by now: test_before"):
            back_up(url, store_dir)
    finally:
        execute(url, "DROP OWNED BY test_after; DROP ROLE test_after")

    assert sets(store_dir) == []
