"""Tables that are compared while others are still loaded, in real drills."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from opskit.compare.meanwhile import Meanwhile
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


# Each way in which a function of the user's runs while rows are loaded, and writes.
NOTED = """
CREATE TABLE public.audit (i int);
CREATE FUNCTION public.noted(i int) RETURNS int LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.audit VALUES (i); RETURN i; END';
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
    "view of an immutable function": "CREATE TABLE public.orders (i int);"
    "INSERT INTO public.orders SELECT generate_series(1, 20000);"
    "CREATE MATERIALIZED VIEW public.v AS SELECT public.still(i) FROM public.orders;",
}


@pytest.mark.parametrize("how", WRITERS)
def test_what_a_function_writes_during_the_load_is_noticed(
    make_database: MakeDatabase, store_dir: Path, how: str
) -> None:
    """The table it writes into may have been compared before; see `audit`."""
    url = make_database(16, NOTED + WRITERS[how] + "TRUNCATE public.audit;")
    back_up(url, store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert "table public.audit" in [check.name for check in failed(evidence)]


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
    assert evidence.rto_seconds is None
