-- Operators and what hangs on them, casts, collations, conversions, access methods.

--- operators: commutator, negator, estimators; prefix; of nothing but signs
CREATE SCHEMA ops;
CREATE TYPE ops.pair AS (a int, b int);
CREATE FUNCTION ops.less(ops.pair, ops.pair) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1.a < $2.a';
CREATE FUNCTION ops.more(ops.pair, ops.pair) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1.a > $2.a';
CREATE FUNCTION ops.same(ops.pair, ops.pair) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1.a = $2.a';
CREATE FUNCTION ops.other(ops.pair, ops.pair) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1.a <> $2.a';
CREATE FUNCTION ops.compare(ops.pair, ops.pair) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT btint4cmp($1.a, $2.a)';
CREATE FUNCTION ops.negative(ops.pair) RETURNS ops.pair LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ROW(-$1.a, $1.b)::ops.pair';
CREATE OPERATOR ops.<<< (function = ops.less, leftarg = ops.pair, rightarg = ops.pair, commutator = OPERATOR(ops.>>>), restrict = scalarltsel, join = scalarltjoinsel);
CREATE OPERATOR ops.>>> (function = ops.more, leftarg = ops.pair, rightarg = ops.pair);
CREATE OPERATOR ops.=== (function = ops.same, leftarg = ops.pair, rightarg = ops.pair, commutator = OPERATOR(ops.===), negator = OPERATOR(ops.!==), restrict = eqsel, join = eqjoinsel, hashes, merges);
CREATE OPERATOR ops.!== (function = ops.other, leftarg = ops.pair, rightarg = ops.pair);
CREATE OPERATOR ops.~~~ (function = ops.negative, rightarg = ops.pair);
CREATE OPERATOR ops.@@+ (function = int4pl, leftarg = int, rightarg = int);
CREATE OPERATOR ops.&&& (function = int4pl, leftarg = int, rightarg = int);
COMMENT ON OPERATOR ops.=== (ops.pair, ops.pair) IS 'by the first';

--- operator families and classes, loose members, an index that uses them
CREATE OPERATOR FAMILY ops.pair_family USING btree;
CREATE OPERATOR CLASS ops.pair_class FOR TYPE ops.pair USING btree FAMILY ops.pair_family AS
    OPERATOR 1 ops.<<<, OPERATOR 3 ops.===, OPERATOR 5 ops.>>>, FUNCTION 1 ops.compare(ops.pair, ops.pair);
CREATE FUNCTION ops.compare(int, bigint, text) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE OPERATOR FAMILY ops.loose USING btree;
ALTER OPERATOR FAMILY ops.loose USING btree ADD
    OPERATOR 1 < (int4, int8), OPERATOR 2 <= (int4, int8), FUNCTION 1 (int4, int8) btint48cmp(int4, int8);
CREATE OPERATOR FAMILY ops.empty USING hash;
CREATE OPERATOR FAMILY ops.to_drop USING gist;
CREATE OPERATOR CLASS ops.class_to_drop FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 1 hashint4(int4);
CREATE TABLE ops.pairs (v ops.pair);
INSERT INTO ops.pairs VALUES ((1, 2)), ((0, 5));
CREATE INDEX pairs_by_class ON ops.pairs (v ops.pair_class);
COMMENT ON OPERATOR CLASS ops.pair_class USING btree IS 'of pairs';

--- casts: by a function, binary, through text; explicit, assigned, implicit
CREATE TYPE ops.celsius AS (v numeric);
CREATE TYPE ops.kelvin AS (v numeric);
CREATE FUNCTION ops.to_celsius(numeric) RETURNS ops.celsius LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1)::ops.celsius';
CREATE FUNCTION ops.to_kelvin(ops.celsius) RETURNS ops.kelvin LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1.v + 273.15)::ops.kelvin';
CREATE CAST (numeric AS ops.celsius) WITH FUNCTION ops.to_celsius(numeric) AS ASSIGNMENT;
CREATE CAST (ops.celsius AS ops.kelvin) WITH FUNCTION ops.to_kelvin(ops.celsius) AS IMPLICIT;
CREATE CAST (ops.pair AS text) WITH INOUT;
CREATE CAST (text AS ops.pair) WITH INOUT AS ASSIGNMENT;
CREATE CAST (ops.kelvin AS text) WITH INOUT;
CREATE CAST (types.int42 AS int) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (ops.pair AS text) IS 'as it prints';

--- collations of libc
CREATE COLLATION ops.plain (provider = libc, locale = 'C');
CREATE COLLATION ops.posix (lc_collate = 'POSIX', lc_ctype = 'C');
CREATE COLLATION ops.to_drop (provider = libc, locale = 'C');
CREATE TABLE ops.by_collation (v text COLLATE ops.plain);
CREATE INDEX by_collation_v ON ops.by_collation (v COLLATE ops.posix);
INSERT INTO ops.by_collation VALUES ('b'), ('B');
COMMENT ON COLLATION ops.plain IS 'bytes';

--- collations of ICU: not deterministic, tailored {needs=icu}
CREATE COLLATION ops.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION ops.german (provider = icu, locale = 'de-u-co-phonebk');
CREATE TABLE ops.by_icu (v text COLLATE ops.any_case PRIMARY KEY, w text COLLATE ops.german);
INSERT INTO ops.by_icu VALUES ('Ä', 'ß'), ('b', 'ss');

--- collations that are built in {since=17}
CREATE COLLATION ops.built_in (provider = builtin, locale = 'C.UTF-8');
CREATE TABLE ops.by_built_in (v text COLLATE ops.built_in PRIMARY KEY);
INSERT INTO ops.by_built_in VALUES ('Ä'), ('a');

--- conversions, of which one is the default between two encodings
CREATE CONVERSION ops.plain_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION ops.default_conversion FOR 'LATIN2' TO 'UTF8' FROM iso8859_to_utf8;
CREATE CONVERSION ops.conversion_to_drop FOR 'LATIN3' TO 'UTF8' FROM iso8859_to_utf8;
COMMENT ON CONVERSION ops.plain_conversion IS 'one more';

--- an index access method of one's own
CREATE ACCESS METHOD kinds_gist TYPE INDEX HANDLER gisthandler;
CREATE OPERATOR CLASS ops.boxes FOR TYPE box USING kinds_gist AS STORAGE box, OPERATOR 3 &&,
    FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal), FUNCTION 7 gist_box_same(box, box, internal);
CREATE TABLE ops.boxed (b box);
INSERT INTO ops.boxed VALUES ('(0,0),(1,1)');
CREATE INDEX boxed_b ON ops.boxed USING kinds_gist (b ops.boxes);
COMMENT ON ACCESS METHOD kinds_gist IS 'gist by another name';
