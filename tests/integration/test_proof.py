"""Backup and drill on real servers: what passes, and what must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.reader import verify_set
from opskit.config import Query
from opskit.errors import DatabaseError
from opskit.postgres import database
from opskit.postgres.connect import connect
from opskit.postgres.parameters import parse
from opskit.postgres.servers import throwaway
from tests.conftest import MajorServer, MakeDatabase, majors
from tests.sample import SAMPLE
from tests.support import (
    back_up,
    execute,
    failed,
    processes_of,
    run_drill,
    sets,
    value,
)


@pytest.mark.parametrize("major", majors())
def test_a_backup_of_every_major_drills_exactly(
    major: int, make_database: MakeDatabase, store_dir: Path
) -> None:
    """A backup of each major at hand is drilled on the same major and passes."""
    manifest = back_up(make_database(major), store_dir).manifest

    evidence = run_drill(sets(store_dir)[0])

    assert failed(evidence) == []
    assert f"PostgreSQL {major}." in evidence.figures.drill_server
    assert {
        ("public", "orders", 500),
        ("public", "lines", 1500),
        ("other", "orders", 100),
        ("other", "empty", 0),
        ("other", "no_columns", 2),
    } == {
        (each.schema_name, each.name, each.rows)
        for each in of_database(manifest).tables
    }
    assert of_database(manifest).large_objects.count == 2


def test_writes_during_the_backup_are_no_difference(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Rows come, change and go in every table while the dump runs; the drill passes."""
    url = make_database(16)
    tables = ("public.orders", "public.lines", "other.orders", "other.empty")
    stop = threading.Event()
    rounds = []

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            execute(
                url,
                f"""
                INSERT INTO public.orders (customer, total) VALUES ('new', {number});
                UPDATE public.orders SET total = total + 1 WHERE id % 50 = {number % 50};
                DELETE FROM public.lines WHERE order_id = {number};
                INSERT INTO public.lines VALUES ({number % 500 + 1}, {number + 10}, 'w');
                UPDATE public.lines SET note = note || '!' WHERE n = {number % 3 + 1};
                UPDATE other.orders SET x = x + 1;
                DELETE FROM other.orders WHERE x = {number % 10};
                INSERT INTO other.orders VALUES ({number % 10});
                INSERT INTO other.empty VALUES ('{number}');
                UPDATE other.empty SET y = y || '+';
                DELETE FROM other.empty WHERE length(y) > 20;
                INSERT INTO other.no_columns DEFAULT VALUES;
                SELECT nextval('other.tickets');
                """,
            )
            rounds.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(rounds) < 3:
            assert writer.is_alive()
        before = len(rounds)
        for _ in range(3):
            back_up(url, store_dir)
        during = len(rounds) - before
    finally:
        stop.set()
        writer.join(60)

    assert during > 3, "nothing was written while the backups ran"
    counts = {table: value(url, f"SELECT count(*) FROM {table}") for table in tables}
    for each in sets(store_dir):
        assert failed(run_drill(each)) == []
    newest = of_database(sets(store_dir)[0].manifest)
    recorded = {f"{t.schema_name}.{t.name}": t.rows for t in newest.tables}
    assert counts != {table: recorded[table] for table in tables}


TAMPERINGS = {
    "a row missing": (
        "DELETE FROM public.lines WHERE order_id = 7 AND n = 2",
        "table public.lines",
    ),
    "a row changed": (
        "UPDATE public.orders SET total = total + 0.01 WHERE id = 3",
        "table public.orders",
    ),
    "two values swapped between rows": (
        """UPDATE public.lines SET note = CASE n WHEN 1 THEN 'note 5/2' ELSE 'note 5/1' END
           WHERE order_id = 5 AND n IN (1, 2)""",
        "table public.lines",
    ),
    "a row twice": ("INSERT INTO other.orders VALUES (1)", "table other.orders"),
    "a byte flipped": (
        "UPDATE public.lines SET raw = set_bit(raw, 3, 1 - get_bit(raw, 3)) "
        "WHERE order_id = 1 AND n = 1",
        "table public.lines",
    ),
    "a table emptied": ("TRUNCATE other.orders", "table other.orders"),
    "a table gone": ("DROP TABLE other.empty", "table other.empty"),
    "a column renamed": (
        "ALTER TABLE other.orders RENAME x TO z",
        "table other.orders",
    ),
    "a row without columns missing": (
        "DELETE FROM other.no_columns WHERE ctid = '(0,1)'",
        "table other.no_columns",
    ),
    "an index dropped": ("DROP INDEX public.orders_by_customer", "indexes"),
    "an index invalid": (
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'public.orders_by_customer'::regclass",
        "every index valid",
    ),
    "a constraint dropped": (
        "ALTER TABLE public.orders DROP CONSTRAINT total_positive",
        "constraints",
    ),
    "a constraint not validated": (
        "UPDATE pg_constraint SET convalidated = false WHERE conname = 'total_positive'",
        "every constraint validated",
    ),
    "a sequence set back": (
        "SELECT setval('other.tickets', 100)",
        "sequence other.tickets",
    ),
    "a sequence gone": ("DROP SEQUENCE other.tickets", "sequence other.tickets"),
    "a trigger disabled": (
        "ALTER TABLE public.orders DISABLE TRIGGER orders_stamp",
        "triggers",
    ),
    "a grant lost": ('REVOKE ALL ON public.orders FROM "app reader"', "grants"),
    "a view gone": ("DROP VIEW public.big", "views"),
    "a function changed": (
        """CREATE OR REPLACE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN RETURN NEW; END $$""",
        "functions",
    ),
    "a large object changed": (
        "SELECT lo_put(oid, 100, '\\x01') FROM pg_largeobject_metadata ORDER BY oid LIMIT 1",
        "large objects",
    ),
    "a large object gone": (
        "SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata",
        "large objects",
    ),
    "an extension too many": (
        "CREATE EXTENSION vector SCHEMA public",
        "extensions",
    ),
    "a table too many": ("CREATE TABLE public.surplus (a int)", "tables"),
    "an owner changed": (
        'ALTER TABLE other.orders OWNER TO "app reader"',
        "tables",
    ),
    "a role changed": ('ALTER ROLE "app reader" CREATEDB', "roles"),
}


@pytest.fixture(scope="module")
def one_set(server_of: MajorServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one set, for tests that only drill it."""
    running = server_of(16)
    with connect(running.url(), purpose="test") as connection:
        database.run_script(connection, "CREATE DATABASE for_tampering")
    execute(running.url("for_tampering"), SAMPLE)
    path = tmp_path_factory.mktemp("one") / "store"
    path.mkdir()
    back_up(running.url("for_tampering"), path)
    return path


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_drill_notices_and_names(what: str, one_set: Path) -> None:
    """Whatever is changed in the restored copy, the drill fails and names the place."""
    statement, place = TAMPERINGS[what]

    evidence = run_drill(sets(one_set)[0], tamper=lambda url: execute(url, statement))

    assert not evidence.passed
    assert place in [check.name for check in failed(evidence)]


def test_a_missing_index_is_named(one_set: Path) -> None:
    """The report says which index is missing, not only that one is."""
    evidence = run_drill(
        sets(one_set)[0],
        tamper=lambda url: execute(url, "DROP INDEX public.orders_by_customer"),
    )

    details = {check.name: check.detail for check in failed(evidence)}
    assert details["indexes"] == "missing public.orders_by_customer"
    assert "definition of INDEX public.orders_by_customer" in details


@pytest.mark.parametrize("role", ["dump", "roles", "schema", "guide"])
@pytest.mark.parametrize("damage", ["bit", "short", "missing"])
def test_a_damaged_object_fails_verify_and_drill(
    role: str, damage: str, make_database: MakeDatabase, store_dir: Path
) -> None:
    """One bit, a missing tail or a missing object: both notice and name the object."""
    manifest = back_up(make_database(16), store_dir).manifest
    stored = manifest.object(role)
    path = store_dir / stored.key
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 0x10
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-1] if damage == "short" else content)
    chosen = sets(store_dir)[0]

    verified = verify_set(chosen.manifest, chosen.stores[0])
    evidence = run_drill(chosen)

    assert [stored.key] == [bad.key for bad in verified.bad]
    assert not evidence.passed
    assert stored.key in failed(evidence)[0].detail


def test_a_manifest_that_claims_other_content_fails_the_drill(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """Rows and digest in the manifest are compared, not merely shown."""
    manifest = back_up(make_database(16), store_dir).manifest
    path = store_dir / manifest.prefix / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"rows": 500', '"rows": 501'))

    evidence = run_drill(sets(store_dir)[0])

    (check,) = failed(evidence)
    assert (check.name, check.detail) == ("table public.orders", "-1 rows")


def test_the_users_own_queries_are_asked(one_set: Path) -> None:
    """A query whose answer is not the expected one fails the drill by its name."""
    queries = [
        Query(name="right", sql="SELECT count(*) FROM orders", expect=500),
        Query(name="rows", sql="SELECT 1, 'a' UNION SELECT 2, 'b' ORDER BY 1",
              expect=[[1, "a"], [2, "b"]]),
        Query(name="wrong", sql="SELECT max(total) FROM orders", expect="1"),
        Query(name="broken", sql="SELECT nonsense", expect=1),
    ]  # fmt: skip

    evidence = run_drill(sets(one_set)[0], queries=queries)

    assert [c.name for c in failed(evidence)] == ["query wrong", "query broken"]


def test_an_empty_database_is_proved_to_be_empty(
    make_database: MakeDatabase, store_dir: Path
) -> None:
    """No table is a result when the manifest says so, and noticed when it is not."""
    back_up(make_database(16, script=""), store_dir)
    chosen = sets(store_dir)[0]

    clean = run_drill(chosen)
    surplus = run_drill(
        chosen, tamper=lambda url: execute(url, "CREATE TABLE public.t (a int)")
    )

    assert clean.passed
    assert [check.name for check in failed(surplus)] == [
        "tables",
        "definitions",
        "definition of TABLE public.t",
    ]


def test_a_killed_drill_is_cleaned_up_by_the_next(
    one_set: Path, tmp_path: Path
) -> None:
    """A server whose owner was killed is stopped and removed by the next drill."""
    # A folder of its own: whichever drill of another test is next would sweep the
    # shared one.
    work = tmp_path / "work"
    work.mkdir()
    script = (
        "from tests.support import *; from pathlib import Path; import sys, time\n"
        "def wait(url):\n"
        "    print('at', url, flush=True); time.sleep(3600)\n"
        "work = Path(sys.argv[2])\n"
        "run_drill(sets(Path(sys.argv[1]))[0], tamper=wait, work_dir=work)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(one_set), str(work)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout as output:
        while not output.readline().startswith("at "):
            assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    (folder,) = work.glob("opskit-server-*")

    removed = throwaway.sweep(work)

    assert removed == [folder]
    assert not folder.exists()
    assert not processes_of(folder)


def test_a_drill_server_that_dies_is_no_verdict_on_the_set(one_set: Path) -> None:
    """A crash of the throw-away server is this machine's fault: an error, no finding."""

    def crash(url: str) -> None:
        folder = Path(parse(url)["host"]).parent
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(DatabaseError):
        run_drill(sets(one_set)[0], tamper=crash)
