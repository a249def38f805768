"""A small database with something of everything that a drill compares."""

from __future__ import annotations

SAMPLE = r"""
CREATE TABLE public.orders (
    id serial PRIMARY KEY, customer text NOT NULL, total numeric(12, 2),
    placed_at timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00',
    CONSTRAINT total_positive CHECK (total >= 0)
);
CREATE INDEX orders_by_customer ON public.orders (customer);
CREATE TABLE public.lines (
    order_id int REFERENCES public.orders, n int, note text, raw bytea,
    PRIMARY KEY (order_id, n)
);
CREATE SCHEMA other;
CREATE TABLE other.orders (x int);
CREATE TABLE other.empty (y text);
CREATE TABLE other.no_columns ();
INSERT INTO public.orders (customer, total)
    SELECT 'customer ' || i || E'\t\n\\.', i * 1.5 FROM generate_series(1, 500) i;
INSERT INTO public.lines
    SELECT i, j, 'note ' || i || '/' || j, decode(md5(i::text || j), 'hex')
    FROM generate_series(1, 500) i, generate_series(1, 3) j;
INSERT INTO other.orders SELECT i % 10 FROM generate_series(1, 100) i;
INSERT INTO other.no_columns DEFAULT VALUES;
INSERT INTO other.no_columns DEFAULT VALUES;
CREATE SEQUENCE other.tickets START 100 INCREMENT 7;
SELECT nextval('other.tickets'), nextval('other.tickets');
SELECT lo_from_bytea(0, decode(repeat('00ff10', 5000), 'hex')), lo_from_bytea(0, '');
CREATE VIEW public.big AS SELECT * FROM public.orders WHERE total > 100;
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.placed_at := now(); RETURN NEW; END $$;
CREATE TRIGGER orders_stamp BEFORE UPDATE ON public.orders
    FOR EACH ROW EXECUTE FUNCTION public.stamp();
DO $$ BEGIN CREATE ROLE "app reader"; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT SELECT ON public.orders TO "app reader";
"""
