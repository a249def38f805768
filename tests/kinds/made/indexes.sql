-- Indexes of every method, and extended statistics.

--- b-tree: expressions, parts, columns that come along, orders, collations, operator classes
CREATE SCHEMA idx;
CREATE TABLE idx.things (id int, name text, tags text[], doc jsonb, words tsvector, at timestamptz, spot point, span int4range, ip inet);
INSERT INTO idx.things SELECT i, 'name ' || i, ARRAY['t' || i % 3], jsonb_build_object('a', i), 'w:1',
    timestamptz '2024-01-01 00:00+00' + i * interval '1 h', point(i, i), int4range(i, i + 2), '10.0.0.1' FROM generate_series(1, 50) i;
CREATE INDEX by_expression ON idx.things (lower(name), (id + 1));
CREATE INDEX by_part ON idx.things (id) WHERE name LIKE 'x%' AND id > 10;
CREATE INDEX by_covering ON idx.things (id) INCLUDE (name, at);
CREATE INDEX by_order ON idx.things (id DESC NULLS LAST, name COLLATE "C" ASC NULLS FIRST);
CREATE INDEX by_pattern ON idx.things (name text_pattern_ops) WITH (fillfactor = 60, deduplicate_items = off);
CREATE UNIQUE INDEX by_unique ON idx.things (id, (name || 'x'));
CREATE UNIQUE INDEX by_nulls ON idx.things (at) NULLS NOT DISTINCT;

--- the other methods, with options of their operator classes
CREATE INDEX by_hash ON idx.things USING hash (name);
CREATE INDEX by_gin ON idx.things USING gin (tags, words) WITH (fastupdate = off);
CREATE INDEX by_gin_path ON idx.things USING gin (doc jsonb_path_ops);
CREATE INDEX by_gist ON idx.things USING gist (spot, span) WITH (buffering = on);
CREATE INDEX by_gist_words ON idx.things USING gist (words tsvector_ops (siglen = 64));
CREATE INDEX by_spgist ON idx.things USING spgist (ip);
CREATE INDEX by_brin ON idx.things USING brin (at timestamptz_minmax_multi_ops (values_per_range = 16), id) WITH (pages_per_range = 4, autosummarize = on);

--- statistics on an expression's index, comments
ALTER INDEX idx.by_expression ALTER COLUMN 2 SET STATISTICS 77;
COMMENT ON INDEX idx.by_part IS 'only some';

--- one index for each way to lose it
CREATE TABLE idx.to_lose (a int, b text, c int[]);
CREATE INDEX loses_expression ON idx.to_lose ((a + 1));
CREATE INDEX loses_predicate ON idx.to_lose (a) WHERE a > 0;
CREATE INDEX loses_include ON idx.to_lose (a) INCLUDE (b);
CREATE INDEX loses_order ON idx.to_lose (a DESC);
CREATE INDEX loses_class ON idx.to_lose (b text_pattern_ops);
CREATE INDEX loses_collation ON idx.to_lose (b COLLATE "C");
CREATE INDEX loses_parameter ON idx.to_lose (a) WITH (fillfactor = 50);
CREATE INDEX loses_method ON idx.to_lose USING hash (a);
CREATE INDEX loses_gin ON idx.to_lose USING gin (c);
CREATE INDEX loses_all ON idx.to_lose USING brin (a);
CREATE UNIQUE INDEX loses_unique ON idx.to_lose (a, b);
CREATE INDEX loses_validity ON idx.to_lose (b, a);

--- an index on a table that will not use it
CREATE TABLE idx.statistics_off (a int);
CREATE INDEX of_nothing ON idx.statistics_off (a) WHERE false;

--- extended statistics: every kind, expressions, targets
CREATE STATISTICS idx.all_kinds ON id, at, name FROM idx.things;
CREATE STATISTICS idx.some_kinds (ndistinct, mcv) ON id, at FROM idx.things;
CREATE STATISTICS idx.on_expression ON (lower(name)) FROM idx.things;
CREATE STATISTICS idx.with_target (dependencies) ON id, name FROM idx.things;
ALTER STATISTICS idx.with_target SET STATISTICS 321;
COMMENT ON STATISTICS idx.all_kinds IS 'everything';
CREATE STATISTICS idx.to_drop ON id, ip FROM idx.things;
CREATE STATISTICS idx.to_change (ndistinct) ON id, ip, at FROM idx.things;
