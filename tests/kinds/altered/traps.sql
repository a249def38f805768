-- What was hard to restore is hard to miss.

--- a function's own path => FUNCTION traps.rate_of(text)
ALTER FUNCTION traps.rate_of(text) SET search_path = traps_too, pg_temp;

--- a row that a check and an index saw through a path => table traps.uses_path
UPDATE traps.uses_path SET name = 'ABC ' WHERE name = ' ABC ';

--- a row that a materialized view was made of => table traps.rates
UPDATE traps.rates SET rate = 1.1 WHERE code = 'eur';

--- a value of a domain that asks a function => table traps.of_domain
UPDATE traps.of_domain SET v = 'finer';

--- a default of a type of the same name => TABLE traps.states
ALTER TABLE traps.states ALTER COLUMN b DROP DEFAULT;

--- a plus becomes another plus => VIEW traps.two_pluses
CREATE OR REPLACE VIEW traps.two_pluses AS SELECT 5 + 3 AS plus, 5 + 3 AS minus;

--- a function of the same name => VIEW traps.hides_function
CREATE OR REPLACE VIEW traps.hides_function AS SELECT lower('A') AS a, lower('A') AS b FROM (SELECT 1) x WHERE false;

--- a sequence in another schema => sequence traps_too.numbers
SELECT setval('traps_too.numbers', 1);

--- a row of a table beside a failed index => table traps.half_made
DELETE FROM traps.half_made;

--- a row in a schema named almost like the system's => table pg.class
UPDATE pg.class SET relname = 'y';

--- a row in a schema that begins like the system's => table PG_upper.t
DELETE FROM "PG_upper".t;
