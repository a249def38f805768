-- Partitions and their rows.

--- a row of a list => table parts.by_list_north
UPDATE parts.by_list SET note = 'z' WHERE id = 1;

--- the row of no region goes to the rest => table parts.by_list_null
UPDATE parts.by_list SET region = 'nowhere' WHERE region IS NULL;

--- a row moves to the other range => table parts.by_range_new
UPDATE parts.by_range SET at = '2019-12-30' WHERE n = 3;

--- a row of an expression's range => table parts.by_expression_low
DELETE FROM parts.by_expression;

--- a partition by hash is empty => table parts.by_hash_1
TRUNCATE parts.by_hash_1;

--- a row four levels down => table parts.levels_2024_a_1
UPDATE parts.levels_2024_a_1 SET v = v + 0.01 WHERE id = (SELECT max(id) FROM parts.levels_2024_a_1);

--- a row in the default of a default => table parts.levels_rest_rest
DELETE FROM parts.levels_rest_rest WHERE id = 0;

--- a row by the hash of an enum => parts.by_enum_hash
DELETE FROM parts.by_enum_hash WHERE size = 'xl' AND n = 4;

--- a row that was attached => table shapes.attached_here
UPDATE parts.attached SET c = 11 WHERE a = 1;

--- a default of a partition => shapes.attached_here
ALTER TABLE shapes.attached_here ALTER COLUMN b SET DEFAULT 'root';

--- a partition is detached => parts.shrinking_1
ALTER TABLE parts.shrinking DETACH PARTITION parts.shrinking_1;

--- a partition is gone => parts.shrinking_3
DROP TABLE parts.shrinking_3;

--- a partition has other bounds => parts.shrinking_2
ALTER TABLE parts.shrinking DETACH PARTITION parts.shrinking_2;
ALTER TABLE parts.shrinking ATTACH PARTITION parts.shrinking_2 FOR VALUES IN (2, 4);

--- an index of all partitions is gone => INDEX parts.keyed_other
DROP INDEX parts.keyed_other;

--- an index of one partition is gone => INDEX parts.keyed_2024_only
DROP INDEX parts.keyed_2024_only;

--- an index without its partitions is gone => INDEX parts.keyed_unattached
DROP INDEX parts.keyed_unattached;

--- a foreign key between partitioned tables is gone => FK CONSTRAINT parts.refers refers_to_keyed
ALTER TABLE parts.refers DROP CONSTRAINT refers_to_keyed;

--- a table without partitions gets one => parts.childless_1
CREATE TABLE parts.childless_1 PARTITION OF parts.childless FOR VALUES WITH (MODULUS 1, REMAINDER 0);

--- a partition's row of a computed column => table parts.computed_1
DELETE FROM parts.computed;
