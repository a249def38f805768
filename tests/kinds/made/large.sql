-- Large objects: content, owners, grants, comments.

--- empty, small, of several pages, with a high number, with a hole
SELECT lo_create(4200001);
SELECT lo_from_bytea(4200002, 'small');
SELECT lo_from_bytea(4200003, decode(repeat('00ff5c0a', 50000), 'hex'));
SELECT lo_from_bytea(4294967000, 'high');
SELECT lo_create(4200004);
SELECT lo_put(4200004, 100000, 'behind a hole');

--- owners, grants, comments
ALTER LARGE OBJECT 4200002 OWNER TO kinds_alice;
GRANT SELECT ON LARGE OBJECT 4200003 TO kinds_readers;
GRANT SELECT, UPDATE ON LARGE OBJECT 4200003 TO kinds_bob WITH GRANT OPTION;
COMMENT ON LARGE OBJECT 4200003 IS 'large; it''s an object';

--- one for each way to change it
SELECT lo_from_bytea(4200100 + i, convert_to('object ' || i, 'UTF8')) FROM generate_series(1, 6) i;
GRANT SELECT ON LARGE OBJECT 4200103 TO kinds_readers;
COMMENT ON LARGE OBJECT 4200104 IS 'before';

--- a column that points at them
CREATE SCHEMA large;
CREATE TABLE large.pointers (name text, object oid);
INSERT INTO large.pointers VALUES ('small', 4200002), ('gone', 4200999);
