-- Operators, families, casts, collations, conversions, access methods.

--- an operator is gone => OPERATOR ops.&&&
DROP OPERATOR ops.&&& (int, int);

--- an operator loses its estimator => OPERATOR ops.<<<
ALTER OPERATOR ops.<<< (ops.pair, ops.pair) SET (RESTRICT = NONE);

--- an operator calls another function => OPERATOR ops.~~~
CREATE FUNCTION ops.positive(ops.pair) RETURNS ops.pair LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1';
DROP OPERATOR ops.~~~ (NONE, ops.pair);
CREATE OPERATOR ops.~~~ (function = ops.positive, rightarg = ops.pair);

--- an owner of an operator => OPERATOR ops.@@+
ALTER OPERATOR ops.@@+ (int, int) OWNER TO kinds_bob;

--- a comment on an operator => COMMENT ops.OPERATOR ===
COMMENT ON OPERATOR ops.=== (ops.pair, ops.pair) IS NULL;

--- a family loses a member => OPERATOR FAMILY ops.loose
ALTER OPERATOR FAMILY ops.loose USING btree DROP OPERATOR 2 (int4, int8);

--- a family is gone => OPERATOR FAMILY ops.to_drop
DROP OPERATOR FAMILY ops.to_drop USING gist;

--- an operator class is gone => OPERATOR CLASS ops.class_to_drop
DROP OPERATOR CLASS ops.class_to_drop USING hash;

--- a comment on an operator class => COMMENT ops.OPERATOR CLASS pair_class
COMMENT ON OPERATOR CLASS ops.pair_class USING btree IS 'of two';

--- a cast is gone => CAST (text AS ops.pair)
DROP CAST (text AS ops.pair);

--- a cast is implicit no more => CAST (ops.celsius AS ops.kelvin)
UPDATE pg_cast SET castcontext = 'e' WHERE castsource = 'ops.celsius'::regtype AND casttarget = 'ops.kelvin'::regtype;

--- a cast goes another way => CAST (numeric AS ops.celsius)
CREATE FUNCTION ops.to_celsius_too(numeric) RETURNS ops.celsius LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1 + 1)::ops.celsius';
DROP CAST (numeric AS ops.celsius);
CREATE CAST (numeric AS ops.celsius) WITH FUNCTION ops.to_celsius_too(numeric) AS ASSIGNMENT;

--- a comment on a cast => COMMENT CAST (ops.pair AS text)
COMMENT ON CAST (ops.pair AS text) IS NULL;

--- a collation is gone => COLLATION ops.to_drop
DROP COLLATION ops.to_drop;

--- a collation has another owner => COLLATION ops.posix
ALTER COLLATION ops.posix OWNER TO kinds_bob;

--- a comment on a collation => COMMENT ops.COLLATION plain
COMMENT ON COLLATION ops.plain IS 'letters';

--- a collation of ICU is deterministic => COLLATION ops.any_case {needs=icu}
UPDATE pg_collation SET collisdeterministic = true WHERE oid = 'ops.any_case'::regcollation;

--- a column has another collation => TABLE ops.by_icu {needs=icu}
ALTER TABLE ops.by_icu ALTER COLUMN w TYPE text COLLATE "C";

--- a built-in collation has another locale => COLLATION ops.built_in {since=17}
UPDATE pg_collation SET colllocale = 'C' WHERE oid = 'ops.built_in'::regcollation;

--- a conversion is gone => CONVERSION ops.conversion_to_drop
DROP CONVERSION ops.conversion_to_drop;

--- a conversion is the default no more => CONVERSION ops.default_conversion
UPDATE pg_conversion SET condefault = false WHERE conname = 'default_conversion';

--- a comment on an access method => COMMENT ACCESS METHOD kinds_gist
COMMENT ON ACCESS METHOD kinds_gist IS NULL;

--- an index uses another access method => INDEX ops.boxed_b
DROP INDEX ops.boxed_b;
CREATE INDEX boxed_b ON ops.boxed USING gist (b);

--- an access method is gone => ACCESS METHOD kinds_gist
DROP OPERATOR FAMILY ops.boxes USING kinds_gist CASCADE;
DROP ACCESS METHOD kinds_gist;
