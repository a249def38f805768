-- What a restore with an empty search path, or in another order, would break; as it
-- stands here, PostgreSQL's own programs bring it back.

--- functions with a path of their own, called while rows are loaded and indexes are made
CREATE SCHEMA traps;
CREATE SCHEMA traps_too;
CREATE TABLE traps.rates (code text PRIMARY KEY, rate numeric);
INSERT INTO traps.rates VALUES ('eur', 1.10), ('chf', 0.950);
CREATE FUNCTION traps.rate_of(c text) RETURNS numeric LANGUAGE plpgsql STABLE SET search_path = traps, pg_temp
    AS $$ BEGIN RETURN (SELECT rate FROM rates WHERE code = c); END $$;
CREATE FUNCTION traps.normal(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = traps, pg_temp AS $$ BEGIN RETURN trim_down(t); END $$;
CREATE FUNCTION traps.trim_down(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(btrim(t))';

--- in an index, a check, a generated column, a materialized view, a domain
CREATE TABLE traps.uses_path (name text, plain text GENERATED ALWAYS AS (traps.normal(name)) STORED, CONSTRAINT not_nothing CHECK (traps.normal(name) <> ''));
CREATE INDEX by_normal ON traps.uses_path (traps.normal(name)) WHERE traps.normal(name) <> 'x';
INSERT INTO traps.uses_path VALUES (' ABC '), ('d');
CREATE MATERIALIZED VIEW traps.rates_seen AS SELECT code, traps.rate_of(code) AS rate FROM traps.rates;
CREATE DOMAIN traps.normal_text AS text CHECK (VALUE = traps.normal(VALUE));
CREATE TABLE traps.of_domain (v traps.normal_text);
INSERT INTO traps.of_domain VALUES ('fine');

--- operators and types of the same name in two schemas: the printed text must say which
CREATE TYPE traps.state AS ENUM ('on');
CREATE TYPE traps_too.state AS ENUM ('off');
CREATE TABLE traps.states (a traps.state DEFAULT 'on', b traps_too.state DEFAULT 'off'::traps_too.state);
INSERT INTO traps.states DEFAULT VALUES;
CREATE OPERATOR traps.+ (function = int4mi, leftarg = int, rightarg = int);
CREATE VIEW traps.two_pluses AS SELECT 5 + 3 AS plus, 5 OPERATOR(traps.+) 3 AS minus;
CREATE FUNCTION traps.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE TABLE traps.uuid (v pg_catalog.uuid, w traps.state[]);
CREATE VIEW traps.hides_function AS SELECT lower('A') AS a, traps.lower('A') AS b FROM (SELECT 1) x WHERE false;

--- a sequence that lies in another schema than its table
CREATE SEQUENCE traps_too.numbers;
CREATE TABLE traps.far_default (a int DEFAULT nextval('traps_too.numbers'), b int DEFAULT nextval('traps_too.numbers'::text));
INSERT INTO traps.far_default DEFAULT VALUES;

--- an index that has failed and lies about, which pg_dump leaves out
CREATE TABLE traps.half_made (a int);
INSERT INTO traps.half_made VALUES (1), (1);
CREATE INDEX half_made_index ON traps.half_made (a);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'traps.half_made_index'::regclass;

--- schemas whose names begin like the system's
CREATE SCHEMA pg;
CREATE TABLE pg.class (oid int, relname text);
INSERT INTO pg.class VALUES (1, 'x');
CREATE SCHEMA "PG_upper";
CREATE TABLE "PG_upper".t (a int);
INSERT INTO "PG_upper".t VALUES (1);
