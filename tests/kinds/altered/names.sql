-- Things of odd names; each must be named whole.

--- a row of a name with a dot => table na"me.s %s.ta.ble
UPDATE "na""me.s %s"."ta.ble" SET "%s %(x)s %" = '%' WHERE "co.l" = 1;

--- a row of a name with letters beyond ASCII => table na"me.s %s.Ünïcödé €
UPDATE "na""me.s %s"."Ünïcödé €" SET a = 2;

--- a row of a name with percent signs => table na"me.s %s.percent%s%d%n
UPDATE "na""me.s %s"."percent%s%d%n" SET a = 2;

--- a row of a name with quotes => table na"me.s %s.q"uo'te
UPDATE "na""me.s %s"."q""uo'te" SET a = 2;

--- a row of a name with a line end => table na"me.s %s.new
DO $$ BEGIN EXECUTE format('UPDATE "na""me.s %%s".%I SET %I = 2', E'new\nline', E'col\numn'); END $$;

--- a row of a name that looks like the end of rows => table na"me.s %s.\.
DO $$ BEGIN EXECUTE format('DELETE FROM "na""me.s %%s".%I', E'\\.'); END $$;

--- a row of a name of 63 bytes => table na"me.s %s.äääääääääääääääääääääääääääääääx
UPDATE "na""me.s %s"."äääääääääääääääääääääääääääääääx" SET a = 2;

--- a row goes to a table whose name differs in case => table na"me.s %s.Cased
WITH gone AS (DELETE FROM "na""me.s %s"."Cased" RETURNING a) INSERT INTO "na""me.s %s"."CASED" SELECT a FROM gone;

--- a column of 63 bytes is renamed => TABLE na"me.s %s.a23456789b123456789c123456789d123456789e123456789f123456789g12
ALTER TABLE "na""me.s %s".a23456789b123456789c123456789d123456789e123456789f123456789g12 RENAME h23456789b123456789c123456789d123456789e123456789f123456789g12 TO h;

--- a table with blanks at both ends of its name loses them => lead and trail
ALTER TABLE "na""me.s %s"." lead and trail " RENAME TO "lead and trail";

--- a default of a column named like a keyword => TABLE na"me.s %s.SELECT
ALTER TABLE "na""me.s %s"."SELECT" ALTER COLUMN "FROM" DROP DEFAULT;

--- a table with separators of Unicode in its name is gone => na"me.s %s.sep
DO $$ BEGIN EXECUTE format('DROP TABLE "na""me.s %%s".%I', U&'sep\2028\0085'); END $$;

--- a view with a comment in its name => na"me.s %s.view
DO $$ BEGIN EXECUTE format('DROP VIEW "na""me.s %%s".%I', E'view\n-- of lines'); END $$;

--- a sequence => sequence na"me.s %s.s.'q
SELECT setval('"na""me.s %s"."s.''q"', 5);

--- a check => TABLE na"me.s %s.owner
ALTER TABLE "na""me.s %s".owner DROP CONSTRAINT "ch'eck (x";

--- an index => INDEX na"me.s %s.i.dx "%"
DROP INDEX "na""me.s %s"."i.dx ""%""";

--- a label of an enum => TYPE na"me.s %s.en.um 'x'
ALTER TYPE "na""me.s %s"."en.um 'x'" RENAME VALUE 'e,f' TO 'e, f';

--- a function => FUNCTION na"me.s %s.f(x) $$
ALTER FUNCTION "na""me.s %s"."f(x) $$"(int, text[]) COST 7;

--- a trigger => TRIGGER na"me.s %s.owner t"r i.g
DROP TRIGGER "t""r i.g" ON "na""me.s %s".owner;

--- a policy => POLICY na"me.s %s.owner po'l "i.cy
DROP POLICY "po'l ""i.cy" ON "na""me.s %s".owner;

--- a rule => RULE na"me.s %s.owner ru.le %
DROP RULE "ru.le %" ON "na""me.s %s".owner;

--- extended statistics => STATISTICS na"me.s %s.st.at
DROP STATISTICS "na""me.s %s"."st.at";

--- a collation => COLLATION na"me.s %s.co.ll
DROP COLLATION "na""me.s %s"."co.ll";

--- an operator => OPERATOR na"me.s %s.<%%>
DROP OPERATOR "na""me.s %s".<%%> (int, int);

--- a grant on a column => ACL na"me.s %s.COLUMN owner
REVOKE SELECT ("t.x") ON "na""me.s %s".owner FROM kinds_readers;
