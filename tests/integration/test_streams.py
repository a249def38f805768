"""Several dumps under one snapshot: together they are one exact copy, or no set."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.reader import SetReader
from opskit.errors import BackupFailed
from opskit.postgres.archive import toc
from opskit.postgres.connect import connect
from opskit.postgres.servers.programs import Installation, find_client
from opskit.restore.run import RestoreRequest, restore
from opskit.restore.unpack import unpack_dump
from opskit.store import LocalStore
from tests.conftest import MajorServer, MakeDatabase
from tests.integration.test_backup_faults import everything, stub
from tests.sample import SAMPLE
from tests.streams import let_small_tables_apart
from tests.support import LIMITS, back_up, execute, failed, now, run_drill, sets, value

MORE = """
    CREATE TABLE public."Wide.table $1" (id serial PRIMARY KEY, t text);
    INSERT INTO public."Wide.table $1" (t)
      SELECT repeat(md5(i::text), 20) FROM generate_series(1, 4000) i;
    CREATE TABLE public.measured (at date, v int) PARTITION BY RANGE (at);
    CREATE TABLE public.measured_1 PARTITION OF public.measured
      FOR VALUES FROM ('2026-01-01') TO ('2026-06-01');
    CREATE TABLE public.measured_2 PARTITION OF public.measured
      FOR VALUES FROM ('2026-06-01') TO ('2027-01-01');
    INSERT INTO public.measured
      SELECT '2026-01-01'::date + i % 360, i FROM generate_series(1, 20000) i;
    CREATE TABLE public.spread (id int) PARTITION BY HASH (id);
    CREATE TABLE public.spread_0 PARTITION OF public.spread
      FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE public.spread_1 PARTITION OF public.spread
      FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO public.spread SELECT generate_series(1, 30000);
    CREATE TABLE public.tree (id int PRIMARY KEY, up int REFERENCES public.tree);
    INSERT INTO public.tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 9000) i;
    SELECT lo_from_bytea(0, repeat('large', 3000)::bytea);
"""


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> None:
    let_small_tables_apart(monkeypatch)


@pytest.fixture
def make_large(make_database: MakeDatabase) -> Callable[[int], str]:
    """Return a function that makes a database whose tables are dumped apart."""

    def make(major: int) -> str:
        url = make_database(major, SAMPLE + MORE)
        execute(url, "VACUUM")
        return url

    return make


def _back_up_by(programs: Installation, url: str, store_dir: Path) -> None:
    back_up(url, store_dir, streams=2, installations=[programs])


def _roles(store_dir: Path) -> list[str]:
    (one_set,) = sets(store_dir)
    return [each.role for each in one_set.manifest.objects]


@pytest.mark.parametrize(("major", "streams"), [(15, 2), (16, 3), (18, 5)])
def test_all_streams_together_are_an_exact_copy(
    make_large: Callable[[int], str], store_dir: Path, major: int, streams: int
) -> None:
    """The drill compares every table, and its mutants are noticed in each of them."""
    url = make_large(major)

    manifest = back_up(url, store_dir, streams=streams).manifest

    dumps = ["dump", *[f"rows-{number}" for number in range(1, streams)]]
    assert [each.role for each in of_database(manifest).streams] == dumps
    assert set(dumps) <= set(_roles(store_dir))
    assert (
        sum(each.dump_bytes for each in of_database(manifest).streams)
        == manifest.dump_bytes
    )
    assert manifest.format_version == 2
    evidence = run_drill(sets(store_dir)[0], mutants=10)
    assert failed(evidence) == []
    assert evidence.figures.tables == len(of_database(manifest).tables)


def test_one_stream_is_a_set_as_ever(
    make_large: Callable[[int], str], store_dir: Path
) -> None:
    """What one dump holds, an opskit that knows no streams restores."""
    manifest = back_up(make_large(16), store_dir, streams=1).manifest

    assert of_database(manifest).streams == ()
    assert manifest.format_version == 1
    assert [each for each in _roles(store_dir) if each.startswith("rows")] == []


def test_partitions_by_hash_stay_with_the_catch_all(
    make_large: Callable[[int], str], store_dir: Path, tmp_path: Path
) -> None:
    """pg_dump may have to load them through their root; by range it never does."""
    back_up(make_large(16), store_dir, streams=32)
    (one_set,) = sets(store_dir)
    apart = {
        entry.name
        for stored in one_set.manifest.objects
        if stored.role.startswith("rows")
        for entry in _contents(one_set.stores[0], stored.key, tmp_path).entries
        if entry.has_data
    }

    assert {"Wide.table $1", "measured_1", "measured_2", "tree"} <= apart
    assert not apart & {"spread_0", "spread_1"}


def _contents(store: object, key: str, folder: Path) -> toc.Contents:
    import zstandard

    assert isinstance(store, LocalStore)
    with store.open(key) as file:
        content = zstandard.ZstdDecompressor().stream_reader(file).read()
    (folder / "one").write_bytes(content)
    return toc.read(folder / "one")


def test_rows_written_meanwhile_are_no_difference(
    make_large: Callable[[int], str], store_dir: Path
) -> None:
    """All streams see the snapshot's rows, whenever they begin."""
    url = make_large(16)
    done = threading.Event()
    written: list[int] = []

    def write() -> None:
        with connect(url, purpose="test") as connection:
            while not done.is_set():
                for table in ('public."Wide.table $1" (t)', "public.tree (id)"):
                    what = "'new'" if "Wide" in table else str(10_000 + len(written))
                    connection.execute(f"INSERT INTO {table} VALUES ({what})")
                written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        back_up(url, store_dir, streams=3)
    finally:
        done.set()
        writer.join()

    assert written
    assert failed(run_drill(sets(store_dir)[0])) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('REAL "$@" | head -c 30000; kill -9 $$', "killed by signal 9"),
        ('REAL "$@" | head -c 30000; exit 0', "proper end"),
        ("sleep 1; exit 1", "exited with 1"),
        ('REAL "$@" --table=nothing', "no matching tables"),
    ],
    ids=["killed", "cut short", "fails at once", "refuses"],
)
@pytest.mark.parametrize("which", ["catch-all", "rows"])
def test_one_stream_that_fails_ends_the_backup(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
    script: str,
    words: str,
    which: str,
) -> None:
    """The others are ended, nothing is recorded, and what went wrong is told."""
    url = make_large(16)
    real = find_client(installations, server_major=16)
    good, bad = 'REAL "$@"', script
    if which == "catch-all":
        good, bad = bad, good
    program = f'case "$*" in *--section=data*) {bad};; *) {good};; esac'

    with pytest.raises(BackupFailed, match=words):
        _back_up_by(stub(tmp_path / "bin", real, program), url, store_dir)

    assert everything(store_dir) == []
    assert not list((tmp_path / "state").rglob("*.json"))
    # A server takes a moment to notice that a program has ended.
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
    until = time.monotonic() + 60
    while value(url, left) and time.monotonic() < until:
        time.sleep(0.1)
    assert value(url, left) == 0


def test_a_hanging_stream_does_not_outlive_another_ones_error(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """It is ended by us, not by its own limit of an hour."""
    real = find_client(installations, server_major=16)
    # No other run of the tests, beside this one, sleeps for that long.
    hanging = f"sleep 617.{os.getpid()}"
    program = f'case "$*" in *--section=data*) exit 3;; *) exec {hanging};; esac'

    with pytest.raises(BackupFailed, match="exited with 3"):
        _back_up_by(stub(tmp_path / "bin", real, program), make_large(16), store_dir)

    left = subprocess.run(["pgrep", "-fx", hanging], capture_output=True)
    assert left.stdout == b""


def test_rows_that_two_streams_hold_are_no_backup(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """A restore would have each of them twice."""
    real = find_client(installations, server_major=16)
    forgetful = (
        'for each; do shift; case "$each" in --exclude-table-data=*) ;; '
        '*) set -- "$@" "$each";; esac; done; exec REAL "$@"'
    )

    with pytest.raises(BackupFailed, match="two streams of the dump hold the data of"):
        _back_up_by(stub(tmp_path / "bin", real, forgetful), make_large(16), store_dir)

    assert everything(store_dir) == []


def _racing(url: str, real: Installation, rows: str, catch_all: str) -> str:
    """Return a script for pg_dump beside which a table is truncated."""
    psql = f'{real.program("psql")} -qXAt -d "{url}" -c'
    locks = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'public.tree'::regclass"
    functions = (
        f"truncate() {{ {psql} 'TRUNCATE public.tree'; }}\n"
        f"""is_lock() {{ {psql} "{locks} AND $1" | grep -q t; }}\n"""
        'await() { for _ in $(seq 600); do "$@" && return; sleep 0.05; done; exit 9; }\n'
    )
    return (
        f'{functions}case "$*" in *--section=data*) {rows};; '
        f'*) {catch_all};; esac; exec REAL "$@"'
    )


def test_a_table_truncated_before_its_stream_has_it_is_no_backup(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """TRUNCATE does not wait for a snapshot, and streams take their locks by turns."""
    url = make_large(16)
    real = find_client(installations, server_major=16)
    done = tmp_path / "done"
    racing = _racing(url, real, f"truncate; touch {done}", f"await rm {done}")

    with pytest.raises(BackupFailed, match=r"public\.tree was truncated"):
        _back_up_by(stub(tmp_path / "bin", real, racing), url, store_dir)


def test_a_truncate_that_comes_between_two_streams_is_let_pass(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """It waits for one of them, and the other for it: they begin again behind it."""
    url = make_large(16)
    real = find_client(installations, server_major=16)
    between = (
        f"if mkdir {tmp_path}/once; then "
        "await is_lock granted; truncate & await is_lock 'NOT granted'; fi"
    )
    racing = _racing(url, real, ":", between)

    _back_up_by(stub(tmp_path / "bin", real, racing), url, store_dir)

    (made,) = sets(store_dir)
    assert {each.name: each.rows for each in of_database(made.manifest).tables}[
        "tree"
    ] == 0
    assert failed(run_drill(sets(store_dir)[0])) == []


@pytest.fixture
def one_damaged(
    make_large: Callable[[int], str], store_dir: Path, tmp_path: Path
) -> str:
    """A set in two stores; in the first of them one object of rows is damaged."""
    stores = [LocalStore("near", store_dir), LocalStore("far", tmp_path / "far")]
    (tmp_path / "far").mkdir()
    manifest = back_up(make_large(16), store_dir, stores=stores, streams=3).manifest
    key = manifest.object("rows-2").key
    path = store_dir / key
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return key


def test_damage_in_one_stream_is_a_finding(one_damaged: str, store_dir: Path) -> None:
    """It is named."""
    evidence = run_drill(sets(store_dir)[0])

    (found,) = failed(evidence)
    assert one_damaged in str(found)


def test_a_restore_takes_the_store_where_all_streams_are_whole(
    one_damaged: str,
    store_dir: Path,
    tmp_path: Path,
    server_of: MajorServer,
    installations: list[Installation],
) -> None:
    """And everything of it from there; a single table comes out of any stream."""
    from opskit.catalog import catalog

    stores = [LocalStore("near", store_dir), LocalStore("far", tmp_path / "far")]
    (chosen,) = catalog.read(stores).sets
    for tables in ((), (("public", "tree"),)):
        result = restore(
            RestoreRequest(
                run_id="abc123",
                chosen=chosen,
                server_url=server_of(16).url(),
                target=f"whole {len(tables)}",
                tables=tables,
                installations=installations,
                limits=LIMITS,
            ),
            clock=now,
        )
        assert result.rows == (9000 if tables else of_database(chosen.manifest).rows)


def test_pg_restore_lists_the_joined_archive(
    make_large: Callable[[int], str],
    store_dir: Path,
    tmp_path: Path,
    installations: list[Installation],
) -> None:
    """The stock program reads it, one job or several, and finds every table once."""
    manifest = back_up(make_large(16), store_dir, streams=3).manifest
    (one_set,) = sets(store_dir)
    archive = tmp_path / "archive"
    unpack_dump(SetReader(manifest=manifest, store=one_set.stores[0]), archive)
    program = find_client(installations, server_major=16).program("pg_restore")

    listed = subprocess.run(
        [program, "--list", archive], capture_output=True, check=True
    )
    script = subprocess.run(
        [program, "--file=-", archive], capture_output=True, check=True
    )

    assert listed.stdout.count(b"TABLE DATA") == len(of_database(manifest).tables)
    assert script.stdout.count(b"\nCOPY ") == len(of_database(manifest).tables)
    assert script.stdout.count(b"\n") > of_database(manifest).rows
