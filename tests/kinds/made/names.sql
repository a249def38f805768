-- Names that need care wherever a name is written, read, split or printed.

--- quotes, dots, blanks, percent signs, backslashes, brackets, letters beyond ASCII
CREATE SCHEMA "na""me.s %s";
CREATE TABLE "na""me.s %s"."ta.ble" ("co.l" int, "q""uote" text, "%s %(x)s %" text, "b\s" text, "a,b (c)" text, "ä€𝄞" text, " " int, "$1" int, "''" int);
INSERT INTO "na""me.s %s"."ta.ble" VALUES (1, 'a', 'b', 'c', 'd', 'e', 2, 3, 4);
CREATE TABLE "na""me.s %s"." lead and trail " (a int);
CREATE TABLE "na""me.s %s"."SELECT" ("select" int, "Order" int, "FROM" text DEFAULT 'x;');
CREATE TABLE "na""me.s %s"."Ünïcödé €" (a int);
INSERT INTO "na""me.s %s"."Ünïcödé €" VALUES (1);
CREATE TABLE "na""me.s %s"."percent%s%d%n" (a int);
INSERT INTO "na""me.s %s"."percent%s%d%n" VALUES (1);
CREATE TABLE "na""me.s %s"."q""uo'te" (a int);
INSERT INTO "na""me.s %s"."q""uo'te" VALUES (1);

--- line ends, tabs and separators of Unicode; a name that looks like the end of a COPY
DO $$ BEGIN
    EXECUTE format('CREATE TABLE "na""me.s %%s".%I (%I int, %I text)', E'new\nline', E'col\numn', E'ta\tb');
    EXECUTE format('INSERT INTO "na""me.s %%s".%I VALUES (1, %L)', E'new\nline', E'x\ny');
    EXECUTE format('CREATE TABLE "na""me.s %%s".%I (a int)', U&'sep\2028\0085');
    EXECUTE format('CREATE TABLE "na""me.s %%s".%I (%I int)', E'\\.', '\N');
    EXECUTE format('INSERT INTO "na""me.s %%s".%I VALUES (7)', E'\\.');
    EXECUTE format('CREATE VIEW "na""me.s %%s".%I AS SELECT 1 AS %I', E'view\n-- of lines', E'\n');
    EXECUTE format('COMMENT ON TABLE "na""me.s %%s".%I IS %L', E'new\nline', E'a comment\n\\connect nowhere\n');
END $$;

--- 63 bytes, of one and of two bytes each letter; names that differ in case only
CREATE TABLE "na""me.s %s".a23456789b123456789c123456789d123456789e123456789f123456789g12 (h23456789b123456789c123456789d123456789e123456789f123456789g12 int);
CREATE TABLE "na""me.s %s"."äääääääääääääääääääääääääääääääx" (a int);
INSERT INTO "na""me.s %s"."äääääääääääääääääääääääääääääääx" VALUES (1);
CREATE TABLE "na""me.s %s".cased (a int);
CREATE TABLE "na""me.s %s"."Cased" (a int);
CREATE TABLE "na""me.s %s"."CASED" (a int);
INSERT INTO "na""me.s %s"."Cased" VALUES (1);

--- the same for what is not a table
CREATE SEQUENCE "na""me.s %s"."s.'q";
SELECT nextval('"na""me.s %s"."s.''q"');
CREATE TABLE "na""me.s %s".owner ("i d" serial PRIMARY KEY, "t.x" text CONSTRAINT "ch'eck (x" CHECK ("t.x" <> '%'));
CREATE INDEX "i.dx ""%""" ON "na""me.s %s".owner ("t.x");
CREATE TYPE "na""me.s %s"."en.um 'x'" AS ENUM ('a"b', 'c''d', 'e,f');
CREATE TABLE "na""me.s %s".uses_type ("v v" "na""me.s %s"."en.um 'x'"[], d "na""me.s %s"."ta.ble");
INSERT INTO "na""me.s %s".uses_type VALUES ('{"a\"b","c''d"}', NULL);
CREATE FUNCTION "na""me.s %s"."f(x) $$"("a b" int, VARIADIC "c.d" text[] DEFAULT '{"$$"}') RETURNS text LANGUAGE sql
    AS $body$ SELECT '$$ $_$ '' ' || "a b" $body$;
CREATE FUNCTION "na""me.s %s"."trig.ger"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "t""r i.g" BEFORE INSERT ON "na""me.s %s".owner FOR EACH ROW EXECUTE FUNCTION "na""me.s %s"."trig.ger"('it''s', '%s', E'\\', E'new\nline');
CREATE POLICY "po'l ""i.cy" ON "na""me.s %s".owner USING ("t.x" = '%');
CREATE RULE "ru.le %" AS ON DELETE TO "na""me.s %s".owner DO ALSO SELECT 1 AS "a;b";
CREATE STATISTICS "na""me.s %s"."st.at" ON "i d", "t.x" FROM "na""me.s %s".owner;
CREATE COLLATION "na""me.s %s"."co.ll" FROM "C";
CREATE OPERATOR "na""me.s %s".<%%> (function = int4pl, leftarg = int, rightarg = int);
GRANT SELECT ("t.x") ON "na""me.s %s".owner TO kinds_readers;
COMMENT ON TRIGGER "t""r i.g" ON "na""me.s %s".owner IS 'of odd name';
