-- Views, materialized views, rules.

--- a definition => VIEW looks.definition_changes
CREATE OR REPLACE VIEW looks.definition_changes AS SELECT id FROM looks.base WHERE id > 2;

--- a barrier is gone => VIEW looks.barrier_goes
ALTER VIEW looks.barrier_goes RESET (security_barrier);

--- a view has its owner's rights again => VIEW looks.invoker_goes
ALTER VIEW looks.invoker_goes SET (security_invoker = false);

--- a check option is gone => VIEW looks.check_goes
ALTER VIEW looks.check_goes RESET (check_option);

--- a check option looks at this view only => VIEW looks.checked
ALTER VIEW looks.checked SET (check_option = local);

--- an owner => VIEW looks.owner_changes
ALTER VIEW looks.owner_changes OWNER TO kinds_bob;

--- a view is gone => VIEW looks.goes
DROP VIEW looks.goes;

--- a view on a view on a view is gone => VIEW looks.third
DROP VIEW looks.third;

--- a column is renamed => VIEW looks.column_renamed
ALTER VIEW looks.column_renamed RENAME COLUMN a TO b;

--- a default of a view's column => DEFAULT looks.default_changes v
ALTER VIEW looks.default_changes ALTER COLUMN v SET DEFAULT 'by another';

--- a view that needs a key => looks.by_key
CREATE OR REPLACE VIEW looks.by_key AS SELECT id, v, count(*) + 1 AS count FROM looks.base GROUP BY id;

--- a view in a circle with a function => looks.circle
CREATE OR REPLACE VIEW looks.circle AS SELECT a, b FROM looks.of_circle() WHERE a > 0;

--- a recursive view => VIEW looks.numbers
CREATE OR REPLACE RECURSIVE VIEW looks.numbers (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 11;

--- a literal in a view => VIEW looks.literals
CREATE OR REPLACE VIEW looks.literals AS SELECT interval '30 days' AS a, timestamptz '2024-01-01 00:00+00' AS b, E'a\nb\\' AS c, '\xff'::bytea AS d, -1.50 AS e, 'NaN'::float8 AS f, '1'::money AS g;

--- a comment on a view => COMMENT looks.VIEW first
COMMENT ON VIEW looks.first IS 'the second';

--- a comment on a view's column => COMMENT looks.COLUMN first.
COMMENT ON COLUMN looks.first."the value" IS NULL;

--- a materialized view is empty => looks.to_empty
REFRESH MATERIALIZED VIEW looks.to_empty WITH NO DATA;

--- a materialized view is filled that was not => looks.not_filled
REFRESH MATERIALIZED VIEW looks.not_filled;

--- a materialized view is gone => MATERIALIZED VIEW looks.to_drop
DROP MATERIALIZED VIEW looks.to_drop;

--- a materialized view is another => MATERIALIZED VIEW looks.to_change
DROP MATERIALIZED VIEW looks.to_change;
CREATE MATERIALIZED VIEW looks.to_change AS SELECT id FROM looks.base WHERE id > 0;

--- a materialized view's parameter => MATERIALIZED VIEW looks.filled
ALTER MATERIALIZED VIEW looks.filled SET (fillfactor = 81);

--- an index of a materialized view is gone => INDEX looks.not_filled_id
DROP INDEX looks.not_filled_id;

--- a rule is disabled => RULE looks.ruled to_disable
ALTER TABLE looks.ruled DISABLE RULE to_disable;

--- a rule is always on no more => RULE looks.ruled always
ALTER TABLE looks.ruled ENABLE RULE always;

--- a rule does something else => RULE looks.ruled to_change
CREATE OR REPLACE RULE to_change AS ON DELETE TO looks.ruled DO ALSO SELECT 5;

--- a rule has another condition => RULE looks.ruled nothing
CREATE OR REPLACE RULE nothing AS ON DELETE TO looks.ruled WHERE OLD.a < 1 DO INSTEAD NOTHING;

--- a rule is gone => RULE looks.ruled to_drop
DROP RULE to_drop ON looks.ruled;

--- a comment on a rule => COMMENT looks.RULE also ON ruled
COMMENT ON RULE also ON looks.ruled IS NULL;

--- a merge in a function => FUNCTION looks.merges(integer)
CREATE OR REPLACE FUNCTION looks.merges(a int) RETURNS void LANGUAGE sql BEGIN ATOMIC
    MERGE INTO looks.base t USING (SELECT a AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id); END;

--- a default inside of a query of JSON => VIEW looks.json_table {since=17}
CREATE OR REPLACE VIEW looks.json_table AS SELECT t.* FROM JSON_TABLE(jsonb '[{"a": 1}]', '$[*]' COLUMNS (n FOR ORDINALITY, a int PATH '$.a' DEFAULT 8 ON EMPTY, NESTED PATH '$.b[*]' COLUMNS (b text PATH '$'))) t;
