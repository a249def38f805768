"""Code of the source's roles gets nobody's rights but theirs while rows are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from opskit.errors import DatabaseError, IntegrityError, UsageError
from opskit.postgres import database
from opskit.postgres import roles as postgres_roles
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse, with_database
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value

# It does its deed only where it has the rights, and never says no to a row.
_DEED = """
CREATE SCHEMA mine AUTHORIZATION mallory;
CREATE FUNCTION mine.deed() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; EXCEPTION WHEN others THEN END;
    BEGIN EXECUTE 'RESET ROLE'; EXCEPTION WHEN others THEN END;
    IF current_setting('is_superuser') = 'on' AND EXISTS
        (SELECT FROM pg_database WHERE datname = current_database()
                                   AND datname <> '{source}') THEN
        ALTER ROLE mallory SUPERUSER;
    END IF;
    RETURN true;
END $$;
ALTER FUNCTION mine.deed() OWNER TO mallory;
CREATE FUNCTION mine.of(anyelement) RETURNS int LANGUAGE sql IMMUTABLE
    AS 'SELECT CASE WHEN mine.deed() THEN 1 END';
ALTER FUNCTION mine.of(anyelement) OWNER TO mallory;
"""
_WAYS = {
    "a table's check": "CREATE TABLE mine.t (i int CHECK (mine.deed()))",
    "a domain": "CREATE DOMAIN mine.d AS int CHECK (mine.deed()); "
    "ALTER DOMAIN mine.d OWNER TO mallory; CREATE TABLE mine.t (i mine.d)",
    "a generated column": "CREATE TABLE mine.t (i int, "
    "g int GENERATED ALWAYS AS (mine.of(i)) STORED)",
    "a partition": "CREATE TABLE mine.t (i int) PARTITION BY LIST (mine.of(i)); "
    "CREATE TABLE mine.t1 PARTITION OF mine.t DEFAULT",
    "a function of PostgreSQL": "CREATE TABLE mine.t (i int CHECK "
    "(ts_rewrite('a', 'SELECT ''a''::tsquery, ''b''::tsquery WHERE mine.deed()') "
    "IS NOT NULL))",
    "a whole row": "CREATE TABLE mine.t (i int); CREATE FUNCTION mine.whole(mine.t) "
    "RETURNS bool LANGUAGE sql AS 'SELECT mine.deed()'; "
    "ALTER FUNCTION mine.whole OWNER TO mallory; "
    "ALTER TABLE mine.t ADD CHECK (mine.whole(t))",
    "a cast": "CREATE TYPE mine.e AS ENUM ('a'); CREATE FUNCTION mine.text(mine.e) "
    "RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT mine.of(1)::text'; "
    "ALTER FUNCTION mine.text OWNER TO mallory; ALTER TYPE mine.e OWNER TO mallory; "
    "CREATE CAST (mine.e AS text) WITH FUNCTION mine.text AS IMPLICIT; "
    "CREATE TABLE mine.t (i int, e mine.e DEFAULT 'a' CHECK (e::text <> 'x'))",
}
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'"
_ROLES = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'opskit_rows%'"


@pytest.fixture
def attacked(
    make_database: MakeDatabase, server_of: MajorServer
) -> Iterator[Callable[[str, int], str]]:
    """Return a function that makes a database whose role attacks in one way."""
    urls: list[str] = []

    def make(way: str, major: int) -> str:
        execute(server_of(major).url(), "CREATE ROLE mallory")
        url = make_database(major, "SELECT")
        urls.append(url)
        execute(url, _DEED.replace("{source}", parse(url)["dbname"]) + _WAYS[way])
        execute(
            url,
            "ALTER TABLE mine.t OWNER TO mallory; "
            "INSERT INTO mine.t (i) SELECT generate_series(1, 5)",
        )
        return url

    yield make
    for url in urls:
        with connect(url, purpose="test") as connection:
            connection.execute("DROP OWNED BY mallory CASCADE")
            database.drop(connection, "copied")
            connection.execute("DROP ROLE mallory")


@pytest.mark.parametrize("way", _WAYS)
def test_a_restore_lends_nobody_a_superusers_rights(
    attacked: Callable[[str, int], str],
    server_of: MajorServer,
    store_dir: Path,
    way: str,
) -> None:
    """All rows come back, and neither rights nor roles are left."""
    back_up(attacked(way, 16), store_dir)

    result = run_restore(sets(store_dir)[0], server_of(16), "copied")

    assert result.rows == 5
    url = server_of(16).url()
    assert value(url, _IS_SUPERUSER) is False
    assert value(url, _ROLES) == 0


@pytest.mark.parametrize("way", ["a table's check", "a domain", "a whole row"])
def test_a_check_that_fails_is_tried_again_without_more_rights(
    attacked: Callable[[str, int], str],
    server_of: MajorServer,
    store_dir: Path,
    way: str,
) -> None:
    """A constraint that fails is tried again, but with no other rights."""
    url = attacked(way, 16)
    name = "mine.deed()"
    source = value(url, f"SELECT pg_get_functiondef('{name}'::regprocedure)")
    says_no = "RETURN current_setting('is_superuser') = 'on'"
    execute(url, source.replace("RETURN true", says_no))
    back_up(url, store_dir)

    with pytest.raises(IntegrityError, match="after them could not be made"):
        run_restore(sets(store_dir)[0], server_of(16), "copied")

    assert value(url, _IS_SUPERUSER) is False
    assert value(url, _ROLES) == 0


@pytest.mark.parametrize("major", [15, 18])
def test_a_drill_loads_such_rows_too(
    attacked: Callable[[str, int], str], store_dir: Path, major: int
) -> None:
    """With several jobs and every check, and the roles are compared."""
    back_up(attacked("a whole row", major), store_dir)

    evidence = run_drill(sets(store_dir)[0], jobs=2)

    assert failed(evidence) == []
    assert evidence.passed


@pytest.fixture
def with_peers_only(server_of: MajorServer) -> Iterator[str]:
    """A server that lets nobody in but its superuser; gives that one's name."""
    running = server_of(16)
    hba = running.folder / "data" / "pg_hba.conf"
    before = hba.read_text()
    name = parse(running.url())["user"]
    hba.write_text(f"local all {name} trust\nlocal all all reject\n")
    execute(running.url(), "SELECT pg_reload_conf()")
    yield name
    hba.write_text(before)
    execute(running.url(), "SELECT pg_reload_conf()")


def test_where_no_other_role_is_let_in_the_risk_is_named(
    attacked: Callable[[str, int], str],
    server_of: MajorServer,
    store_dir: Path,
    with_peers_only: str,
) -> None:
    """Whoever decides hears whose code it is; a no leaves nothing behind."""
    back_up(attacked("a table's check", 16), store_dir)
    asked: list[str] = []

    def refuse(authors: Sequence[str]) -> None:
        asked.extend(authors)
        raise UsageError("not restored")

    with pytest.raises(UsageError, match="not restored"):
        run_restore(sets(store_dir)[0], server_of(16), "copied", trust=refuse)
    url = server_of(16).url()
    left = value(
        url, "SELECT count(*) FROM pg_database WHERE datname LIKE 'copied%'"
    ) + value(url, _ROLES)
    result = run_restore(sets(store_dir)[0], server_of(16), "copied")

    assert asked == ["mallory"]
    assert left == 0
    assert result.rows == 5


def test_the_role_that_loads_has_no_rights_in_other_databases(
    make_database: MakeDatabase, server_of: MajorServer
) -> None:
    """Its code may give it a password; nobody gets further with that."""
    table = "CREATE TABLE public.t (i int)"
    here, elsewhere = make_database(16, table), make_database(16, table)
    with connect(server_of(16).url(), purpose="test") as connection:
        settings = {"session_replication_role": "replica"}
        with postgres_roles.rows_role(connection, here, settings) as role:
            postgres_roles.allow_rows(here, role)
            execute(role.url, "INSERT INTO public.t VALUES (1)")
            shown = value(role.url, "SHOW session_replication_role")
            login = with_database(role.url, parse(elsewhere)["dbname"])
            with pytest.raises(DatabaseError, match="permission denied"):
                execute(login, "SELECT FROM public.t")

    assert shown == "replica"
    assert value(here, "SELECT count(*) FROM public.t") == 1
    assert value(here, _ROLES) == 0
