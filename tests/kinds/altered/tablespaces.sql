-- Where things lie; only where the copy was restored with its tablespaces.

--- a table lies elsewhere => TABLE shapes.elsewhere_too
ALTER TABLE shapes.elsewhere_too SET TABLESPACE pg_default;

--- an index lies elsewhere => INDEX shapes.elsewhere_b
ALTER INDEX shapes.elsewhere_b SET TABLESPACE pg_default;

--- the index of a key lies elsewhere => CONSTRAINT shapes.elsewhere elsewhere_key
ALTER INDEX shapes.elsewhere_key SET TABLESPACE pg_default;

--- a materialized view lies elsewhere => MATERIALIZED VIEW shapes.elsewhere_view
ALTER MATERIALIZED VIEW shapes.elsewhere_view SET TABLESPACE pg_default;

--- new partitions would lie elsewhere => TABLE parts.placed
ALTER TABLE parts.placed SET TABLESPACE "kinds space";

--- a partition lies elsewhere => TABLE parts.placed_2
ALTER TABLE parts.placed_2 SET TABLESPACE kinds_fast;
