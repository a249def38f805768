"""Databases as people have them: each is backed up, drilled, and found equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from opskit.postgres import database
from opskit.postgres.connect import connect
from tests.conftest import MajorServer
from tests.support import back_up, execute, failed, run_drill, sets

_DATABASE = "kinds"
KINDS = {
    "names and labels with line separators of Unicode": """
        CREATE TABLE public.\"a\u2028b\" (a int);
        CREATE TYPE public.mood AS ENUM ('x\u0085y', 'z\u2029')
    """,
    "constraints of domains that are not validated": """
        CREATE DOMAIN public.d AS int; CREATE TABLE public.t (a public.d);
        INSERT INTO public.t VALUES (5);
        ALTER DOMAIN public.d ADD CONSTRAINT c CHECK (VALUE > 0) NOT VALID
    """,
    "large objects with high numbers": "SELECT lo_from_bytea(3000000000, 'abc')",
    "a check that PostgreSQL writes differently after a restore": r"""
        CREATE TABLE public.t (s varchar(10) CHECK (s IN ('a','b')));
        INSERT INTO public.t VALUES ('a')
    """,
    "inheritance with columns in another order": r"""
        CREATE TABLE public.p (a int, b text);
        CREATE TABLE public.c (x int) INHERITS (public.p);
        ALTER TABLE public.p ADD COLUMN z int;
        INSERT INTO public.c VALUES (1,'q',2,3);
        INSERT INTO public.p VALUES (9,'p',8)
    """,
    "generated and identity columns": r"""
        CREATE TABLE public.g (a int, b int GENERATED ALWAYS AS (a*2) STORED, i int GENERATED ALWAYS AS IDENTITY);
        INSERT INTO public.g(a) VALUES (1),(2);
        CREATE TABLE public.allgen (b int GENERATED ALWAYS AS (1) STORED);
        INSERT INTO public.allgen DEFAULT VALUES
    """,
    "odd names": """
        CREATE SCHEMA "sch ""e.ma%s";
        CREATE TABLE "sch ""e.ma%s"."ta\nble.x, (y) ü" ("co""l, (a" int, "%s %(x)s" text, "ä" text);
        INSERT INTO "sch ""e.ma%s"."ta\nble.x, (y) ü" VALUES (1,'a','b');
        CREATE SEQUENCE "sch ""e.ma%s"."s.'q";
        SELECT nextval('"sch ""e.ma%s"."s.''q"')
    """,
    "a constraint not validated and an invalid index": r"""
        CREATE TABLE public.n (a int);
        INSERT INTO public.n VALUES (1),(1),(-5);
        ALTER TABLE public.n ADD CONSTRAINT pos CHECK (a>0) NOT VALID;
        CREATE INDEX bad ON public.n (a);
        UPDATE pg_index SET indisvalid=false WHERE indexrelid='public.bad'::regclass
    """,
    "materialized views, filled and not": r"""
        CREATE TABLE public.m (a int);
        INSERT INTO public.m VALUES (1);
        CREATE MATERIALIZED VIEW public.mv AS SELECT * FROM public.m;
        CREATE MATERIALIZED VIEW public.mv2 AS SELECT * FROM public.m WITH NO DATA;
        CREATE INDEX ON public.mv (a)
    """,
    "forced row-level security": r"""
        CREATE TABLE public.r (a int);
        ALTER TABLE public.r ENABLE ROW LEVEL SECURITY;
        ALTER TABLE public.r FORCE ROW LEVEL SECURITY;
        CREATE POLICY p ON public.r USING (a > 1);
        INSERT INTO public.r VALUES (1)
    """,
    "unlogged tables, dropped columns, event triggers": r"""
        CREATE FUNCTION public.f() RETURNS event_trigger LANGUAGE plpgsql
        AS $$ BEGIN END $$;
        CREATE UNLOGGED TABLE public.u (a int);
        INSERT INTO public.u VALUES (1);
        CREATE TABLE public.d (a int, b int, c int);
        ALTER TABLE public.d DROP COLUMN b;
        INSERT INTO public.d VALUES (1,2);
        CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION public.f();

    """,
    "exclusion and deferrable constraints": r"""
        CREATE TABLE public.e (r int4range, EXCLUDE USING gist (r WITH &&));
        CREATE TABLE public.f1 (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO public.e VALUES ('[1,2)')
    """,
    "composites, domains, ranges and arrays of them": r"""
        CREATE TYPE public.c AS (a int, b text);
        CREATE DOMAIN public.dd AS int CHECK (VALUE > 0);
        CREATE TYPE public.rr AS RANGE (subtype=float8);
        CREATE TABLE public.tt (a public.c, b public.dd, c public.rr, d public.c[]);
        INSERT INTO public.tt VALUES ((1,'x,"y'), 3, '[1.5,2)', ARRAY[(1,'z')::public.c])
    """,
    "no schema public": r"""
        DROP SCHEMA public;
        CREATE SCHEMA x;
        CREATE TABLE x.t (a int)
    """,
    "the schema public renamed": r"""
        ALTER SCHEMA public RENAME TO pub2;
        CREATE TABLE pub2.t (a int);
        INSERT INTO pub2.t VALUES (1)
    """,
    "an extension's type and index": r"""
        CREATE EXTENSION vector SCHEMA public;
        CREATE TABLE public.v (e public.vector(3));
        INSERT INTO public.v VALUES ('[1,2,3]');
        CREATE INDEX ON public.v USING hnsw (e public.vector_l2_ops)
    """,
    "1,500 columns": r"""
        DO $$ BEGIN EXECUTE 'CREATE TABLE public.w (' || (SELECT string_agg('c'||i||' int', ',') FROM generate_series(1,1500) i) || ')';
        END $$;
        INSERT INTO public.w(c1) VALUES (1)
    """,
    "a large object with a comment, a row of 50 MB": r"""
        SELECT lo_from_bytea(123456, 'abc');
        COMMENT ON LARGE OBJECT 123456 IS 'x';
        CREATE TABLE public.big AS SELECT repeat('x', 50000000) AS t
    """,
    "column grants and default privileges": r"""
        CREATE TABLE public.dp (a int, b int);
        GRANT SELECT (a) ON public.dp TO PUBLIC;
        ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
        CREATE TABLE public.dp2 (a int)
    """,
    "a publication, a foreign server and table": r"""
        CREATE TABLE public.pt (a int);
        CREATE PUBLICATION pp FOR TABLE public.pt;
        CREATE FOREIGN DATA WRAPPER dummy;
        CREATE SERVER s FOREIGN DATA WRAPPER dummy;
        CREATE FOREIGN TABLE public.ft (a int) SERVER s
    """,
    "foreign keys in a circle": r"""
        CREATE TABLE public.a (id int PRIMARY KEY, b int);
        CREATE TABLE public.b (id int PRIMARY KEY, a int REFERENCES public.a);
        ALTER TABLE public.a ADD FOREIGN KEY (b) REFERENCES public.b;
        INSERT INTO public.a VALUES (1,NULL);
        INSERT INTO public.b VALUES (1,1);
        UPDATE public.a SET b=1
    """,
}


def prove(
    server_of: MajorServer,
    store_dir: Path,
    script: str,
    *,
    encoding: str = "UTF8",
    **options: Any,
) -> set[str]:
    """Back a new database up, drill it, and return the tables whose data it holds."""
    running = server_of(16)
    create = f"CREATE DATABASE {_DATABASE} TEMPLATE template0 LOCALE 'C' ENCODING "
    with connect(running.url(), purpose="test") as connection:
        database.drop(connection, _DATABASE)
        database.run_script(connection, f"{create}'{encoding}'")
    url = running.url(_DATABASE)
    execute(url, script)
    manifest = back_up(url, store_dir, **options).manifest

    assert failed(run_drill(sets(store_dir)[0])) == []
    return {table.name for table in manifest.tables}


@pytest.mark.parametrize("kind", KINDS)
def test_a_drill_raises_no_false_alarm(
    kind: str, server_of: MajorServer, store_dir: Path
) -> None:
    """Nothing was changed, so nothing differs."""
    prove(server_of, store_dir, KINDS[kind])


@pytest.mark.parametrize(
    ("encoding", "value"),
    [("LATIN1", r"U&'\00e4\00fc'"), ("SQL_ASCII", r"E'\xff\xfe'")],
)
def test_other_encodings(
    encoding: str, value: str, server_of: MajorServer, store_dir: Path
) -> None:
    """Bytes come back as they were, in values and in names."""
    script = f"""
        CREATE TABLE public.l (t text); INSERT INTO public.l VALUES ({value});
        CREATE TABLE public."tä" (a int); INSERT INTO public."tä" VALUES (1)"""

    assert len(prove(server_of, store_dir, script, encoding=encoding)) == 2


def test_what_is_left_out_is_no_difference(
    server_of: MajorServer, store_dir: Path
) -> None:
    """Excluded tables and excluded rows are not missed in the copy."""
    tables = prove(
        server_of,
        store_dir,
        """CREATE TABLE public.keep (a serial PRIMARY KEY);
        CREATE TABLE public.skip_me (a serial PRIMARY KEY);
        CREATE TABLE public.nodata (a int); INSERT INTO public.nodata VALUES (1);
        INSERT INTO public.keep DEFAULT VALUES""",
        exclude_tables=["skip*"],
        exclude_table_data=["public.nodata"],
    )

    assert {"keep"} == tables
