-- Indexes and extended statistics.

--- an expression => INDEX idx.loses_expression
DROP INDEX idx.loses_expression;
CREATE INDEX loses_expression ON idx.to_lose ((a + 2));

--- a predicate => INDEX idx.loses_predicate
DROP INDEX idx.loses_predicate;
CREATE INDEX loses_predicate ON idx.to_lose (a) WHERE a > 1;

--- a column that came along => INDEX idx.loses_include
DROP INDEX idx.loses_include;
CREATE INDEX loses_include ON idx.to_lose (a) INCLUDE (c);

--- an order => INDEX idx.loses_order
DROP INDEX idx.loses_order;
CREATE INDEX loses_order ON idx.to_lose (a);

--- an operator class => INDEX idx.loses_class
DROP INDEX idx.loses_class;
CREATE INDEX loses_class ON idx.to_lose (b);

--- a collation => INDEX idx.loses_collation
DROP INDEX idx.loses_collation;
CREATE INDEX loses_collation ON idx.to_lose (b);

--- a storage parameter => INDEX idx.loses_parameter
ALTER INDEX idx.loses_parameter RESET (fillfactor);

--- a method => INDEX idx.loses_method
DROP INDEX idx.loses_method;
CREATE INDEX loses_method ON idx.to_lose USING btree (a);

--- a GIN index is gone => INDEX idx.loses_gin
DROP INDEX idx.loses_gin;

--- a BRIN index is gone => INDEX idx.loses_all
DROP INDEX idx.loses_all;

--- an index is not unique => INDEX idx.loses_unique
DROP INDEX idx.loses_unique;
CREATE INDEX loses_unique ON idx.to_lose (a, b);

--- an index is not valid => idx.loses_validity
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx.loses_validity'::regclass;

--- a statistics target in an index => INDEX idx.by_expression
ALTER INDEX idx.by_expression ALTER COLUMN 2 SET STATISTICS 78;

--- a comment on an index => COMMENT idx.INDEX by_part
COMMENT ON INDEX idx.by_part IS 'all';

--- a table has an index too many => INDEX idx.surplus
CREATE INDEX surplus ON idx.statistics_off (a);

--- extended statistics are gone => STATISTICS idx.to_drop
DROP STATISTICS idx.to_drop;

--- extended statistics are of another kind => STATISTICS idx.to_change
DROP STATISTICS idx.to_change;
CREATE STATISTICS idx.to_change (mcv) ON id, ip, at FROM idx.things;

--- a target of extended statistics => STATISTICS idx.with_target
ALTER STATISTICS idx.with_target SET STATISTICS 322;

--- an owner of extended statistics => STATISTICS idx.some_kinds
ALTER STATISTICS idx.some_kinds OWNER TO kinds_bob;

--- a comment on extended statistics is gone => COMMENT idx.STATISTICS all_kinds
COMMENT ON STATISTICS idx.all_kinds IS NULL;
