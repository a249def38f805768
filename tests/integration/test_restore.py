"""Restores into real servers: beside, compared, swapped; whole and table by table."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.sets import BackupSet
from opskit.config import LoadSettings
from opskit.errors import IntegrityError, UsageError
from opskit.postgres import database, scratch
from opskit.postgres.connect import connect, quoted
from opskit.postgres.parameters import parse, with_settings
from opskit.postgres.servers import programs, throwaway
from opskit.postgres.servers.throwaway import Server
from opskit.restore.run import RestoreRequest, RestoreResult, restore
from tests import initialised
from tests.conftest import MajorServer, MakeDatabase
from tests.sample import SAMPLE
from tests.streams import let_small_tables_apart
from tests.support import back_up, execute, limits_of, now, sets, value

_LOADING = {"settings", "sql_before", "sql_after"}


def run_restore(
    chosen: BackupSet, running: Server, target: str, **options: Any
) -> RestoreResult:
    """Restore a set into a database of a server."""
    request = RestoreRequest(
        chosen=chosen,
        server_url=running.url(),
        target=target,
        run_id="abc123",
        installations=programs.installations(),
        limits=limits_of(options),
        loading=LoadSettings(
            allow=options.pop("accepted", []),
            **{name: options.pop(name) for name in _LOADING & options.keys()},
        ),
        **options,
    )
    return restore(request, clock=now)


@pytest.fixture
def databases(server_of: MajorServer) -> Any:
    """The names of the databases on the server; those a test adds are dropped after."""
    running = server_of(16)

    def names() -> set[str]:
        with connect(running.url(), purpose="test") as connection:
            found = connection.execute("SELECT datname FROM pg_database").fetchall()
        return {name for (name,) in found}

    before = names()
    yield names
    with connect(running.url(), purpose="test") as connection:
        for name in names() - before:
            database.drop(connection, name)


def test_into_a_new_database(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """The copy has the rows, the settings and the comment of the source."""
    url = make_database(16)
    name = parse(url)["dbname"]
    execute(
        url,
        f"""ALTER DATABASE "{name}" SET search_path = 'other', 'public';
        ALTER ROLE "app reader" IN DATABASE "{name}" SET work_mem = '12MB';
        COMMENT ON DATABASE "{name}" IS 'it''s a shop; DATABASE "{name}"';
        REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC;
        GRANT CONNECT ON DATABASE "{name}" TO "app reader" """,
    )
    back_up(url, store_dir)

    result = run_restore(sets(store_dir)[0], server_of(16), "new one")

    assert (result.tables, result.rows, result.replaced) == (5, 2102, None)
    copy = server_of(16).url("new one")
    assert value(copy, "SELECT count(*) FROM public.orders") == 500
    properties = """
        SELECT array_agg(setconfig::text ORDER BY setrole),
               max((SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a)),
               max(shobj_description(d.oid, 'pg_database'))
        FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid
        WHERE datname = current_database()"""
    with connect(url, purpose="test") as one, connect(copy, purpose="test") as other:
        source = one.execute(properties.encode()).fetchone()
        restored = other.execute(properties.encode()).fetchone()
    assert source == restored


def test_a_database_that_holds_anything_is_refused(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """Nothing is touched, and the hint names --replace."""
    url = make_database(16)
    back_up(url, store_dir)
    execute(url, "DELETE FROM public.lines")
    before = databases()

    with pytest.raises(UsageError, match="is not empty") as caught:
        run_restore(sets(store_dir)[0], server_of(16), parse(url)["dbname"])

    assert "--replace" in caught.value.hint
    assert before == databases()
    assert value(url, "SELECT count(*) FROM public.lines") == 0


@pytest.mark.parametrize(
    "content",
    [
        "CREATE VIEW public.v AS SELECT 1",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE public.t AS ENUM ('a')",
        "CREATE SCHEMA s",
        "SELECT lo_create(0)",
        "CREATE EXTENSION vector SCHEMA public",
        "CREATE FOREIGN DATA WRAPPER w",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        "CREATE COLLATION public.c (locale = 'C')",
    ],
)
def test_one_object_makes_a_database_not_empty(
    content: str, make_database: MakeDatabase
) -> None:
    """Not only tables count as something to lose."""
    url = make_database(16, script="")
    with connect(url, purpose="test") as connection:
        assert database.is_empty(connection)

    execute(url, content)

    with connect(url, purpose="test") as connection:
        assert not database.is_empty(connection)


def test_an_existing_empty_database_is_filled(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """`createdb` first is what people do; the empty one gives way."""
    back_up(make_database(16), store_dir)
    empty = make_database(16, script="")
    name = parse(empty)["dbname"]
    before = databases()

    result = run_restore(sets(store_dir)[0], server_of(16), name)

    assert result.replaced is None
    assert value(empty, "SELECT count(*) FROM public.orders") == 500
    assert before == databases()


def test_replace_swaps_and_keeps_the_old(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """Open sessions are ended, the old database is kept as it was under a new name."""
    url = make_database(16)
    back_up(url, store_dir)
    execute(url, "TRUNCATE public.orders CASCADE; CREATE TABLE public.later (a int)")

    with connect(url, purpose="a service that holds its session") as _session:
        result = run_restore(
            sets(store_dir)[0], server_of(16), parse(url)["dbname"], replace=True
        )

    assert result.replaced is not None
    assert re.fullmatch(r"test \d+_before_\d{8}t\d{6}z", result.replaced)
    assert value(url, "SELECT count(*) FROM public.orders") == 500
    kept = server_of(16).url(result.replaced)
    assert value(kept, "SELECT count(*) FROM public.orders") == 0
    assert value(kept, "SELECT count(*) FROM public.later") == 0


def test_a_damaged_set_replaces_nothing(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """A flipped bit is found before the live database is touched."""
    url = make_database(16)
    manifest = back_up(url, store_dir).manifest
    path = store_dir / manifest.object("dump").key
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink()
    path.write_bytes(content)
    before = databases()

    with pytest.raises(IntegrityError, match=r"dump\.pgdump\.zst"):
        run_restore(
            sets(store_dir)[0], server_of(16), parse(url)["dbname"], replace=True
        )

    assert before == databases()
    assert value(url, "SELECT count(*) FROM public.orders") == 500


def test_a_copy_that_is_not_what_the_manifest_says_replaces_nothing(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """The comparison stands between the copy and the name."""
    url = make_database(16)
    manifest = back_up(url, store_dir).manifest
    path = store_dir / manifest.prefix / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 1500', '"rows": 1499'))
    before = databases()

    with pytest.raises(IntegrityError, match=r"table public\.lines"):
        run_restore(
            sets(store_dir)[0], server_of(16), parse(url)["dbname"], replace=True
        )

    assert before == databases()


TABLES_SCRIPT = """
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE public.parents (id int PRIMARY KEY);
CREATE TABLE public.wanted (
    id serial PRIMARY KEY, m public.mood, parent int REFERENCES public.parents,
    made int GENERATED ALWAYS AS IDENTITY, CHECK (id > 0)
);
CREATE INDEX wanted_m ON public.wanted (m);
CREATE TRIGGER t BEFORE INSERT ON public.wanted FOR EACH ROW EXECUTE FUNCTION public.f();
CREATE TABLE public.children (w int REFERENCES public.wanted);
CREATE TABLE public.parted (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (100);
CREATE TABLE public.parted_2 PARTITION OF public.parted FOR VALUES FROM (100) TO (200)
    PARTITION BY LIST (k);
CREATE TABLE public.parted_2_rest PARTITION OF public.parted_2 DEFAULT;
INSERT INTO public.parents VALUES (1);
INSERT INTO public.wanted (m, parent) SELECT 'bad', 1 FROM generate_series(1, 50);
INSERT INTO public.children SELECT id FROM public.wanted;
INSERT INTO public.parted SELECT i, 'v' || i FROM generate_series(0, 199) i;
"""


def test_single_tables_come_with_what_is_theirs(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """Rows, type, index, trigger and sequence; no foreign key to a table left behind."""
    back_up(make_database(16, script=TABLES_SCRIPT), store_dir)

    result = run_restore(
        sets(store_dir)[0],
        server_of(16),
        "some tables",
        tables=(("public", "wanted"), ("public", "parted")),
    )

    copy = server_of(16).url("some tables")
    assert (result.tables, result.rows) == (3, 250)
    names = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relkind = ANY "
    public = " AND relnamespace = 'public'::regnamespace"
    assert value(copy, names + "('{r,p}')" + public) == [
        "parted",
        "parted_1",
        "parted_2",
        "parted_2_rest",
        "wanted",
    ]
    assert "wanted_m" in value(copy, names + "('{i}')" + public)
    assert value(copy, "SELECT nextval('public.wanted_id_seq')") == 51
    assert value(copy, "SELECT nextval('public.wanted_made_seq')") == 51
    assert value(
        copy, "SELECT array_agg(contype ORDER BY contype) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace"
    ) == ["c", "p", "p", "p", "p", "p"]  # fmt: skip
    assert value(copy, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 1


def test_an_unknown_table_is_refused(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """The message names the table; nothing is created."""
    back_up(make_database(16), store_dir)
    before = databases()

    with pytest.raises(UsageError, match=r"no table public\.missing"):
        run_restore(
            sets(store_dir)[0], server_of(16), "x", tables=(("public", "missing"),)
        )

    assert before == databases()


def test_single_tables_do_not_replace_a_database(
    make_database: MakeDatabase, server_of: MajorServer, store_dir: Path, databases: Any
) -> None:
    """Swapping in a part would lose the rest."""
    back_up(make_database(16), store_dir)

    with pytest.raises(UsageError, match="do not go together"):
        run_restore(
            sets(store_dir)[0],
            server_of(16),
            "x",
            tables=(("public", "orders"),),
            replace=True,
        )


# What a restore by hand would stumble over: rows that break a constraint of a domain
# that was never validated, and settings of the database's own.
STUBBORN = """
    CREATE DOMAIN public.lax AS int; CREATE TABLE public.of_lax (a public.lax, b text[]);
    INSERT INTO public.of_lax SELECT -1, '{{NULL}}' FROM generate_series(1, 50000);
    ALTER DOMAIN public.lax ADD CONSTRAINT positive CHECK (VALUE > 0) NOT VALID;
    ALTER DATABASE {0} SET default_transaction_read_only = on;
    ALTER DATABASE {0} SET array_nulls = off;
"""


@pytest.mark.parametrize(("major", "client"), [(15, 15), (16, 16), (16, 18), (18, 18)])
@pytest.mark.parametrize(
    ("name", "streams"),
    [("guide", 1), ("postgres", 1), ("a=b 'c' \"d\"", 1), ("a=b 'c' \"d\"", 3),
     ("postgres", 2)],
)  # fmt: skip
def test_the_sets_own_guide_restores_it_without_opskit(
    major: int,
    client: int,
    name: str,
    streams: int,
    server_of: MajorServer,
    store_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every command of RESTORE.md, run as written, brings every row back."""
    let_small_tables_apart(monkeypatch)
    available = programs.installations()
    clients = [each for each in available if each.major == client]
    running = server_of(major)
    url = running.url(name)
    with connect(running.url("template1"), purpose="test") as connection:
        database.drop(connection, name)
        database.run_script(connection, f"CREATE DATABASE {quoted(name)}")
    execute(url, SAMPLE)
    execute(url, "INSERT INTO other.empty VALUES ('SET transaction_timeout = 0;')")
    execute(url, STUBBORN.format(quoted(name)))
    execute(url, "VACUUM")
    manifest = back_up(url, store_dir, installations=clients, streams=streams).manifest
    assert len(of_database(manifest).dump_bytes_of) == streams
    execute(
        with_settings(url, {"default_transaction_read_only": "off"}),
        f"""DROP SCHEMA public, other CASCADE; CREATE SCHEMA public;
        ALTER DATABASE {quoted(name)} RESET ALL""",
    )
    folder = store_dir / manifest.prefix
    blocks = re.findall(r"```sh\n(.*?)```", (folder / "RESTORE.md").read_text(), re.S)
    found = programs.find_server(available, major=major)

    with initialised.copied(), throwaway.throwaway(found) as fresh:
        environment = {
            "PATH": f"{clients[0].bin_dir}:{os.environ['PATH']}",
            "PGHOST": str(fresh.socket_dir),
            "PGPORT": str(fresh.port),
            "PGUSER": throwaway.SUPERUSER,
        }
        finished = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(blocks)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        copy = fresh.url("postgres_restored" if name == "postgres" else name)
        counts = {
            f"{t.schema_name}.{t.name}": value(
                copy, f'SELECT count(*) FROM "{t.schema_name}"."{t.name}"'
            )
            for t in of_database(manifest).tables
        }
        row = value(copy, "SELECT y FROM other.empty")
        nulls = value(copy, "SELECT count(*) FROM public.of_lax WHERE b[1] IS NULL")

    assert {
        f"{t.schema_name}.{t.name}": t.rows for t in of_database(manifest).tables
    } == counts
    assert row == "SET transaction_timeout = 0;"
    assert nulls == 50000


@pytest.mark.parametrize("name", ["postgres", "template1"])
def test_the_servers_own_databases_are_never_replaced(
    name: str, make_database: MakeDatabase, server_of: MajorServer, store_dir: Path
) -> None:
    """They look empty, and the server cannot do without them."""
    back_up(make_database(16), store_dir)

    with pytest.raises(UsageError, match="never replaced"):
        run_restore(sets(store_dir)[0], server_of(16), name, replace=True)


def test_what_is_written_into_an_empty_target_meanwhile_is_kept(
    make_database: MakeDatabase,
    server_of: MajorServer,
    store_dir: Path,
    databases: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was empty when the restore began; it is judged again when it has made way."""
    back_up(make_database(16), store_dir)
    empty = make_database(16, script="")
    name = parse(empty)["dbname"]
    real = scratch.take_name

    def take_late(*arguments: Any, **options: Any) -> None:
        execute(empty, "CREATE TABLE public.just_in_time (a int)")
        real(*arguments, **options)

    monkeypatch.setattr(scratch, "take_name", take_late)

    result = run_restore(sets(store_dir)[0], server_of(16), name)

    assert result.replaced is not None
    kept = server_of(16).url(result.replaced)
    assert value(kept, "SELECT count(*) FROM public.just_in_time") == 0
    assert value(empty, "SELECT count(*) FROM public.orders") == 500
