-- Views, materialized views and rules.

--- views on views; with options; with columns renamed; recursive
CREATE SCHEMA looks;
CREATE TABLE looks.base (id int PRIMARY KEY, v text, secret boolean DEFAULT false);
INSERT INTO looks.base VALUES (1, 'a', false), (2, 'b', true);
CREATE VIEW looks.first AS SELECT id, v AS "the value", secret FROM looks.base WHERE v IN ('a', 'b', 'c');
CREATE VIEW looks.second (x, y) AS SELECT id + 1, upper("the value") FROM looks.first WHERE NOT secret;
CREATE VIEW looks.third AS SELECT s.*, f.secret FROM looks.second s LEFT JOIN looks.first f ON f.id = s.x;
CREATE VIEW looks.barrier WITH (security_barrier) AS SELECT * FROM looks.base WHERE NOT secret;
CREATE VIEW looks.invoker WITH (security_invoker = true) AS SELECT * FROM looks.base;
CREATE VIEW looks.checked AS SELECT id, v FROM looks.base WHERE id < 100 WITH CASCADED CHECK OPTION;
CREATE VIEW looks.checked_here AS SELECT id, v FROM looks.base WHERE id < 100 WITH LOCAL CHECK OPTION;
CREATE RECURSIVE VIEW looks.numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 10;
CREATE VIEW looks.with_default AS SELECT id, v FROM looks.base;
ALTER VIEW looks.with_default ALTER COLUMN v SET DEFAULT 'by the view';
CREATE VIEW looks.no_columns AS SELECT;
COMMENT ON VIEW looks.first IS 'the first';
COMMENT ON COLUMN looks.first."the value" IS 'renamed';

--- a view whose columns hang on a primary key, so that it comes after the key
CREATE VIEW looks.by_key AS SELECT id, v, count(*) FROM looks.base GROUP BY id;
CREATE VIEW looks.on_by_key AS SELECT * FROM looks.by_key;

--- a view and a function that need each other
CREATE VIEW looks.circle AS SELECT 1 AS a, 'x'::text AS b;
CREATE FUNCTION looks.of_circle() RETURNS SETOF looks.circle LANGUAGE sql AS $$ SELECT 1, 'y'::text $$;
CREATE OR REPLACE VIEW looks.circle AS SELECT a, b FROM looks.of_circle();

--- windows, laterals, grouping sets, sampling, row types, system columns, names that clash
CREATE VIEW looks.syntax AS
    WITH w AS MATERIALIZED (SELECT b, b.id, row_number() OVER (PARTITION BY v ORDER BY id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS r FROM looks.base b)
    SELECT (w.b).v, w.id, sum(w.r) FILTER (WHERE w.r > 0) AS s, GROUPING(w.id) AS g, array_agg(DISTINCT l.x ORDER BY l.x DESC) AS xs
    FROM w, LATERAL (SELECT w.r * 2 AS x, w.b::text COLLATE "C" AS t) l (x, t)
    GROUP BY GROUPING SETS ((w.b, w.id), ()) HAVING count(*) > 0 ORDER BY 2 NULLS FIRST FETCH FIRST 5 ROWS WITH TIES;
CREATE VIEW looks.sampled AS SELECT tableoid::regclass AS t, ctid FROM looks.base TABLESAMPLE bernoulli (50) REPEATABLE (7);
CREATE VIEW looks.literals AS SELECT interval '1 mon' AS a, timestamptz '2024-01-01 00:00+00' AS b, E'a\nb\\' AS c, '\xff'::bytea AS d, -1.50 AS e, 'NaN'::float8 AS f, '1'::money AS g;

--- materialized views: filled, not filled, on each other, indexed, clustered, with parameters
CREATE MATERIALIZED VIEW looks.filled WITH (fillfactor = 80) AS SELECT id, v FROM looks.first f (id, v);
CREATE UNIQUE INDEX filled_id ON looks.filled (id);
ALTER MATERIALIZED VIEW looks.filled CLUSTER ON filled_id;
CREATE MATERIALIZED VIEW looks.not_filled AS SELECT id FROM looks.base WITH NO DATA;
CREATE INDEX not_filled_id ON looks.not_filled (id);
CREATE MATERIALIZED VIEW looks.on_filled AS SELECT count(*) AS n FROM looks.filled;
CREATE VIEW looks.on_materialized AS SELECT * FROM looks.on_filled;
CREATE MATERIALIZED VIEW looks.to_empty AS SELECT id FROM looks.base;
CREATE MATERIALIZED VIEW looks.to_drop AS SELECT 1 AS a;
CREATE MATERIALIZED VIEW looks.to_change AS SELECT id FROM looks.base;
COMMENT ON MATERIALIZED VIEW looks.filled IS 'once';

--- rules: instead, also, of nothing, conditional, several statements, on a view, disabled
CREATE TABLE looks.ruled (a int, b text);
CREATE RULE also AS ON INSERT TO looks.ruled DO ALSO INSERT INTO looks.base VALUES (NEW.a, NEW.b) ON CONFLICT (id) DO NOTHING;
CREATE RULE nothing AS ON DELETE TO looks.ruled WHERE OLD.a < 0 DO INSTEAD NOTHING;
CREATE RULE several AS ON UPDATE TO looks.ruled WHERE NEW.a <> OLD.a DO INSTEAD (UPDATE looks.base SET v = NEW.b WHERE id = OLD.a; DELETE FROM looks.base WHERE v = 'it''s');
CREATE TABLE looks.notifies (a int);
CREATE RULE notify AS ON INSERT TO looks.notifies DO ALSO (NOTIFY "a channel", 'it''s'; SELECT 1);
CREATE RULE through AS ON INSERT TO looks.second DO INSTEAD INSERT INTO looks.base VALUES (NEW.x, NEW.y) RETURNING id + 1, v;
CREATE RULE off AS ON INSERT TO looks.ruled DO ALSO SELECT 1;
ALTER TABLE looks.ruled DISABLE RULE off;
CREATE RULE always AS ON UPDATE TO looks.ruled DO ALSO SELECT 2;
ALTER TABLE looks.ruled ENABLE ALWAYS RULE always;
CREATE RULE to_disable AS ON DELETE TO looks.ruled DO ALSO SELECT 3;
CREATE RULE to_change AS ON DELETE TO looks.ruled DO ALSO SELECT 4;
CREATE RULE to_drop AS ON DELETE TO looks.ruled DO ALSO SELECT 5;
COMMENT ON RULE also ON looks.ruled IS 'both';

--- views to alter
CREATE VIEW looks.definition_changes AS SELECT id FROM looks.base WHERE id > 1;
CREATE VIEW looks.barrier_goes WITH (security_barrier) AS SELECT id FROM looks.base;
CREATE VIEW looks.invoker_goes WITH (security_invoker) AS SELECT id FROM looks.base;
CREATE VIEW looks.check_goes AS SELECT id FROM looks.base WHERE id < 100 WITH CHECK OPTION;
CREATE VIEW looks.owner_changes AS SELECT 1 AS a;
CREATE VIEW looks.goes AS SELECT 1 AS a;
CREATE VIEW looks.column_renamed AS SELECT 1 AS a;
CREATE VIEW looks.default_changes AS SELECT id, v FROM looks.base;
ALTER VIEW looks.default_changes ALTER COLUMN v SET DEFAULT 'by the view';

--- a function that merges, with a parsed body, and a view of a query in JSON
CREATE FUNCTION looks.merges(a int) RETURNS void LANGUAGE sql BEGIN ATOMIC
    MERGE INTO looks.base t USING (SELECT a AS id) s ON t.id = s.id WHEN MATCHED AND t.secret THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id); END;

--- queries in JSON's own words {since=17}
CREATE VIEW looks.json_table AS SELECT t.* FROM JSON_TABLE(jsonb '[{"a": 1}]', '$[*]' COLUMNS (n FOR ORDINALITY, a int PATH '$.a' DEFAULT 7 ON EMPTY, NESTED PATH '$.b[*]' COLUMNS (b text PATH '$'))) t;
CREATE VIEW looks.json_words AS SELECT JSON_OBJECT('a': id ABSENT ON NULL) AS o, JSON_ARRAYAGG(v ORDER BY id) AS a, JSON_VALUE('{"x": 1}', '$.x' RETURNING int ERROR ON ERROR) AS v FROM looks.base GROUP BY id;
