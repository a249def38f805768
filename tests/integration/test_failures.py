"""Entries after the data that cannot be made: the rows come back, and each is named."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from opskit.errors import DatabaseError, IntegrityError
from opskit.postgres.connect import connect
from opskit.postgres.database import drop
from opskit.postgres.parameters import parse
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import databases, run_restore
from tests.support import back_up, failed, run_drill, sets, value

__all__ = ["databases"]

ORPHANS = """
CREATE TABLE public."Big one" (id int PRIMARY KEY);
CREATE TABLE public.orders (id int PRIMARY KEY, one int REFERENCES public."Big one");
INSERT INTO public."Big one" VALUES (1), (2);
INSERT INTO public.orders VALUES (1, 1), (2, 2);
SET session_replication_role = replica;
DELETE FROM public."Big one" WHERE id = 2;
"""
DUPLICATES = """
CREATE TABLE public.t (a int, b int);
INSERT INTO public.t VALUES (1, 1), (1, 2);
CREATE UNIQUE INDEX "an index" ON public.t (b);
COMMENT ON INDEX public."an index" IS 'one of each';
ALTER TABLE public.t CLUSTER ON "an index";
UPDATE pg_index SET indisready = false WHERE indexrelid = 'public."an index"'::regclass;
UPDATE public.t SET b = 1;
UPDATE pg_index SET indisready = true WHERE indexrelid = 'public."an index"'::regclass;
"""
UNQUALIFIED = """
CREATE SCHEMA app;
CREATE TABLE app.t (a int);
INSERT INTO app.t VALUES (1);
CREATE FUNCTION app.f() RETURNS int LANGUAGE plpgsql STABLE
    AS 'BEGIN RETURN (SELECT max(a) FROM t); END';
SET search_path = app;
CREATE MATERIALIZED VIEW app.m AS SELECT app.f() AS n;
CREATE UNIQUE INDEX m_n ON app.m (n);
"""
# A grant to a role whose drop went unnoticed.
GONE = """
CREATE TABLE public.t (a int);
INSERT INTO public.t VALUES (1);
CREATE ROLE gone_soon;
GRANT SELECT ON public.t TO gone_soon;
GRANT INSERT ON public.t TO public;
DELETE FROM pg_shdepend WHERE refobjid = 'gone_soon'::regrole;
DROP ROLE gone_soon;
"""


@pytest.mark.parametrize(
    ("script", "names", "rows"),
    [
        (ORPHANS, ["FK CONSTRAINT public.orders orders_one_fkey"], 3),
        (
            DUPLICATES,
            ["INDEX public.an index", 'COMMENT public.INDEX "an index"'],
            2,
        ),
        (UNQUALIFIED, ["MATERIALIZED VIEW DATA app.m"], 1),
        (GONE, ["ACL public.TABLE t"], 1),
    ],
    ids=["orphans", "duplicates", "unqualified", "gone"],
)
def test_the_rows_come_back_without_an_entry_that_is_accepted(
    make_database: MakeDatabase,
    server_of: MajorServer,
    store_dir: Path,
    databases: Any,
    script: str,
    names: list[str],
    rows: int,
) -> None:
    """First it is named and nothing is kept; then the copy is kept without it."""
    url = make_database(16, script=script)
    back_up(url, store_dir)
    chosen = sets(store_dir)[0]
    before = databases()

    with pytest.raises(IntegrityError, match="could not be made") as refused:
        run_restore(chosen, server_of(16), "back", command="inv restore")

    failures: Any = refused.value.details["failures"]
    assert [each["name"] for each in failures] == names
    assert all(each["error"] for each in failures)
    assert f"--accept-failures '{names[0]}'" in refused.value.hint
    assert databases() == before

    result = run_restore(chosen, server_of(16), "back", accepted=names)

    assert list(result.without) == names
    assert result.rows == rows
    assert all(check.passed for check in result.checks)
    if script == GONE:
        granted = "SELECT has_table_privilege('pg_monitor', 'public.t', 'INSERT')"
        assert value(server_of(16).url("back"), granted)


def test_some_of_several_failures_are_not_enough(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """Nothing is swapped, whatever else was accepted."""
    url = make_database(16, script=DUPLICATES)
    back_up(url, store_dir)
    target = databases()

    with pytest.raises(IntegrityError, match="1 entry") as refused:
        run_restore(
            sets(store_dir)[0],
            server_of(16),
            parse(url)["dbname"],
            replace=True,
            accepted=["INDEX public.an index"],
        )

    assert len(refused.value.details["failures"]) == 2  # type: ignore[arg-type]
    assert databases() == target


def test_a_drill_names_the_entry_and_does_without_it_if_that_is_allowed(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """It is never called checked; all the rest is compared."""
    back_up(make_database(16, script=ORPHANS), store_dir)
    chosen = sets(store_dir)[0]
    name = "FK CONSTRAINT public.orders orders_one_fkey"

    refused = run_drill(chosen)

    assert not refused.passed
    assert [(c.name, name in c.detail) for c in failed(refused)] == [("restore", True)]

    allowed = run_drill(chosen, allowed=[name])

    assert allowed.passed, failed(allowed)
    assert name in [each.name for each in allowed.not_checked]


def test_an_operator_of_an_extension_is_found_at_the_second_try(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """pg_dump does not qualify it in a trigger's condition."""
    script = """
    CREATE SCHEMA ext;
    CREATE EXTENSION vector SCHEMA ext;
    CREATE TABLE public.t (p ext.vector(2));
    INSERT INTO public.t VALUES ('[1,2]');
    CREATE FUNCTION public.noted() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN new; END';
    SET search_path = ext;
    CREATE TRIGGER watch BEFORE UPDATE ON public.t FOR EACH ROW
        WHEN (old.p IS DISTINCT FROM new.p) EXECUTE FUNCTION public.noted();
    COMMENT ON TRIGGER watch ON public.t IS 'watches';
    """
    back_up(make_database(16, script=script), store_dir)

    result = run_restore(sets(store_dir)[0], server_of(16), "back")

    assert result.without == ()
    copy = server_of(16).url("back")
    assert (
        value(copy, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == "watch"
    )
    assert run_drill(sets(store_dir)[0]).passed


PLACES = """
CREATE EXTENSION cube SCHEMA public; CREATE EXTENSION earthdistance SCHEMA public;
SET search_path = public;
CREATE TABLE public.places (lat float8, lon float8,
    spot public.earth GENERATED ALWAYS AS (public.ll_to_earth(lat, lon)) STORED);
INSERT INTO public.places VALUES (52.5, 13.4), (48.1, 11.6);
"""
FUNCTION = "ALTER FUNCTION public.ll_to_earth(float8, float8)"
BEFORE = [
    "CREATE EXTENSION cube SCHEMA public",
    "CREATE EXTENSION earthdistance SCHEMA public",
    f"{FUNCTION} SET search_path = public",
]


def test_a_restore_takes_the_statements_of_a_drill(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """A generated column calls a function that finds others by the search path alone."""
    back_up(make_database(15, script=PLACES), store_dir)
    chosen = sets(store_dir)[0]
    told: Any = {"sql_before": BEFORE, "sql_after": [f"{FUNCTION} RESET search_path"]}

    with pytest.raises(DatabaseError, match="places"):
        run_restore(chosen, server_of(15), "found again")
    result = run_restore(chosen, server_of(15), "found again", **told)
    with connect(server_of(15).url(), purpose="test") as connection:
        drop(connection, "found again")

    assert (result.rows, result.without) == (2, ())
    assert run_drill(chosen, **told).passed


EXPIRED = """
CREATE SCHEMA "my s";
CREATE TABLE "my s"."T" (id int CHECK (id > 0), until timestamptz,
    CONSTRAINT "not over" CHECK (until > clock_timestamp()));
COMMENT ON CONSTRAINT "not over" ON "my s"."T" IS 'only what lasts';
INSERT INTO "my s"."T" VALUES (1, clock_timestamp() + '1 s'), (2, now() + '1 year');
CREATE TABLE public.p (d timestamptz CONSTRAINT fresh CHECK (d > clock_timestamp()))
    PARTITION BY RANGE (d);
CREATE TABLE public.p1 PARTITION OF public.p (CONSTRAINT always CHECK (true)) DEFAULT;
INSERT INTO public.p VALUES (clock_timestamp() + '1 s');
CREATE TABLE public.a (d timestamptz CONSTRAINT fresh CHECK (d > clock_timestamp()));
CREATE TABLE public.b (CONSTRAINT fresh CHECK (d > clock_timestamp())) INHERITS (public.a);
INSERT INTO public.b VALUES (clock_timestamp() + '1 s');
CREATE DOMAIN public.lasting AS timestamptz CHECK (value > clock_timestamp());
CREATE TABLE public.l (l public.lasting);
INSERT INTO public.l VALUES (clock_timestamp() + '1 s');
"""
BROKEN = [
    'COMMENT my s.CONSTRAINT "not over" ON "T"',
    "CHECK CONSTRAINT my s.T not over",
    "CHECK CONSTRAINT public.p fresh",
    "CHECK CONSTRAINT public.a fresh",
    "CHECK CONSTRAINT public.b fresh",
    "CHECK CONSTRAINT public.lasting lasting_check",
]


def test_rows_that_a_check_refuses_by_now_come_back(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """The constraint is named; all others are there, with what is theirs."""
    back_up(make_database(16, script=EXPIRED), store_dir)
    chosen = sets(store_dir)[0]
    time.sleep(1.5)

    with pytest.raises(IntegrityError, match="not over") as refused:
        run_restore(chosen, server_of(16), "back")
    names = [each["name"] for each in refused.value.details["failures"]]  # type: ignore[attr-defined]
    assert sorted(names) == sorted(BROKEN)

    result = run_restore(chosen, server_of(16), "back", accepted=BROKEN)

    assert result.rows == 5
    assert sorted(result.without) == sorted(BROKEN)
    assert all(check.passed for check in result.checks)
    copy = server_of(16).url("back")
    checks = """SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint
        WHERE contype = 'c' AND oid > 16383"""
    assert value(copy, checks) == ["T_id_check", "always"]

    evidence = run_drill(chosen, allowed=BROKEN)
    assert evidence.passed, failed(evidence)


def test_a_check_that_asks_another_table_is_put_back_after_all_rows(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """In whichever order the tables are loaded; its comment comes with it."""
    script = """
    CREATE TABLE public.zz (i int);
    INSERT INTO public.zz VALUES (1);
    CREATE FUNCTION public.known(int) RETURNS boolean LANGUAGE sql STABLE
        AS 'SELECT EXISTS (SELECT FROM public.zz WHERE i = $1)';
    CREATE TABLE public.aa (i int CONSTRAINT "is known" CHECK (public.known(i)));
    COMMENT ON CONSTRAINT "is known" ON public.aa IS 'by zz';
    INSERT INTO public.aa VALUES (1);
    """
    back_up(make_database(16, script=script), store_dir)

    result = run_restore(sets(store_dir)[0], server_of(16), "back")

    assert (result.rows, result.without) == (2, ())
    comment = (
        "SELECT obj_description(oid) FROM pg_constraint WHERE conname = 'is known'"
    )
    assert value(server_of(16).url("back"), comment) == "by zz"
    evidence = run_drill(sets(store_dir)[0], jobs=1)
    assert evidence.passed, failed(evidence)
