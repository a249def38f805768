-- Routines of every kind.

--- SQL: quoted body, parsed body, default arguments, output arguments, tables, sets
CREATE SCHEMA code;
CREATE TABLE code.log (id serial, what text);
CREATE FUNCTION code.quoted_body(a int, b int DEFAULT 5, c text DEFAULT E'it''s\n') RETURNS int LANGUAGE sql AS $$ SELECT a + b -- no more $$;
CREATE FUNCTION code.quoted_body(a text) RETURNS text LANGUAGE sql AS 'SELECT a || ''$$''';
CREATE FUNCTION code.parsed_body(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC INSERT INTO code.log (what) VALUES ('x'); SELECT count(*)::int + a FROM code.log; END;
CREATE FUNCTION code.parsed_return(a int) RETURNS int LANGUAGE sql IMMUTABLE RETURN a * 3;
CREATE FUNCTION code.outputs(IN a int, OUT b int, INOUT c text) LANGUAGE sql AS 'SELECT a, c';
CREATE FUNCTION code.as_table(a int) RETURNS TABLE (x int, y text) LANGUAGE sql ROWS 7 AS $$ SELECT a, 'y' $$;
CREATE FUNCTION code.as_set(VARIADIC a numeric[]) RETURNS SETOF numeric LANGUAGE sql AS 'SELECT unnest(a)';
CREATE FUNCTION code.of_any(anyelement, anycompatiblearray) RETURNS anyelement LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION code.of_rows(code.log) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.what';

--- PL/pgSQL with everything that a function can be said to be
CREATE FUNCTION code.attributes(a int) RETURNS int LANGUAGE plpgsql
    STABLE STRICT SECURITY DEFINER LEAKPROOF PARALLEL RESTRICTED COST 12.5 SET search_path = code, pg_temp SET work_mem = '3MB'
    AS $body$ DECLARE x text := $_$ it's $_$; BEGIN /* one
    two */ RETURN a; END $body$;
CREATE FUNCTION code.setting_from_list() RETURNS text LANGUAGE sql SET search_path = "$user", public, '' SET "DateStyle" = 'SQL, DMY' AS $$ SELECT 'x' $$;

--- procedures, with output and with transactions inside
CREATE PROCEDURE code.procedure_of_sql(a int, INOUT b int DEFAULT NULL) LANGUAGE sql AS 'SELECT a';
CREATE PROCEDURE code.procedure_that_commits() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO code.log (what) VALUES ('p'); COMMIT; END $$;
CREATE PROCEDURE code.parsed_procedure() LANGUAGE sql BEGIN ATOMIC DELETE FROM code.log WHERE id < 0; END;

--- a language and a transform of one's own; functions that the server has inside
CREATE FUNCTION code.language_handler() RETURNS language_handler AS '$libdir/plpgsql', 'plpgsql_call_handler' LANGUAGE c;
CREATE TRUSTED LANGUAGE kinds_language HANDLER code.language_handler;
ALTER LANGUAGE kinds_language OWNER TO kinds_bob;
COMMENT ON LANGUAGE kinds_language IS 'plpgsql by another name';
CREATE FUNCTION code.in_own_language() RETURNS int LANGUAGE kinds_language AS 'BEGIN RETURN 1; END';
CREATE TRANSFORM FOR money LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION cash_recv(internal));
CREATE FUNCTION code.with_transform(a money) RETURNS int LANGUAGE sql TRANSFORM FOR TYPE money AS 'SELECT 1';

--- aggregates: plain, moving, parallel, ordered set, hypothetical, with initial values
CREATE FUNCTION code.add(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) + coalesce($2, 0)';
CREATE FUNCTION code.subtract(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 0) - coalesce($2, 0)';
CREATE FUNCTION code.last_of(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE AGGREGATE code.total(int) (sfunc = code.add, stype = int, initcond = '10', finalfunc = code.last_of, finalfunc_modify = read_only);
CREATE AGGREGATE code.moving(int) (sfunc = code.add, stype = int, msfunc = code.add, minvfunc = code.subtract, mstype = int, minitcond = '0');
CREATE AGGREGATE code.parallel(int) (sfunc = code.add, stype = int, combinefunc = code.add, parallel = safe, sspace = 64);
CREATE AGGREGATE code.smallest(int) (sfunc = int4smaller, stype = int, sortop = <);
CREATE AGGREGATE code.ordered(float8 ORDER BY anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra);
CREATE AGGREGATE code.hypothetical(VARIADIC "any" ORDER BY VARIADIC "any") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, finalfunc_extra, hypothetical);
CREATE AGGREGATE code.of_nothing(*) (sfunc = int8inc, stype = int8, initcond = '0');
COMMENT ON AGGREGATE code.total(int) IS 'from ten';

--- one routine for each way to change it
CREATE FUNCTION code.body_changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION code.volatility_changes() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION code.security_changes() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
CREATE FUNCTION code.setting_changes() RETURNS int LANGUAGE sql SET work_mem = '1MB' AS 'SELECT 1';
CREATE FUNCTION code.cost_changes() RETURNS SETOF int LANGUAGE sql ROWS 100 COST 5 AS 'SELECT 1';
CREATE FUNCTION code.strictness_changes(int) RETURNS int LANGUAGE sql STRICT AS 'SELECT $1';
CREATE FUNCTION code.parallel_changes() RETURNS int LANGUAGE sql PARALLEL SAFE AS 'SELECT 1';
CREATE FUNCTION code.default_changes(a int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION code.owner_changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION code.comment_changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
COMMENT ON FUNCTION code.comment_changes() IS 'before';
CREATE FUNCTION code.schema_changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION code.name_changes() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION code.goes() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE code.procedure_changes() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE code.aggregate_changes(int) (sfunc = code.add, stype = int, initcond = '1');
CREATE AGGREGATE code.aggregate_goes(int) (sfunc = code.add, stype = int);
