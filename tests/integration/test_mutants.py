"""Mutants on real servers: each is noticed, none is left behind, a blind eye is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opskit.catalog.manifest import of_database
from opskit.catalog.reader import SetReader
from opskit.checks import Check
from opskit.compare import contents, structure
from opskit.compare.contents import RestoredCopy
from opskit.mutants import objects as mutants_objects
from opskit.mutants import rows
from opskit.mutants.mutant import MutantReport
from opskit.mutants.planting import plant
from opskit.postgres import schema
from opskit.postgres.connect import connect
from opskit.store import LocalStore
from opskit.workspace import Limits
from tests.conftest import MakeDatabase, majors
from tests.support import back_up, execute, sets, value

CONTENTS = {
    "drop a row",
    "change a value",
    "lose a value",
    "swap two values",
    "duplicate a row",
    "insert a row",
    "flip a byte",
    "truncate a table",
    "set a sequence back",
    "set a sequence forward",
    "add a large object",
    "delete a large object",
    "change a large object",
}
# Something for each kind of mutant, and what makes it hard to plant some.
RICH = r"""
CREATE SCHEMA "o""d.d %s"; CREATE SCHEMA alone;
CREATE TABLE "o""d.d %s"."ta'b
le %" ("co""l %(x)s" int, "b.c" text);
INSERT INTO "o""d.d %s"."ta'b
le %" VALUES (1, '%s'), (2, '\');
CREATE SEQUENCE "o""d.d %s"."s'%"; SELECT nextval('"o""d.d %s"."s''%"') FROM generate_series(1, 9);
CREATE INDEX "i.%" ON "o""d.d %s"."ta'b
le %" ("b.c");

CREATE TYPE public.size AS ENUM ('s', 'm', 'l');
CREATE TYPE public.unused AS (a int);
CREATE TYPE public.pair AS (a int, b text);
CREATE DOMAIN public.positive AS int CHECK (VALUE > 0);
CREATE FUNCTION public.unused_too(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION public.parsed(a int) RETURNS int LANGUAGE sql RETURN a + 1;
CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('public.counted'); RETURN NULL; END $$;
CREATE SEQUENCE public.counted; SELECT nextval('public.counted');
CREATE FUNCTION public.same(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 = $2';
CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = public.same);

CREATE TABLE public.types (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) STORED,
    n int NOT NULL DEFAULT 5, f float8, m money, num numeric(5, 2), t text, v varchar(3), c char(4), q "char",
    b boolean, e public.size, raw bytea, d date, ts timestamptz, tm time, i interval, a int[], j json, jb jsonb,
    r int4range, mr int4multirange, u uuid, ip inet, x bit(3), vx varbit, g point, w tsvector, tq tsquery,
    mac macaddr, lsn pg_lsn, o oid, p public.pair, pos public.positive);
INSERT INTO public.types (n, f, m, num, t, v, c, q, b, e, raw, d, ts, tm, i, a, j, jb, r, mr, u, ip, x, vx, g, w, tq, mac, lsn, o, p, pos)
    SELECT k, 'NaN', '5', 999.99, '', 'abc', 'x', 'z', k % 2 = 0, 's', '\x00ff', 'infinity', '-infinity', '23:59:59.999999', '1 day',
    '{{1,2},{3,4}}', '{"a" : 1}', '{}', 'empty', '{}', '00000000-0000-0000-0000-000000000000', '255.255.255.255', '101', '',
    '(0,-0)', '', 'a & b', 'ff:ff:ff:ff:ff:ff', 'FFFFFFFF/FFFFFFFF', 4294967295, (k::int, NULL::text)::public.pair, 2147483647
    FROM generate_series(1, 5) k;
CREATE TABLE public.nulls (LIKE public.types); ALTER TABLE public.nulls ALTER id DROP NOT NULL, ALTER n DROP NOT NULL;
INSERT INTO public.nulls DEFAULT VALUES; INSERT INTO public.nulls DEFAULT VALUES;

CREATE TABLE public.alike (a int, b text); INSERT INTO public.alike SELECT 1, 'x' FROM generate_series(1, 9);
CREATE TABLE public.single (a char(3), CHECK (a <> 'xxx')); INSERT INTO public.single VALUES ('a'), ('b');
CREATE TABLE public.computed (a int GENERATED ALWAYS AS (1) STORED); INSERT INTO public.computed DEFAULT VALUES;
CREATE TABLE public.bare (); INSERT INTO public.bare DEFAULT VALUES;
CREATE UNLOGGED TABLE public.unlogged (raw bytea); INSERT INTO public.unlogged VALUES ('\x00'), ('');
CREATE TABLE public.must (a int NOT NULL, e public.size NOT NULL, t text NOT NULL, UNIQUE (a));
CREATE TABLE public.always (a int, b int); INSERT INTO public.always VALUES (1, 2), (3, 4);
CREATE TRIGGER always BEFORE INSERT OR UPDATE OR DELETE ON public.always FOR EACH ROW EXECUTE FUNCTION public.swallow();
ALTER TABLE public.always ENABLE ALWAYS TRIGGER always;
CREATE TABLE public.ruled (a int, b int); INSERT INTO public.ruled VALUES (1, 2), (3, 4);
CREATE RULE nothing AS ON DELETE TO public.ruled DO INSTEAD NOTHING;
CREATE TABLE public.always_ruled (a int); INSERT INTO public.always_ruled VALUES (1);
CREATE RULE nothing AS ON DELETE TO public.always_ruled DO INSTEAD NOTHING;
ALTER TABLE public.always_ruled ENABLE ALWAYS RULE nothing;
CREATE TABLE public.egg (id int PRIMARY KEY, hen int); INSERT INTO public.egg VALUES (1, 1), (2, 2);
CREATE TABLE public.hen (id int PRIMARY KEY, egg int CONSTRAINT of REFERENCES public.egg ON DELETE CASCADE); INSERT INTO public.hen VALUES (1, 2), (2, 1);
ALTER TABLE public.egg ADD CONSTRAINT of FOREIGN KEY (hen) REFERENCES public.hen;
CREATE TABLE public.parent (a int, b int); CREATE TABLE public.child (c int) INHERITS (public.parent);
INSERT INTO public.parent VALUES (1, 2), (3, 4); INSERT INTO public.child VALUES (1, 2, 3), (4, 5, 6);
CREATE TABLE public.parts (k int, t text) PARTITION BY LIST (k);
CREATE TABLE public.part_1 PARTITION OF public.parts FOR VALUES IN (1);
CREATE TABLE public.part_rest PARTITION OF public.parts DEFAULT;
CREATE INDEX ON public.parts (t);
INSERT INTO public.parts SELECT i % 3, 't' || i FROM generate_series(1, 30) i;
CREATE TABLE public.hashed (e public.size, t text) PARTITION BY HASH (e);
CREATE TABLE public.hashed_0 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE public.hashed_1 PARTITION OF public.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO public.hashed SELECT (enum_range(NULL::public.size))[1 + i % 3], i FROM generate_series(1, 9) i;

CREATE TABLE public.secret (a int, b text); INSERT INTO public.secret VALUES (1, 'x'), (2, 'y');
ALTER TABLE public.secret ENABLE ROW LEVEL SECURITY; ALTER TABLE public.secret FORCE ROW LEVEL SECURITY;
CREATE POLICY half ON public.secret USING (a > 1);
DO $$ BEGIN CREATE ROLE mutants_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT SELECT ON public.secret TO mutants_reader; GRANT UPDATE (b) ON public.alike TO mutants_reader;
GRANT USAGE ON SEQUENCE public.counted TO PUBLIC;
CREATE VIEW public.looks AS SELECT 1 AS a; CREATE VIEW public.beyond AS SELECT * FROM public.looks;
CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS a;
CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION "o'd""d";
CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM nextval('public.counted'); RAISE 'no'; END $$;
SELECT lo_from_bytea(3000000000, '\x00ff10'), lo_create(4000), lo_from_bytea(4001, 'x');
CREATE EVENT TRIGGER refuses ON ddl_command_end WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION public.refuse();
"""
MakeCopy = Callable[..., RestoredCopy]


@pytest.fixture
def make_copy(make_database: MakeDatabase, store_dir: Path) -> MakeCopy:
    """Return a function that gives a copy which equals its manifest: the source."""

    def make(*arguments: Any) -> RestoredCopy:
        url = make_database(*arguments)
        back_up(url, store_dir)
        manifest = of_database(sets(store_dir)[0].manifest)
        return RestoredCopy(
            url=url,
            manifest=manifest,
            schema=SetReader(
                manifest=manifest, store=LocalStore("local", store_dir)
            ).read_schema(),
            limits=Limits(seconds=60, jobs=1),
            tables=manifest.tables,
            sequences=manifest.sequences,
        )

    return make


def whole(copy: RestoredCopy) -> list[Check]:
    """Return what fails of a comparison of everything that mutants touch."""
    with copy.connect() as connection:
        observed = schema.take(connection)
    checks = [
        structure.check_kind(kind, copy.schema, observed) for kind in schema.KINDS
    ]
    checks += contents.compare_contents(copy)
    checks.append(contents.compare_large_objects(copy))
    return [check for check in checks if not check.passed]


def kinds(report: MutantReport) -> set[str]:
    """Return the kinds of the mutants that were planted."""
    return {each.kind for each in report.planted}


def every_kind() -> set[str]:
    """Return every kind of mutant that there is."""
    dropping = [mutants_objects.dropping(kind) for kind in schema.KINDS]
    found = {each.kind for each in [*mutants_objects.DAMAGES, *dropping] if each}
    others = {"add a grant", "add a stray object", "change the owner of a large object"}
    return found | CONTENTS | others


@pytest.mark.parametrize("major", majors())
def test_every_kind_is_planted_and_noticed(major: int, make_copy: MakeCopy) -> None:
    """On a database with something of everything, no mutant of any kind survives."""
    copy = make_copy(major, RICH)
    assert whole(copy) == []

    report = plant(copy, number=700, seed="all")

    print(f"{report.killed} of {len(report.planted)} mutants noticed")
    assert report.survivors == ()
    assert len(report.planted) == 700
    assert kinds(report) == every_kind()
    assert report.check().passed


@pytest.mark.parametrize("major", majors())
def test_a_dozen_are_of_many_kinds(major: int, make_copy: MakeCopy) -> None:
    """The small sample of every drill has rows in it, and objects, of many kinds."""
    report = plant(make_copy(major), number=12, seed="x")

    assert report.check().observed == "12 of 12 noticed"
    assert len(kinds(report)) == 12
    assert 5 <= len(kinds(report) & CONTENTS) <= 9
    assert all(each.noticed_by for each in report.planted)


def test_nothing_is_left_behind(make_copy: MakeCopy) -> None:
    """After hundreds of mutants the copy equals its manifest as before."""
    copy = make_copy(16, RICH)

    assert plant(copy, number=300, seed="gone").survivors == ()

    assert whole(copy) == []
    assert value(copy.url, "SELECT count(*) FROM pg_locks l JOIN pg_database d ON "
                 "d.oid = l.database AND d.datname = current_database() "
                 "WHERE l.pid <> pg_backend_pid()") == 0  # fmt: skip


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_behind(
    error: type[BaseException], make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the planting, what was planted last is undone."""
    copy = make_copy()
    seen = []

    def interrupt(connection: Any, tables: Any) -> tuple[Check, bool]:
        seen.append(read(connection, tables)[0].passed)
        raise error

    with monkeypatch.context() as patch:
        read = contents.check_tables
        patch.setattr(contents, "check_tables", interrupt)
        with pytest.raises(error):
            plant(copy, number=50, seed="x")

    assert seen == [False], "a row was damaged when it was interrupted"
    assert whole(copy) == []


def test_a_seed_gives_the_same_mutants_in_another_copy(make_copy: MakeCopy) -> None:
    """Not by object numbers, which differ; another seed gives others."""
    copy, other = make_copy(), make_copy()

    def plan(copy: RestoredCopy, seed: str) -> list[tuple[str, str]]:
        planted = plant(copy, number=60, seed=seed).planted
        # The source gives large objects their numbers, so here the copies differ.
        return [(e.kind, "" if "large" in e.kind else e.target) for e in planted]

    assert plan(copy, "a") == plan(copy, "a") == plan(other, "a")
    assert plan(copy, "a") != plan(copy, "b")


BLIND: dict[str, tuple[Any, str, Callable[..., Any], str]] = {
    "tables": (
        contents,
        "check_tables",
        lambda *_: (Check(name="table public.orders", passed=True), True),
        "drop a row",
    ),
    "sequences": (
        contents,
        "check_sequence",
        lambda *_: Check(name="sequence other.tickets", passed=True),
        "set a sequence back",
    ),
    "large objects": (
        contents,
        "check_large_objects",
        lambda *_: Check(name="large objects", passed=True),
        "delete a large object",
    ),
    "structure": (
        structure,
        "check_kind",
        lambda *_, names_shown: Check(name="indexes", passed=names_shown > 0),
        "drop an index",
    ),
}


@pytest.mark.parametrize("part", BLIND)
def test_a_blind_comparison_is_found_out(
    part: str, make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a part of the comparison passes whatever it sees, its mutants survive."""
    copy = make_copy()
    module, name, blind, kind = BLIND[part]
    monkeypatch.setattr(module, name, blind)

    report = plant(copy, number=80, seed="x")

    assert kind in {each.kind for each in report.survivors}
    assert not report.check().passed
    assert report.survivors[0].kind in report.check().detail
    assert report.killed > 0, "the other parts still see"


def test_a_comparison_that_blames_another_is_found_out(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To fail is not enough: the check must name what was damaged."""
    copy = make_copy()
    wrong = Check(name="table other.innocent", passed=False, observed="1 rows")
    monkeypatch.setattr(contents, "check_tables", lambda *_: (wrong, True))

    report = plant(copy, number=40, seed="x")

    assert "drop a row" in {each.kind for each in report.survivors}


def test_a_table_that_cannot_be_read_again_proves_nothing(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that failed for want of an answer did not notice the mutant."""
    copy = make_copy()
    unread = Check(name="table public.orders", passed=False)
    monkeypatch.setattr(contents, "check_tables", lambda *_: (unread, False))

    report = plant(copy, number=40, seed="x")

    assert "drop a row" not in kinds(report)
    assert "drop a row" in report.refused


def test_what_differed_before_is_no_ground_for_mutants(make_copy: MakeCopy) -> None:
    """A part that fails already would fail for every mutant: none is planted there."""
    copy = make_copy()
    execute(copy.url, "DROP INDEX public.orders_by_customer")

    report = plant(copy, number=60, seed="x")

    assert not any("index" in each.kind for each in report.planted)
    assert "drop a trigger" in kinds(report)


@pytest.mark.parametrize("script", ["SELECT 1", "DROP SCHEMA public"])
def test_an_empty_database_gets_mutants_too(script: str, make_copy: MakeCopy) -> None:
    """What is not there cannot be lost, but something can be added."""
    copy = make_copy(16, script)

    report = plant(copy, number=12, seed="x")

    assert report.check().observed == "12 of 12 noticed"
    assert {"add a large object", "add a stray object"} <= kinds(report)
    assert all("schema" in each for each in kinds(report) if "add" not in each)
    assert whole(copy) == []


def test_large_tables_are_spared_where_there_are_small_ones(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is read again for each mutant, so that small ones are chosen."""
    copy = make_copy()
    monkeypatch.setattr(rows, "_SIZE_BYTES_MAX", 20_000)
    names = ("public.orders,", "public.lines,")

    report = plant(copy, number=100, seed="x")

    targets = [each.target for each in report.planted if each.kind == "drop a row"]
    assert targets
    assert not [each for each in targets if each.startswith(names)]


def test_where_all_tables_are_large_the_smallest_serve(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database of large tables is not spared."""
    copy = make_copy()
    monkeypatch.setattr(rows, "_SIZE_BYTES_MAX", 0)

    report = plant(copy, number=50, seed="x")

    assert "change a value" in kinds(report)
    assert report.survivors == ()


def test_what_changes_nothing_is_no_mutant(make_copy: MakeCopy) -> None:
    """Values that stay as they print, and equal rows, are not taken for survivors."""
    copy = make_copy(
        16,
        """
        CREATE TABLE public.t (a char(5), d date, f float8, r real, i inet, b bit(2));
        INSERT INTO public.t SELECT 'x', 'infinity', 'NaN', 1e10, NULL, NULL FROM generate_series(1, 3);
        CREATE TABLE public.one (a int); INSERT INTO public.one VALUES (1), (2), (3);
        CREATE TABLE public.g (a int, b int GENERATED ALWAYS AS (a) STORED); INSERT INTO public.g VALUES (1), (2)
        """,
    )

    report = plant(copy, number=300, seed="x")

    assert report.survivors == ()
    assert "swap two values" not in kinds(report)
    assert "change a value" in kinds(report)


HARD = {
    "a published table without a key": """
        CREATE TABLE public.thing (a int, b text); INSERT INTO public.thing VALUES (1, 'x'), (2, 'y');
        CREATE PUBLICATION every FOR ALL TABLES
    """,
    "a trigger that swallows rows, always": """
        CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TABLE public.thing (a int, b text); INSERT INTO public.thing VALUES (1, 'x'), (2, 'y');
        CREATE TRIGGER s BEFORE INSERT OR UPDATE OR DELETE ON public.thing FOR EACH ROW EXECUTE FUNCTION public.swallow();
        ALTER TABLE public.thing ENABLE ALWAYS TRIGGER s
    """,
    "keys": """
        CREATE TABLE public.thing (a int PRIMARY KEY, b text NOT NULL UNIQUE, c date UNIQUE);
        INSERT INTO public.thing VALUES (1, 'x', '2026-01-01'), (2, 'y', '2026-01-02')
    """,
    "forced row security": """
        CREATE TABLE public.thing (a int, b text); INSERT INTO public.thing VALUES (1, 'x'), (2, 'y');
        ALTER TABLE public.thing ENABLE ROW LEVEL SECURITY; ALTER TABLE public.thing FORCE ROW LEVEL SECURITY
    """,
    "a rule instead of rows": """
        CREATE TABLE public.thing (a int, b text); INSERT INTO public.thing VALUES (1, 'x'), (2, 'y');
        CREATE RULE d AS ON DELETE TO public.thing DO INSTEAD NOTHING;
        CREATE RULE u AS ON UPDATE TO public.thing DO INSTEAD NOTHING
    """,
    "others that refer to it": """
        CREATE TABLE public.thing (a int PRIMARY KEY, b text); INSERT INTO public.thing VALUES (1, 'x'), (2, 'y');
        CREATE TABLE public.u (a int REFERENCES public.thing); INSERT INTO public.u VALUES (1), (2)
    """,
}


@pytest.mark.parametrize("hard", HARD)
def test_rows_of_any_table_are_damaged(hard: str, make_copy: MakeCopy) -> None:
    """What keeps a service from changing rows does not keep mutants from it."""
    report = plant(make_copy(16, HARD[hard]), number=120, seed="x")

    done = {each.kind for each in report.planted if "public.thing," in each.target}
    assert {"drop a row", "change a value", "insert a row"} <= done
    assert report.survivors == ()


def test_settings_of_the_database_do_not_stand_in_the_way(make_copy: MakeCopy) -> None:
    """A database that is read-only by default, or serializable, gets its mutants."""
    copy = make_copy()
    execute(
        copy.url,
        """DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
        EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database());
        EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
        END $$""",
    )

    assert plant(copy, number=60, seed="x").check().observed == "60 of 60 noticed"


def test_a_role_without_rights_plants_what_it_can(make_copy: MakeCopy) -> None:
    """Triggers and keys act for an ordinary owner; what the server refuses is said."""
    copy = make_copy(
        16,
        """
        DO $$ BEGIN CREATE ROLE mutants_owner LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO mutants_owner', current_database()); END $$;
        SET ROLE mutants_owner;
        CREATE TABLE public.egg (id int PRIMARY KEY, a text);
        CREATE TABLE public.hen (id int PRIMARY KEY, egg int NOT NULL REFERENCES public.egg);
        CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TABLE public.kept (a int); INSERT INTO public.kept VALUES (1);
        CREATE TRIGGER keep BEFORE INSERT OR UPDATE OR DELETE ON public.kept FOR EACH ROW EXECUTE FUNCTION public.swallow();
        INSERT INTO public.egg SELECT i, i FROM generate_series(1, 9) i;
        INSERT INTO public.hen SELECT i, i FROM generate_series(1, 9) i;
        RESET ROLE
        """,
    )
    with connect(copy.url, purpose="test") as connection:
        me = connection.info.user
    copy = replace(copy, url=copy.url.replace(me, "mutants_owner"))

    report = plant(copy, number=200, seed="x")

    assert report.survivors == ()
    assert {"drop a row", "change a value", "insert a row"} <= kinds(report)
    assert any("public.kept" in each.target for each in report.planted)
    assert "make an index invalid" in report.refused
    assert whole(copy) == []
