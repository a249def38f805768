-- One table for each type, so that one altered value fails one check.

--- integers at both ends
CREATE SCHEMA vals;
CREATE TABLE vals.integers (a smallint, b int, c bigint);
INSERT INTO vals.integers VALUES
    (-32768, -2147483648, -9223372036854775808), (32767, 2147483647, 9223372036854775807),
    (0, -1, NULL), (NULL, NULL, NULL);

--- numeric: 1.1 and 1.10 are equal but not the same; negative scale; not a number
CREATE TABLE vals.numerics (a numeric, b numeric(10, 3), c numeric(5, -2), d numeric(3, 5));
INSERT INTO vals.numerics VALUES
    (1.1, 1.5, 12345, 0.00123), (1.10, -0.001, -99900, 0), (0.000, 'NaN', NULL, NULL),
    ('NaN', NULL, NULL, NULL), ('Infinity', NULL, NULL, NULL), ('-Infinity', NULL, NULL, NULL),
    (('1' || repeat('0', 1000) || '.' || repeat('3', 1000))::numeric, NULL, NULL, NULL);
CREATE TABLE vals.numeric_nan (v numeric);
INSERT INTO vals.numeric_nan VALUES ('NaN'), (0);

--- float: infinities, negative zero, subnormal, the last of 17 digits
CREATE TABLE vals.floats (a real, b double precision);
INSERT INTO vals.floats VALUES
    (0.1, 0.1), ('1e-45', '5e-324'), ('3.4028235e38', '1.7976931348623157e308'),
    (16777216, 0.30000000000000004), (NULL, 9007199254740993);
CREATE TABLE vals.float_infinity (v float8);
INSERT INTO vals.float_infinity VALUES ('Infinity'), ('-Infinity');
CREATE TABLE vals.float_negative_zero (v float8);
INSERT INTO vals.float_negative_zero VALUES ('-0'), (0);
CREATE TABLE vals.float_nan (v float4);
INSERT INTO vals.float_nan VALUES ('NaN');

--- money depends on lc_monetary
CREATE TABLE vals.moneys (v money);
INSERT INTO vals.moneys VALUES (12.34), ((-92233720368547758.08)::numeric::money), (NULL);

--- booleans, three states
CREATE TABLE vals.booleans (v boolean);
INSERT INTO vals.booleans VALUES (true), (false), (NULL);

--- dates and timestamps: both ends, before Christ, infinities, microseconds
CREATE TABLE vals.dates (v date);
INSERT INTO vals.dates VALUES ('4713-01-01 BC'), ('5874897-12-31'), ('0001-12-31 BC'), ('2024-02-29'), ('-infinity');
CREATE TABLE vals.timestamps (v timestamp, p timestamp(3));
INSERT INTO vals.timestamps VALUES
    ('4713-01-01 00:00:00 BC', '2024-01-01 00:00:00.123'), ('294276-12-31 23:59:59.999999', NULL),
    ('infinity', '-infinity'), ('2000-01-01 00:00:00.000001', NULL);
CREATE TABLE vals.timestamps_with_zone (v timestamptz);
INSERT INTO vals.timestamps_with_zone VALUES
    ('4713-01-01 00:00:00+00 BC'), ('294276-12-31 23:59:59.999999+00'), ('infinity'),
    ('2024-03-31 02:30:00+01'), ('1890-01-01 00:00:00+00:53:28');
CREATE TABLE vals.times (a time, b timetz, c time(0));
INSERT INTO vals.times VALUES ('24:00:00', '24:00:00-15:59:59', '23:59:59'), ('00:00:00.000001', '12:00+05:45', NULL);

--- intervals: a month is not 30 days, a day is not 24 hours; mixed signs
CREATE TABLE vals.intervals (v interval);
INSERT INTO vals.intervals VALUES
    ('1 mon'), ('30 days'), ('1 day'), ('24 hours'), ('-1 mon +1 day -00:00:01'),
    ('178000000 years'), ('-178000000 years'), ('0'), ('0.000001 s');
CREATE TABLE vals.intervals_limited (a interval day to second(3), b interval year to month);
INSERT INTO vals.intervals_limited VALUES ('1 02:03:04.567', '1-2');

--- intervals without end {since=17}
CREATE TABLE vals.intervals_infinite (v interval);
INSERT INTO vals.intervals_infinite VALUES ('infinity'), ('-infinity');

--- json keeps blanks, order and keys given twice; jsonb does not, but keeps scales
CREATE TABLE vals.jsons (v json);
INSERT INTO vals.jsons VALUES
    ('{"b": 1,  "a":2, "a" : 3}'), (E'[\n\t1.0, 1.00, 1e2]'), ('null'), (NULL), ('"\u00e4\\u0000"'), ('""');
CREATE TABLE vals.jsonbs (v jsonb);
INSERT INTO vals.jsonbs VALUES
    ('{"b": 1.0, "a": 1.00}'), ('null'), (NULL), ('"tab\tnew\nline\\"'), ('[]'), ('{"": {"": []}}');
CREATE TABLE vals.jsonpaths (v jsonpath);
INSERT INTO vals.jsonpaths VALUES ('strict $.a[*] ? (@.b > 1 && @ like_regex "^x\\d" flag "i")');

--- xml keeps its blanks; documents and content {needs=xml}
CREATE TABLE vals.xmls (v xml);
INSERT INTO vals.xmls VALUES
    ('<a  b="1"/>'), ('<?xml version="1.0"?><r>ä &amp; <![CDATA[<]]></r>'), ('text and <b/>'), (''), (NULL);

--- bytes: empty, every byte, a null byte is not nothing
CREATE TABLE vals.byteas (v bytea);
INSERT INTO vals.byteas SELECT decode(lpad(to_hex(i), 2, '0'), 'hex') FROM generate_series(0, 255) i;
INSERT INTO vals.byteas VALUES (''), (NULL), ('\x5c78'), ('\x0000');

--- bits: leading zeros count
CREATE TABLE vals.bits (a bit(5), b bit varying, c bit varying(70));
INSERT INTO vals.bits VALUES (B'00101', B'', B'1'), (B'00000', B'0001', repeat('10', 35)::bit(70)), (NULL, NULL, NULL);

--- network addresses: host bits, both families, both lengths
CREATE TABLE vals.inets (a inet, b cidr);
INSERT INTO vals.inets VALUES
    ('192.168.0.1/24', '192.168.0.0/24'), ('192.168.0.1', '::/0'), ('fe80::1/64', '2001:db8::/32'), ('::ffff:1.2.3.4', NULL);
CREATE TABLE vals.macaddrs (a macaddr, b macaddr8);
INSERT INTO vals.macaddrs VALUES ('08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05');

--- text search: positions, weights, quoted lexemes
CREATE TABLE vals.tsvectors (v tsvector);
INSERT INTO vals.tsvectors VALUES ('fat:2,4 rat:5A,12B'), ('''it''''s'' ''back\\slash'':1'), (''), (NULL);
CREATE TABLE vals.tsqueries (v tsquery);
INSERT INTO vals.tsqueries VALUES ('fat & (rat | !cat:AB*) <2> dog'), ('');

--- geometry: lines without slope, negative zero, infinities
CREATE TABLE vals.shapes (a point, b line, c lseg, d box, e path, f polygon, g circle);
INSERT INTO vals.shapes VALUES
    ('(1.1,-0)', '{1,0,3}', '[(0,0),(1,1)]', '(3,3),(1,1)', '[(0,0),(1,0.1)]', '((0,0),(1,1),(1,0))', '<(0,0),2.5>'),
    ('(Infinity,NaN)', NULL, NULL, NULL, '((0,0),(1,1))', NULL, '<(1e-300,0),0>');

--- identifiers and numbers of the system
CREATE TABLE vals.uuids (v uuid);
INSERT INTO vals.uuids VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), ('00000000-0000-0000-0000-000000000000');
CREATE TABLE vals.inner_types (a oid, b xid, c xid8, d cid, e tid, f pg_lsn, g pg_snapshot, h "char", i name, j int2vector, k oidvector, l aclitem, m refcursor);
INSERT INTO vals.inner_types VALUES
    (4294967295, '4294967295', '18446744073709551615', '7', '(4294967295,65535)', 'FFFFFFFF/FFFFFFFF',
     '10:20:10,14,15', '\377', 'a name', '1 2 3', '4 5', 'kinds_alice=r*w/kinds_bob', 'cursor'),
    (0, '0', '0', '0', '(0,0)', '0/0', '1:1:', '', '', '', '', NULL, '');

--- names of objects: their numbers differ in the copy, and the search path shows in them
CREATE TABLE vals.reg_types (a regclass, b regproc, c regprocedure, d regtype, e regoper, f regoperator, g regrole, h regnamespace, i regconfig, j regdictionary, k regcollation);
INSERT INTO vals.reg_types VALUES
    ('vals.uuids', 'pg_catalog.now', 'pg_catalog.abs(int)', 'vals.uuids[]', 'pg_catalog.||/', 'pg_catalog.+(int,int)',
     'kinds_alice', 'vals', 'pg_catalog.english', 'pg_catalog.simple', 'pg_catalog."C"'),
    (0::regclass, '-', '-', '-', '0', '0', '-', '-', '-', '-', '-');
