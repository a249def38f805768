-- Partitioned tables; their rows must come back into the right ones.

--- by list, with NULL, several values and the rest
CREATE SCHEMA parts;
CREATE TABLE parts.by_list (id int, region text, note text) PARTITION BY LIST (region);
CREATE TABLE parts.by_list_north PARTITION OF parts.by_list FOR VALUES IN ('n', 'ne', 'it''s north');
CREATE TABLE parts.by_list_null PARTITION OF parts.by_list FOR VALUES IN (NULL);
CREATE TABLE parts.by_list_rest PARTITION OF parts.by_list DEFAULT;
INSERT INTO parts.by_list VALUES (1, 'n', 'a'), (2, NULL, 'b'), (3, 'elsewhere', 'c'), (4, 'it''s north', NULL);

--- by range: without ends, two columns, an expression
CREATE TABLE parts.by_range (at date NOT NULL, n int) PARTITION BY RANGE (at);
CREATE TABLE parts.by_range_old PARTITION OF parts.by_range FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE parts.by_range_new PARTITION OF parts.by_range FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
INSERT INTO parts.by_range VALUES ('4713-01-01 BC', 1), ('2019-12-31', 2), ('2020-01-01', 3);
CREATE TABLE parts.by_expression (a int, b text) PARTITION BY RANGE (lower(b), (a + 1));
CREATE TABLE parts.by_expression_low PARTITION OF parts.by_expression FOR VALUES FROM ('a', MINVALUE) TO ('m', 10);
INSERT INTO parts.by_expression VALUES (1, 'Bee');

--- by hash
CREATE TABLE parts.by_hash (id int, v text) PARTITION BY HASH (id);
CREATE TABLE parts.by_hash_0 PARTITION OF parts.by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE parts.by_hash_1 PARTITION OF parts.by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE parts.by_hash_2 PARTITION OF parts.by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO parts.by_hash SELECT i, 'v' || i FROM generate_series(1, 60) i;

--- several levels: range, list, hash; a default below a default
CREATE TABLE parts.levels (at date, region text, id int, v numeric) PARTITION BY RANGE (at);
CREATE TABLE parts.levels_2024 PARTITION OF parts.levels FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (region);
CREATE TABLE parts.levels_2024_a PARTITION OF parts.levels_2024 FOR VALUES IN ('a') PARTITION BY HASH (id);
CREATE TABLE parts.levels_2024_a_0 PARTITION OF parts.levels_2024_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts.levels_2024_a_1 PARTITION OF parts.levels_2024_a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parts.levels_2024_rest PARTITION OF parts.levels_2024 DEFAULT;
CREATE TABLE parts.levels_rest PARTITION OF parts.levels DEFAULT PARTITION BY LIST (region);
CREATE TABLE parts.levels_rest_rest PARTITION OF parts.levels_rest DEFAULT;
INSERT INTO parts.levels SELECT date '2023-07-01' + i * 20, chr(97 + i % 2), i, i * 1.10 FROM generate_series(0, 40) i;

--- hash on an enum: its values hash differently in every database, so pg_dump loads through the root
CREATE TYPE parts.size AS ENUM ('s', 'm', 'l', 'xl', 'xxl');
CREATE TABLE parts.by_enum_hash (size parts.size, n int) PARTITION BY HASH (size);
CREATE TABLE parts.by_enum_hash_0 PARTITION OF parts.by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE parts.by_enum_hash_1 PARTITION OF parts.by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE parts.by_enum_hash_2 PARTITION OF parts.by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE parts.by_enum_hash_3 PARTITION OF parts.by_enum_hash FOR VALUES WITH (MODULUS 4, REMAINDER 3) PARTITION BY LIST (size);
CREATE TABLE parts.by_enum_hash_3_rest PARTITION OF parts.by_enum_hash_3 DEFAULT;
INSERT INTO parts.by_enum_hash SELECT size, n FROM unnest(enum_range(NULL::parts.size)) size, generate_series(1, 4) n;

--- attached: columns in another order, one dropped, a default of its own, in another schema
CREATE TABLE parts.attached (a int, b text DEFAULT 'root', c int) PARTITION BY LIST (a);
CREATE TABLE shapes.attached_here (gone int, c int, b text DEFAULT 'leaf', a int NOT NULL);
ALTER TABLE shapes.attached_here DROP COLUMN gone;
ALTER TABLE parts.attached ATTACH PARTITION shapes.attached_here FOR VALUES IN (1, 2);
INSERT INTO parts.attached (a, c) VALUES (1, 10);
INSERT INTO shapes.attached_here (a, c) VALUES (2, 20);

--- keys, indexes, foreign keys from and to partitioned tables
CREATE TABLE parts.keyed (id int, at date, other int, CONSTRAINT keyed_key PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts.keyed_2024 PARTITION OF parts.keyed FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE parts.keyed_2025 PARTITION OF parts.keyed FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE INDEX keyed_other ON parts.keyed (other);
CREATE INDEX keyed_2024_only ON parts.keyed_2024 (other DESC);
CREATE INDEX keyed_unattached ON ONLY parts.keyed (other, id);
CREATE TABLE parts.refers (id int, at date, CONSTRAINT refers_to_keyed FOREIGN KEY (id, at) REFERENCES parts.keyed) PARTITION BY LIST (id);
CREATE TABLE parts.refers_1 PARTITION OF parts.refers FOR VALUES IN (1);
INSERT INTO parts.keyed VALUES (1, '2024-05-05', 7), (1, '2025-05-05', 8);
INSERT INTO parts.refers VALUES (1, '2024-05-05');

--- partitions to detach, to drop and to bound otherwise
CREATE TABLE parts.shrinking (a int) PARTITION BY LIST (a);
CREATE TABLE parts.shrinking_1 PARTITION OF parts.shrinking FOR VALUES IN (1);
CREATE TABLE parts.shrinking_2 PARTITION OF parts.shrinking FOR VALUES IN (2);
CREATE TABLE parts.shrinking_3 PARTITION OF parts.shrinking FOR VALUES IN (3);
INSERT INTO parts.shrinking VALUES (1), (2);

--- a partition that lies elsewhere, and a root whose new ones would
CREATE TABLE parts.placed (a int) PARTITION BY LIST (a) TABLESPACE kinds_fast;
CREATE TABLE parts.placed_1 PARTITION OF parts.placed FOR VALUES IN (1);
CREATE TABLE parts.placed_2 PARTITION OF parts.placed FOR VALUES IN (2) TABLESPACE "kinds space";

--- no partition at all
CREATE TABLE parts.childless (a int, b int) PARTITION BY HASH (a, b);

--- identity in partitions {since=17}
CREATE TABLE parts.identity (id int GENERATED ALWAYS AS IDENTITY, a int) PARTITION BY LIST (a);
CREATE TABLE parts.identity_1 PARTITION OF parts.identity FOR VALUES IN (1);
INSERT INTO parts.identity (a) VALUES (1), (1);

--- a generated column that a partition computes in its own way
CREATE TABLE parts.computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY LIST (a);
CREATE TABLE parts.computed_1 PARTITION OF parts.computed FOR VALUES IN (1);
INSERT INTO parts.computed VALUES (1);
