-- Large objects. There may be millions, so that a check names those of one owner, with the
-- same grants and comment, together.

--- bytes of a large object => large objects
SELECT lo_put(4200003, 70000, '\x01');

--- a large object is gone => large objects
SELECT lo_unlink(4200101);

--- a large object loses its end => large objects
UPDATE pg_largeobject SET data = substr(data, 1, 3) WHERE loid = 4294967000;

--- a large object has another owner => of kinds_bob
ALTER LARGE OBJECT 4200102 OWNER TO kinds_bob;

--- a grant on a large object is gone => kinds_readers SELECT
REVOKE SELECT ON LARGE OBJECT 4200103 FROM kinds_readers;

--- a comment on a large object => about after
COMMENT ON LARGE OBJECT 4200104 IS 'after';

--- a grant on a large object is more than there were => public UPDATE
GRANT UPDATE ON LARGE OBJECT 4200105 TO PUBLIC;

--- a row that points at one => table large.pointers
UPDATE large.pointers SET object = 4200003 WHERE name = 'small';
