"""Small databases in other encodings and locales, each with a way to alter its copy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OtherDatabase:
    """How a database is created, filled and altered; `needs` as in `script`."""

    name: str
    options: str
    script: str
    altered: str = ""
    noticed_by: str = ""
    since: int = 0
    needs: str = ""

    def fits(self, major: int, have: list[str]) -> bool:
        """Return whether a server of that major, with that at hand, can hold it."""
        return self.since <= major and (not self.needs or self.needs in have)


_LETTERS = "U&'\\00e4\\00df\\00fc'"

OTHER_DATABASES = (
    OtherDatabase(
        name="empty",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="",
        altered="CREATE TABLE public.surplus (a int)",
        noticed_by="public.surplus",
    ),
    OtherDatabase(
        name="C collation",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="""
            CREATE TABLE public.words (v text PRIMARY KEY);
            INSERT INTO public.words VALUES ('a'), ('B'), ('ä'), ('Z')""",
        altered="UPDATE public.words SET v = 'b' WHERE v = 'B'",
        noticed_by="table public.words",
    ),
    OtherDatabase(
        name="LATIN1",
        options="LOCALE 'C' ENCODING 'LATIN1'",
        script=f"""
            CREATE TABLE public."tä" ("ö" text DEFAULT {_LETTERS}, b text);
            INSERT INTO public."tä" VALUES ({_LETTERS}, chr(160)), (DEFAULT, chr(255));
            CREATE TYPE public."ü" AS ENUM ('ß');
            COMMENT ON TABLE public."tä" IS 'äöü';
            CREATE FUNCTION public."f_ä"() RETURNS text LANGUAGE sql AS 'SELECT ''é''';
            CREATE VIEW public."v_ä" AS SELECT 'é'::text AS "é"
            """,
        altered='UPDATE public."tä" SET b = chr(254) WHERE b = chr(255)',
        noticed_by="table public.tä",
    ),
    # No encoding is checked: any bytes are a text and even a name, one no UTF-8.
    OtherDatabase(
        name="SQL_ASCII",
        options="LOCALE 'C' ENCODING 'SQL_ASCII'",
        script=r"""
            CREATE TABLE public.bytes (v text);
            INSERT INTO public.bytes VALUES (E'\xff\xfe'), (E'\xc3\xa4'), (E'\xe4'), ('');
            DO $$ BEGIN
                EXECUTE format('CREATE TABLE public.%I (%I int)', E't\xe4', E'\xff');
                EXECUTE format('INSERT INTO public.%I VALUES (1)', E't\xe4');
                EXECUTE format('COMMENT ON TABLE public.%I IS %L', E't\xe4', E'\xe4');
            END $$""",
        altered=r"UPDATE public.bytes SET v = E'\xfe\xff' WHERE v = E'\xff\xfe'",
        noticed_by="table public.bytes",
    ),
    OtherDatabase(
        name="EUC_JP",
        options="LOCALE 'C' ENCODING 'EUC_JP'",
        script=r"""
            CREATE TABLE public.kana (v text);
            INSERT INTO public.kana VALUES (convert_from('\xa5a2a5a4', 'EUC_JP'))""",
        altered=r"UPDATE public.kana SET v = convert_from('\xa5a2', 'EUC_JP')",
        noticed_by="table public.kana",
    ),
    OtherDatabase(
        name="ICU",
        options="LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ENCODING 'UTF8'",
        script="""
            CREATE TABLE public.words (v text PRIMARY KEY, w text COLLATE "C");
            INSERT INTO public.words VALUES ('Ä', 'a'), ('z', 'Z'), ('ß', 'ss')""",
        altered="UPDATE public.words SET v = 'SS' WHERE v = 'ß'",
        noticed_by="table public.words",
        needs="icu",
    ),
    OtherDatabase(
        name="ICU with rules",
        options="LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'und' ICU_RULES '&V << w <<< W' "
        "ENCODING 'UTF8'",
        script="CREATE TABLE public.words (v text); INSERT INTO public.words VALUES ('w')",
        altered="DELETE FROM public.words",
        noticed_by="table public.words",
        since=16,
        needs="icu",
    ),
    OtherDatabase(
        name="built-in provider",
        options="LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C' "
        "ENCODING 'UTF8'",
        script="""
            CREATE TABLE public.words (v text PRIMARY KEY);
            CREATE INDEX by_upper ON public.words (upper(v));
            INSERT INTO public.words VALUES ('ä'), ('ß')""",
        altered="UPDATE public.words SET v = 'Ä' WHERE v = 'ä'",
        noticed_by="table public.words",
        since=17,
    ),
    OtherDatabase(
        name="no schema public",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="DROP SCHEMA public; CREATE SCHEMA x; CREATE TABLE x.t (a int)",
        altered="CREATE SCHEMA public",
        noticed_by="SCHEMA public",
    ),
    OtherDatabase(
        name="the schema public renamed",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="""
            ALTER SCHEMA public RENAME TO formerly_public;
            CREATE TABLE formerly_public.t (a int);
            INSERT INTO formerly_public.t VALUES (1)""",
        altered="DELETE FROM formerly_public.t",
        noticed_by="table formerly_public.t",
    ),
    OtherDatabase(
        name="a template with few connections",
        options="LOCALE 'C' ENCODING 'UTF8' IS_TEMPLATE true CONNECTION LIMIT 3",
        script="CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1)",
        altered="DELETE FROM public.t",
        noticed_by="table public.t",
    ),
)

_SET = (
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {}', current_database()); END $$"
)

# Sound, but hard to bring back: what becomes of each with pg_dump and pg_restore alone is
# said beside it.
STUBBORN_DATABASES = (
    # `pg_restore --create` sets this first, and then may not write.
    OtherDatabase(
        name="read-only by default",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1);"
        + _SET.format("default_transaction_read_only TO on"),
        altered="SET default_transaction_read_only = off; DELETE FROM public.t",
        noticed_by="table public.t",
    ),
    # Comes back, with the word NULL as a text in the array.
    OtherDatabase(
        name="no nulls in arrays",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="CREATE TABLE public.t (a text[]); INSERT INTO public.t VALUES ('{NULL,b}');"
        + _SET.format("array_nulls TO off"),
        altered="DELETE FROM public.t",
        noticed_by="table public.t",
    ),
    # Comes back only where the tablespace is.
    OtherDatabase(
        name="in a tablespace",
        options="LOCALE 'C' ENCODING 'UTF8' TABLESPACE kinds_fast",
        script="CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1)",
        altered="DELETE FROM public.t",
        noticed_by="table public.t",
    ),
    # Comes back with two rows more: pg_restore makes event triggers, then fills the view.
    OtherDatabase(
        name="an event trigger that writes rows",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="""
            CREATE TABLE public.log (tag text);
            CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql
                AS $$ BEGIN INSERT INTO public.log VALUES (tg_tag); END $$;
            CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION public.note();
            CREATE TABLE public.t (a int);
            CREATE MATERIALIZED VIEW public.m AS SELECT 1 AS a""",
        altered="DELETE FROM public.log",
        noticed_by="table public.log",
    ),
    # Comes back with the second one not filled: pg_restore leaves it out.
    OtherDatabase(
        name="a materialized view filled from one that is not",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="""
            CREATE MATERIALIZED VIEW public.first AS SELECT 1 AS a;
            CREATE MATERIALIZED VIEW public.second AS SELECT * FROM public.first;
            REFRESH MATERIALIZED VIEW public.first WITH NO DATA""",
        altered="DROP MATERIALIZED VIEW public.second",
        noticed_by="public.second",
    ),
    # Comes back in the newest version that the installation has.
    OtherDatabase(
        name="an extension in an older version",
        options="LOCALE 'C' ENCODING 'UTF8'",
        script="CREATE EXTENSION kinds_config SCHEMA public VERSION '1.0'",
        altered="DROP EXTENSION kinds_config",
        noticed_by="kinds_config",
        needs="kinds_config",
    ),
)
