"""Tables that are compared while others are still loaded, in real drills."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from opskit.compare.contents import Meanwhile
from opskit.postgres import content
from opskit.postgres.connect import connect
from tests.conftest import MakeDatabase
from tests.support import back_up, execute, failed, run_drill, sets

TABLES = "".join(
    f"CREATE TABLE public.t{n} AS SELECT i, md5(i::text) t FROM generate_series(1, 2000) i;"
    f"CREATE INDEX ON public.t{n} (t);"
    for n in range(6)
)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[Collection[object]]:
    """Return what drills found equal before the load had ended."""
    found: list[Collection[object]] = []
    original = Meanwhile.settle

    def settle(self: Meanwhile):
        found.append(original(self))
        return found[-1]

    monkeypatch.setattr(Meanwhile, "settle", settle)
    return found


def test_tables_are_compared_while_others_are_loaded(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """The drill passes, and some tables were equal before all was loaded."""
    url = make_database(16)
    execute(url, TABLES)
    back_up(url, store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert failed(evidence) == []
    assert len(settled) == 1
    assert len(settled[0]) > 0


def test_a_table_that_differs_fails_the_drill_though_others_were_equal(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """What is not equal meanwhile is compared again, and named."""
    url = make_database(16)
    execute(url, TABLES)
    made = back_up(url, store_dir).manifest
    path = store_dir / made.prefix / "manifest.json"
    document = json.loads(path.read_text())
    (wrong,) = [each for each in document["tables"] if each["name"] == "t3"]
    wrong["digest"] = "0" * 32
    path.write_text(json.dumps(document))
    evidence = run_drill(sets(store_dir)[0])

    assert [check.name for check in failed(evidence)] == ["table public.t3"]
    assert len(settled[0]) > 0


def test_a_name_that_reads_like_another_is_not_taken_for_it(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """What one of them passed meanwhile says nothing of the other."""
    url = make_database(16)
    # The largest tables are loaded first: these two long before the load ends.
    alike = [("t.u", "v"), ("t", "u.v")]
    execute(url, TABLES)
    for schema, name in alike:
        execute(url, f'CREATE SCHEMA "{schema}"')
        execute(
            url,
            f'CREATE TABLE "{schema}"."{name}" AS'
            " SELECT i, md5(i::text) t FROM generate_series(1, 10000) i",
        )
    made = back_up(url, store_dir).manifest
    path = store_dir / made.prefix / "manifest.json"
    document = json.loads(path.read_text())
    for each in document["tables"]:
        if (each["schema"], each["name"]) == alike[1]:
            each["digest"] = "0" * 32
    path.write_text(json.dumps(document))
    evidence = run_drill(sets(store_dir)[0])

    assert [check.name for check in failed(evidence)] == ["table t.u.v"]
    assert alike[0] in settled[0]
    assert alike[1] not in settled[0]


# Each way in which a function of the user's runs while rows are loaded, and writes.
NOTED = """
CREATE TABLE public.audit (i int);
CREATE FUNCTION public.noted(i int) RETURNS int LANGUAGE plpgsql AS
    'BEGIN {statement}; RETURN i; END';
CREATE FUNCTION public.still(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
    'BEGIN RETURN public.noted(i); END';
"""
WRITERS = {
    "check": "CREATE TABLE public.orders (i int CHECK (public.noted(i) IS NOT NULL));"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);",
    "domain": "CREATE DOMAIN public.seen AS int CHECK (public.noted(VALUE) IS NOT NULL);"
    "CREATE TABLE public.orders (i public.seen);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);",
    "generated column": "CREATE TABLE public.orders"
    " (i int, j int GENERATED ALWAYS AS (public.still(i)) STORED);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);",
    "index": "CREATE TABLE public.orders (i int);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);"
    "CREATE INDEX ON public.orders (public.still(i));",
    "index predicate": "CREATE TABLE public.orders (i int);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);"
    "CREATE INDEX ON public.orders (i) WHERE public.still(i) > 0;",
    "partition key": "CREATE TABLE public.orders (i int)"
    " PARTITION BY RANGE (public.still(i));"
    "CREATE TABLE public.part PARTITION OF public.orders"
    " FOR VALUES FROM (0) TO (100000);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);",
    "materialized view": "CREATE MATERIALIZED VIEW public.orders AS"
    " SELECT public.noted(i) FROM generate_series(1, 20000) i;",
    "text that is run": "CREATE MATERIALIZED VIEW public.orders AS SELECT word FROM"
    " ts_stat('SELECT to_tsvector(public.noted(i)::text)"
    " FROM generate_series(1, 20000) i');",
    "view of an immutable function": "CREATE TABLE public.orders (i int);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);"
    "CREATE MATERIALIZED VIEW public.v AS SELECT public.still(i) FROM public.orders;",
}


CALLERS = {
    "policy": "CREATE TABLE public.orders (i int);"
    "CREATE POLICY p ON public.orders USING (public.noted(i) > 0);",
    "operator": "CREATE OPERATOR public.@@@ (FUNCTION = public.noted, RIGHTARG = int);",
    "cast": "CREATE TYPE public.own AS (i int);"
    "CREATE FUNCTION public.cast(int) RETURNS public.own LANGUAGE sql AS 'SELECT $1';"
    "CREATE CAST (int AS public.own) WITH FUNCTION public.cast(int);",
    "event trigger": "CREATE FUNCTION public.seen() RETURNS event_trigger"
    " LANGUAGE plpgsql AS 'BEGIN PERFORM public.noted(1); END';"
    "CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION public.seen();",
    "type": "CREATE TYPE public.own; CREATE FUNCTION public.own_in(cstring)"
    " RETURNS public.own IMMUTABLE STRICT LANGUAGE internal AS 'textin';"
    "CREATE FUNCTION public.own_out(public.own) RETURNS cstring IMMUTABLE STRICT"
    " LANGUAGE internal AS 'textout';"
    "CREATE TYPE public.own (INPUT = public.own_in, OUTPUT = public.own_out);",
}
BYSTANDERS = {
    "nothing": "",
    "function": "CREATE FUNCTION public.other(i int) RETURNS int LANGUAGE sql AS"
    " 'SELECT public.noted(i)'; CREATE PROCEDURE public.p() LANGUAGE sql AS 'SELECT 1';",
    "aggregate": "CREATE AGGREGATE public.a (int) (sfunc = int4pl, stype = int);",
    "trigger": "CREATE TABLE public.orders (i int);"
    "CREATE FUNCTION public.seen() RETURNS trigger"
    " LANGUAGE plpgsql AS 'BEGIN PERFORM public.noted(1); RETURN NEW; END';"
    "CREATE TRIGGER seen BEFORE INSERT ON public.orders"
    " FOR EACH ROW WHEN (public.still(NEW.i) > 0) EXECUTE FUNCTION public.seen();",
    "default": "CREATE TABLE public.orders (i int DEFAULT public.noted(1));",
    "expressions of built-in functions": "CREATE TABLE public.orders"
    " (i int CHECK (abs(i) > 0), j int GENERATED ALWAYS AS (abs(i)) STORED, s serial);"
    "CREATE INDEX ON public.orders (abs(i)); ALTER TABLE public.orders ADD PRIMARY KEY (s);"
    "CREATE MATERIALIZED VIEW public.v AS SELECT upper(table_name::text)"
    " FROM information_schema.tables;",
}


@pytest.mark.parametrize(
    ("how", "statement"),
    [
        *((how, "INSERT INTO public.audit VALUES (i)") for how in WRITERS),
        *((how, "UPDATE public.audit SET i = 2") for how in list(WRITERS)[-3:]),
    ],
)
def test_what_a_function_writes_during_the_load_is_noticed(
    make_database: MakeDatabase, store_dir: Path, how: str, statement: str
) -> None:
    """The table it writes into may have been compared before; see `audit`."""
    url = make_database(
        16,
        NOTED.format(statement=statement)
        + WRITERS[how]
        + "TRUNCATE public.audit; INSERT INTO public.audit VALUES (1);",
    )
    back_up(url, store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert "table public.audit" in [check.name for check in failed(evidence)]


@pytest.mark.parametrize("major", [15, 16])
@pytest.mark.parametrize(
    ("script", "runs"),
    [
        *((each, True) for how, each in WRITERS.items() if how != "text that is run"),
        *((each, True) for each in CALLERS.values()),
        *((each, False) for each in BYSTANDERS.values()),
    ],
    ids=[
        *(each for each in WRITERS if each != "text that is run"),
        *CALLERS,
        *BYSTANDERS,
    ],
)
def test_a_function_runs_where_something_else_than_a_trigger_calls_it(
    make_database: MakeDatabase, major: int, script: str, runs: bool
) -> None:
    """Whatever calls it directly or by a function of its own."""
    url = make_database(major, NOTED.format(statement="NULL") + script)
    with connect(url, purpose="test") as connection:
        assert content.runs_own_code(connection) is runs


@pytest.mark.parametrize(
    "how",
    [
        "CREATE TABLE public.orders (i int CHECK (nextval('public.s') > 0));"
        "INSERT INTO public.orders SELECT generate_series(1, 20000);",
        "CREATE FUNCTION public.counted(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM nextval(''public.s''); RETURN i; END';"
        "CREATE TABLE public.orders AS SELECT i FROM generate_series(1, 20000) i;"
        "CREATE INDEX ON public.orders (public.counted(i));",
    ],
    ids=["check", "index"],
)
def test_a_sequence_that_rows_count_on_has_its_value_at_the_end(
    make_database: MakeDatabase, store_dir: Path, how: str
) -> None:
    """However many jobs load: nothing that runs for rows comes after it."""
    back_up(make_database(16, f"CREATE SEQUENCE public.s; {how}"), store_dir)

    for _ in range(2):
        assert failed(run_drill(sets(store_dir)[0])) == []


def test_what_the_users_own_statements_change_is_noticed(
    make_database: MakeDatabase, store_dir: Path, settled: list[Collection[object]]
) -> None:
    """A row of a table that was equal before is another one; the others are not."""
    url = make_database(16, TABLES)
    back_up(url, store_dir)
    evidence = run_drill(
        sets(store_dir)[0], sql_after=["UPDATE public.t2 SET t = '' WHERE i = 7"]
    )

    assert [check.name for check in failed(evidence)] == ["table public.t2"]
    assert len(settled[0]) > 0


@pytest.mark.parametrize(
    ("statement", "holds"),
    [
        ("SELECT", True),
        ("VACUUM FULL FREEZE public.t0", True),
        ("UPDATE public.t0 SET t = t WHERE i = 7", False),
        ("DELETE FROM public.t0 WHERE i = 7", False),
        ("INSERT INTO public.t0 VALUES (7)", False),
        ("TRUNCATE public.t0", False),
        (
            "WITH gone AS (DELETE FROM public.t0 WHERE i = 7 RETURNING *) "
            "INSERT INTO public.t0 SELECT * FROM gone",
            False,
        ),
        ("ALTER TABLE public.t0 ALTER t TYPE bytea USING t::bytea", False),
    ],
)
def test_a_table_is_as_written_until_somebody_writes(
    make_database: MakeDatabase, statement: str, holds: bool
) -> None:
    """Whatever became of its file, and also where the number of rows is the same."""
    url = make_database(16, TABLES)
    with connect(url, purpose="test") as connection:
        by = content.writer(connection, "public", "t0")
        execute(url, statement)
        found = content.is_as_written(
            connection, "public", "t0", ["i", "t"], rows=2000, by=by
        )

    assert found is holds


def test_a_restore_that_failed_took_no_time(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """There is no RTO where nothing came back."""
    url = make_database(16)
    execute(
        url,
        "CREATE TABLE public.t (id int);INSERT INTO public.t VALUES (1);",
    )
    back_up(url, store_dir)
    evidence = run_drill(
        sets(store_dir)[0], sql_before=["CREATE TABLE public.t (id int)"]
    )

    assert [check.name for check in failed(evidence)] == ["restore"]
    assert evidence.figures.rto_seconds is None
