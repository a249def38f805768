"""Whose fault it is that a load failed: the set's, or the server's and its machine's."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from opskit.config import Query
from opskit.errors import ServerFault
from opskit.postgres.servers import programs
from opskit.postgres.servers.programs import Installation
from opskit.restore.engine import Bound, NoProgress
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets, value


def _raising(statement: str) -> str:
    """Return a table that can be filled once, and then no more."""
    return f"""
    CREATE TABLE public.off ();
    CREATE FUNCTION public.fails(i int) RETURNS bool LANGUAGE plpgsql AS $$BEGIN
        IF to_regclass('public.off') IS NULL THEN {statement}; END IF;
        RETURN true; END$$;
    CREATE TABLE public.t (i int CHECK (public.fails(i)));
    INSERT INTO public.t VALUES (1), (2);
    DROP TABLE public.off;
    """


RAISING = {
    "words": "RAISE 'could not extend file: No space left on device'",
    "a code": "RAISE 'disk full' USING ERRCODE = '53100'",
    "another code": "RAISE 'crashed' USING ERRCODE = '57P02'",
    "words of psql": "RAISE E'x\\npsql:<stdin>:1: ERROR:  53100: full\\n"
    "LOCATION:  mdextend, md.c:1'",
    "words of psql that are a value": "PERFORM "
    "(E'x\\npsql:<stdin>:1: ERROR:  53100: full\\nLOCATION:  mdextend, md.c:1')::int",
    "the end of its session": "PERFORM pg_terminate_backend(pg_backend_pid())",
    "a timeout": "RAISE 'canceling statement due to statement timeout' "
    "USING ERRCODE = '57014'",
}


@pytest.mark.parametrize("what", RAISING)
def test_a_function_cannot_blame_the_machine(
    make_database: MakeDatabase, store_dir: Path, what: str
) -> None:
    """By no words and by no code; the set is to blame each time."""
    back_up(make_database(16, _raising(RAISING[what])), store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert [check.name for check in failed(evidence)] == ["restore"]


REFUSED_ROWS = {
    "a generated column": """
        CREATE TABLE public.off ();
        CREATE FUNCTION public.doubled(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$BEGIN
            IF to_regclass('public.off') IS NULL THEN
                RAISE WARNING E'x\npsql:<stdin>:1: ERROR:  53100: full\n'
                    'LOCATION:  mdextend, md.c:1';
                RAISE 'gone';
            END IF;
            RETURN 2 * i; END$$;
        CREATE TABLE public.t (i int, j int GENERATED ALWAYS AS (public.doubled(i)) STORED);
        INSERT INTO public.t VALUES (1), (2);
        DROP TABLE public.off;
    """,
    "a NULL": """
        CREATE TABLE public.t (i int);
        INSERT INTO public.t VALUES (NULL);
        UPDATE pg_attribute SET attnotnull = true
        WHERE attrelid = 'public.t'::regclass AND attname = 'i';
    """,
}


@pytest.mark.parametrize("what", REFUSED_ROWS)
@pytest.mark.parametrize("major", [15, 16])
def test_a_row_that_the_set_itself_refuses_is_its_fault(
    make_database: MakeDatabase, store_dir: Path, major: int, what: str
) -> None:
    """Also where psql does not keep the code of an error in a COPY."""
    back_up(make_database(major, REFUSED_ROWS[what]), store_dir)
    evidence = run_drill(sets(store_dir)[0])

    assert [check.name for check in failed(evidence)] == ["restore"]


def test_a_limit_of_the_server_is_no_verdict_on_the_set(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Whatever the server says when room for its files runs out."""
    script = (
        "CREATE TABLE public.t AS SELECT md5(i::text) FROM generate_series(1, 60000) i;"
        "CREATE INDEX ON public.t (md5);"
    )
    back_up(make_database(16, script), store_dir)
    settings = {"temp_file_limit": "64kB", "maintenance_work_mem": "1MB"}

    with pytest.raises(ServerFault, match="temp_file_limit") as caught:
        run_drill(sets(store_dir)[0], settings=settings)

    assert caught.value.sqlstate == "53400"


T = TypeVar("T")


def with_time(seconds: float, run: Callable[[float], T]) -> T:
    """Run with so much time.

    Where the machine was too slow for a verdict, run once more with four times as much.
    The time is kept in each run.
    """
    try:
        return _timed(seconds, run)
    except ServerFault as fault:
        if "took longer than" not in fault.message:
            raise
    return _timed(4 * seconds, run)


def _timed(seconds: float, run: Callable[[float], T]) -> T:
    began = time.monotonic()
    try:
        return run(seconds)
    finally:
        assert time.monotonic() - began < seconds + 60


@dataclass(frozen=True)
class Refusing(Installation):
    """Programs whose pg_restore reaches no server."""

    pg_restore: str = ""

    def program(self, name: str) -> str:
        return self.pg_restore if name == "pg_restore" else super().program(name)


@pytest.mark.parametrize(
    "words",
    [
        "error: connection to server failed: Connection refused",
        "Fehler: Verbindung verweigert",
        "",
    ],
)
def test_a_program_that_does_not_reach_the_server_is_no_verdict_on_the_set(
    make_database: MakeDatabase, store_dir: Path, tmp_path: Path, words: str
) -> None:
    """Whatever it says; the archive can be read."""
    back_up(make_database(16), store_dir)
    found = programs.find_server(programs.installations(), major=16)
    script = tmp_path / "pg_restore"
    script.write_text(
        f"""#!/bin/sh
        case "$*" in *--dbname*) echo "pg_restore: {words}" >&2; exit 1;; esac
        exec {found.program("pg_restore")} "$@"
        """
    )
    script.chmod(0o755)
    refusing = Refusing(
        bin_dir=found.bin_dir,
        version=found.version,
        major=found.major,
        embedded=found.embedded,
        pg_restore=str(script),
    )

    with pytest.raises(ServerFault, match="pg_restore failed"):
        run_drill(sets(store_dir)[0], installations=[refusing])


_COPIES = "SELECT count(*) FROM pg_database WHERE datname LIKE '%restoring%'"
# `orders` is the larger table, so parallel jobs begin with it.
READS_ANOTHER = """
CREATE TABLE public.limits AS SELECT i FROM generate_series(1, 2000) i;
CREATE FUNCTION public.is_known(n int) RETURNS bool LANGUAGE sql AS
    'SELECT EXISTS (SELECT FROM public.limits WHERE i = n)';
CREATE TABLE public.orders (n int CHECK (public.is_known(n)), filler text);
INSERT INTO public.orders SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i;
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE TABLE public.arrays (i public.positive[]);
INSERT INTO public.arrays VALUES ('{1,2}');
"""


def test_a_check_that_reads_another_table_has_one_verdict(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Which table is loaded first is a matter of time, unless one job loads them."""
    back_up(make_database(16, READS_ANOTHER), store_dir)

    for _ in range(4):
        assert failed(run_drill(sets(store_dir)[0])) == []


LOOPS = {
    "check": "CREATE TABLE public.t (i int CHECK (public.loops(i)));"
    "INSERT INTO public.t VALUES (1);",
    "index": "CREATE TABLE public.t (i int); INSERT INTO public.t VALUES (1);"
    "CREATE INDEX ON public.t (public.loops(i));",
    "materialized view": "CREATE MATERIALIZED VIEW public.v AS SELECT public.loops(1);",
}


@pytest.mark.parametrize("where", LOOPS)
def test_a_function_that_never_ends_fails_the_drill(
    make_database: MakeDatabase, store_dir: Path, where: str
) -> None:
    """Within the time for the whole drill; the statement that stood still is named."""
    # One of them keeps a processor busy, which the tests beside it could use.
    pause = "" if where == "index" else "PERFORM pg_sleep(0.01);"
    script = f"""
    CREATE TABLE public.off ();
    CREATE FUNCTION public.loops(i int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
        $$BEGIN
            WHILE to_regclass('public.off') IS NULL LOOP {pause} END LOOP;
            RETURN true;
        END$$;
    """
    back_up(
        make_database(16, script + LOOPS[where] + "DROP TABLE public.off"), store_dir
    )
    chosen = sets(store_dir)[0]
    evidence = with_time(15, lambda seconds: run_drill(chosen, timeout_seconds=seconds))

    (check,) = failed(evidence)
    assert check.name == "time limit"
    assert "no progress" in check.detail
    assert "public." in check.detail
    assert evidence.figures.rto_seconds is None


def test_a_query_that_never_ends_fails_the_drill(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """The time is that of the whole drill, whatever takes it."""
    back_up(make_database(16), store_dir)
    chosen = sets(store_dir)[0]
    query = Query(name="slow", sql="SELECT 1 FROM pg_sleep(300)", expect=1)
    evidence = with_time(
        15, lambda s: run_drill(chosen, queries=[query], timeout_seconds=s)
    )

    assert [check.name for check in failed(evidence)] == ["time limit"]


def test_a_query_that_its_own_limit_ends_is_no_verdict_on_the_set(
    make_database: MakeDatabase, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That limit comes first where whoever looks at the progress is held up."""
    back_up(make_database(16), store_dir)
    query = Query(name="slow", sql="SELECT 1 FROM pg_sleep(300)", expect=1)
    monkeypatch.setattr(Bound, "_watch", lambda _self, done, *_: done.wait())

    with pytest.raises(ServerFault, match="took longer than 10 seconds"):
        run_drill(sets(store_dir)[0], queries=[query], timeout_seconds=10)


def test_damage_counts_also_where_a_query_meets_the_end_of_the_time(
    make_database: MakeDatabase, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before is the set's fault, however the query ends."""
    back_up(make_database(16), store_dir)
    query = Query(name="slow", sql="SELECT 1 FROM pg_sleep(300)", expect=1)
    monkeypatch.setattr(Bound, "_watch", lambda _self, done, *_: done.wait())

    evidence = with_time(
        15,
        lambda seconds: run_drill(
            sets(store_dir)[0],
            queries=[query],
            timeout_seconds=seconds,
            tamper=lambda url: execute(url, "DELETE FROM public.orders"),
        ),
    )

    assert [each.name for each in failed(evidence)] == [
        "table public.orders",
        "query slow",
    ]


def test_a_machine_that_is_slow_is_no_verdict_on_the_set(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Rows still come in when the time is over."""
    script = """
    CREATE FUNCTION public.rests(i int) RETURNS bool LANGUAGE sql AS
        'SELECT pg_sleep(0.01) IS NOT NULL';
    CREATE TABLE public.t (i int);
    INSERT INTO public.t SELECT generate_series(1, 20000);
    ALTER TABLE public.t ADD CHECK (public.rests(i)) NOT VALID;
    UPDATE pg_constraint SET convalidated = true WHERE conrelid = 'public.t'::regclass;
    """
    back_up(make_database(16, script), store_dir)

    with pytest.raises(ServerFault, match="took longer than 12 seconds"):
        run_drill(sets(store_dir)[0], timeout_seconds=12)


def test_a_restore_loads_once_more_with_one_job(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """As a drill does; nothing of the first try is left."""
    back_up(make_database(16, READS_ANOTHER), store_dir)
    running = server_of(16)
    try:
        assert run_restore(sets(store_dir)[0], running, "once more").rows == 4001
    finally:
        execute(running.url(), 'DROP DATABASE IF EXISTS "once more"')

    assert value(running.url(), _COPIES) == 0


def test_a_restore_ends_when_its_time_is_over(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """The copy is dropped, and the statement that stood still is named."""
    script = """
    CREATE FUNCTION public.rests(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(CASE WHEN i > 1 THEN 300 ELSE 0 END); RETURN i; END';
    CREATE TABLE public.t (i int, j int);
    CREATE INDEX ON public.t (public.rests(i));
    UPDATE pg_index SET indislive = false, indisready = false, indisvalid = false
        WHERE indrelid = 'public.t'::regclass;
    INSERT INTO public.t VALUES (2, 2);
    UPDATE pg_index SET indislive = true, indisready = true, indisvalid = true
        WHERE indrelid = 'public.t'::regclass;
    """
    back_up(make_database(16, script), store_dir)
    chosen, running = sets(store_dir)[0], server_of(16)

    with pytest.raises(NoProgress, match="CREATE INDEX"):
        with_time(
            10, lambda s: run_restore(chosen, running, "too long", timeout_seconds=s)
        )

    assert value(running.url(), _COPIES) == 0
