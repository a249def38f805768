-- Types that the user makes.

--- enums: labels with blanks, quotes and commas; order that is not of the alphabet
CREATE SCHEMA types;
CREATE TYPE types.mood AS ENUM ('sad', 'ok', 'it''s "fine", (really)', ' ', 'ä');
CREATE TABLE types.moods (v types.mood, a types.mood[]);
INSERT INTO types.moods VALUES ('ok', '{ok,"it''s \"fine\", (really)"," "}'), (NULL, '{}');
CREATE TYPE types.renamed_label AS ENUM ('one', 'two');
CREATE TYPE types.no_labels AS ENUM ();
CREATE TYPE types.colour AS ENUM ('red', 'blue');
ALTER TYPE types.colour ADD VALUE 'green' BEFORE 'blue';

--- domains: over domains, with defaults, checks by functions, collations, not validated
CREATE DOMAIN types.positive AS int CHECK (VALUE > 0);
CREATE DOMAIN types.small_positive AS types.positive DEFAULT 7 NOT NULL CONSTRAINT small CHECK (VALUE < 100);
CREATE DOMAIN types.word AS text COLLATE "C" CONSTRAINT no_blank CHECK (VALUE !~ '\s' AND VALUE <> '');
CREATE DOMAIN types.many AS int[] CHECK (array_length(VALUE, 1) <= 3);
CREATE DOMAIN types.nullable AS text DEFAULT 'it''s';
CREATE DOMAIN types.lax AS int;
CREATE TABLE types.of_domains (a types.small_positive, b types.word, c types.many, d types.positive[], e types.lax);
INSERT INTO types.of_domains VALUES (DEFAULT, 'x', '{1,2}', '{1,2}', -5), (1, NULL, NULL, NULL, NULL);
ALTER DOMAIN types.lax ADD CONSTRAINT never_below CHECK (VALUE > 0) NOT VALID;

--- composites: nested, with a collation, with arrays and domains of themselves
CREATE TYPE types.pair AS (a int, b text COLLATE "C");
CREATE TYPE types.nested AS (p types.pair, ps types.pair[], d types.positive);
CREATE DOMAIN types.good_pair AS types.pair CHECK ((VALUE).a > 0);
CREATE TABLE types.composites (a types.pair, b types.nested, c types.good_pair, d types.pair[]);
INSERT INTO types.composites VALUES
    ((1, 'x,"y\)'), ((2, NULL), ARRAY[(3, '')::types.pair, NULL], 4)::types.nested, (5, 'z'), ARRAY[(1, 'q')::types.pair]),
    ((NULL, NULL), NULL, NULL, '{}');
CREATE TYPE types.empty_composite AS ();
CREATE TYPE types.shrunk AS (a int, gone text, c int);
ALTER TYPE types.shrunk DROP ATTRIBUTE gone;
CREATE TABLE types.of_shrunk (v types.shrunk);
INSERT INTO types.of_shrunk VALUES ((1, 2));

--- a table's own row type as a column elsewhere
CREATE TABLE types.row_source (a int, b text);
CREATE TABLE types.row_holder (r types.row_source, rs types.row_source[]);
INSERT INTO types.row_holder VALUES ((1, 'x'), ARRAY[(2, 'y')::types.row_source]);

--- arrays: bounds, dimensions, nothing inside, the word NULL
CREATE TABLE types.arrays (a int[], b text[], c numeric[][]);
INSERT INTO types.arrays VALUES
    ('[2:3]={1,2}', '{NULL,"NULL","",",","{}","\\","\""}', '{{1.0,2.00},{3,4}}'),
    ('[-1:0][2:2]={{1},{2}}', '{}', NULL), (NULL, NULL, '{{{1}}}');

--- ranges and multiranges: empty, without ends, ends in and out
CREATE TABLE types.ranges (a int4range, b numrange, c tstzrange, d daterange, e tsrange, f int8range);
INSERT INTO types.ranges VALUES
    ('[1,5)', '(1.0,2.50]', '[2024-01-01 00:00+00,)', '(,)', 'empty', '[,7)'), ('empty', '[,]', NULL, '[2024-01-01,infinity]', '[,infinity]', NULL);
CREATE TABLE types.multiranges (a int4multirange, b datemultirange, c nummultirange);
INSERT INTO types.multiranges VALUES ('{[1,3),[5,7)}', '{}', '{(,1.10],[2,)}'), ('{}', '{(,)}', NULL);

--- range types of one's own: names, collation, the function for distances
CREATE FUNCTION types.distance(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 - $2';
CREATE TYPE types.span AS RANGE (subtype = float8, subtype_diff = types.distance, multirange_type_name = types.spans);
CREATE TYPE types.text_range AS RANGE (subtype = text, collation = "C", subtype_opclass = text_pattern_ops);
CREATE TABLE types.own_ranges (a types.span, b types.spans, c types.text_range);
INSERT INTO types.own_ranges VALUES ('[1.5,2)', '{[1,2),[3,4.5]}', '["a,b","z\""]');

--- a base type of one's own, made of functions that the server has inside
CREATE TYPE types.int42;
CREATE FUNCTION types.int42_in(cstring) RETURNS types.int42 AS 'int4in' LANGUAGE internal STRICT IMMUTABLE;
CREATE FUNCTION types.int42_out(types.int42) RETURNS cstring AS 'int4out' LANGUAGE internal STRICT IMMUTABLE;
CREATE TYPE types.int42 (
    internallength = 4, input = types.int42_in, output = types.int42_out, alignment = int4, default = 42,
    passedbyvalue, category = 'N', delimiter = ';');
CREATE TABLE types.of_int42 (v types.int42, a types.int42[]);
INSERT INTO types.of_int42 (a) VALUES ('{1;2}');
CREATE TYPE types.shell_only;
