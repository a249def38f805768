-- Routines, languages and transforms.

--- a body => FUNCTION code.body_changes()
CREATE OR REPLACE FUNCTION code.body_changes() RETURNS int LANGUAGE sql AS 'SELECT 2';

--- a blank in a body => FUNCTION code.quoted_body(text)
CREATE OR REPLACE FUNCTION code.quoted_body(a text) RETURNS text LANGUAGE sql AS 'SELECT a ||  ''$$''';

--- a parsed body => FUNCTION code.parsed_return(integer)
CREATE OR REPLACE FUNCTION code.parsed_return(a int) RETURNS int LANGUAGE sql IMMUTABLE RETURN a * 4;

--- a comment inside of a body => FUNCTION code.attributes(integer)
UPDATE pg_proc SET prosrc = replace(prosrc, '/* one', '/* 1') WHERE oid = 'code.attributes(int)'::regprocedure;

--- volatility => FUNCTION code.volatility_changes()
ALTER FUNCTION code.volatility_changes() VOLATILE;

--- whose rights it has => FUNCTION code.security_changes()
ALTER FUNCTION code.security_changes() SECURITY INVOKER;

--- a setting => FUNCTION code.setting_changes()
ALTER FUNCTION code.setting_changes() RESET work_mem;

--- cost and rows => FUNCTION code.cost_changes()
ALTER FUNCTION code.cost_changes() COST 6 ROWS 101;

--- strictness => FUNCTION code.strictness_changes(integer)
ALTER FUNCTION code.strictness_changes(int) CALLED ON NULL INPUT;

--- parallel safety => FUNCTION code.parallel_changes()
ALTER FUNCTION code.parallel_changes() PARALLEL UNSAFE;

--- a default of an argument => FUNCTION code.default_changes(integer)
CREATE OR REPLACE FUNCTION code.default_changes(a int DEFAULT 2) RETURNS int LANGUAGE sql AS 'SELECT a';

--- an owner => FUNCTION code.owner_changes()
ALTER FUNCTION code.owner_changes() OWNER TO kinds_bob;

--- a comment => COMMENT code.FUNCTION comment_changes()
COMMENT ON FUNCTION code.comment_changes() IS 'after';

--- a schema => FUNCTION code.schema_changes()
ALTER FUNCTION code.schema_changes() SET SCHEMA public;

--- a name => FUNCTION code.name_changes()
ALTER FUNCTION code.name_changes() RENAME TO name_changed;

--- a function is gone => FUNCTION code.goes()
DROP FUNCTION code.goes();

--- a function is more than there were => FUNCTION code.surplus()
CREATE FUNCTION code.surplus() RETURNS int LANGUAGE sql AS 'SELECT 1';

--- a procedure's body => PROCEDURE code.procedure_changes()
CREATE OR REPLACE PROCEDURE code.procedure_changes() LANGUAGE sql AS 'SELECT 2';

--- a procedure is gone => PROCEDURE code.parsed_procedure()
DROP PROCEDURE code.parsed_procedure();

--- a language has its functions checked => PROCEDURAL LANGUAGE kinds_language
UPDATE pg_language SET lanvalidator = 'plpgsql_validator'::regproc WHERE lanname = 'kinds_language';

--- a comment on a language => COMMENT LANGUAGE kinds_language
COMMENT ON LANGUAGE kinds_language IS NULL;

--- a function is in another language => FUNCTION code.in_own_language()
CREATE OR REPLACE FUNCTION code.in_own_language() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';

--- a transform is gone => TRANSFORM FOR money LANGUAGE sql
DROP FUNCTION code.with_transform(money);
DROP TRANSFORM FOR money LANGUAGE sql;

--- an aggregate's first value => AGGREGATE code.aggregate_changes(integer)
CREATE OR REPLACE AGGREGATE code.aggregate_changes(int) (sfunc = code.add, stype = int, initcond = '2');

--- an aggregate is gone => AGGREGATE code.aggregate_goes(integer)
DROP AGGREGATE code.aggregate_goes(int);

--- a moving aggregate moves no more => AGGREGATE code.moving(integer)
CREATE OR REPLACE AGGREGATE code.moving(int) (sfunc = code.add, stype = int);

--- an aggregate of ordered sets is gone => AGGREGATE code.ordered(
DROP AGGREGATE code.ordered(float8 ORDER BY anyelement);

--- a comment on an aggregate => COMMENT code.AGGREGATE total(integer)
COMMENT ON AGGREGATE code.total(int) IS 'from nine';

--- a row that a function wrote => table code.log
INSERT INTO code.log (what) VALUES ('surplus');
