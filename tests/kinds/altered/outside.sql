-- Foreign data, publications, subscriptions.

--- an option of a wrapper => FOREIGN DATA WRAPPER kinds_wrapper_to_change
ALTER FOREIGN DATA WRAPPER kinds_wrapper_to_change OPTIONS (SET a '2');

--- a wrapper is gone => FOREIGN DATA WRAPPER kinds_wrapper_to_drop
DROP FOREIGN DATA WRAPPER kinds_wrapper_to_drop;

--- a wrapper checks nothing => FOREIGN DATA WRAPPER kinds_checked
ALTER FOREIGN DATA WRAPPER kinds_checked NO VALIDATOR;

--- an option of a server => SERVER kinds_server_to_change
ALTER SERVER kinds_server_to_change OPTIONS (SET a '2');

--- a version of a server => SERVER kinds_server
ALTER SERVER kinds_server VERSION '1.1';

--- a server is gone => SERVER kinds_server_to_drop
DROP SERVER kinds_server_to_drop;

--- an option of a user mapping => USER MAPPING kinds_alice SERVER kinds_mappings
ALTER USER MAPPING FOR kinds_alice SERVER kinds_mappings OPTIONS (SET user 'another');

--- a user mapping is gone => USER MAPPING kinds_bob SERVER kinds_mappings
DROP USER MAPPING FOR kinds_bob SERVER kinds_mappings;

--- a grant on a wrapper => ACL FOREIGN DATA WRAPPER kinds_wrapper
REVOKE USAGE ON FOREIGN DATA WRAPPER kinds_wrapper FROM kinds_readers;

--- the right to pass a grant on a server on => ACL FOREIGN SERVER kinds_server
REVOKE GRANT OPTION FOR USAGE ON FOREIGN SERVER kinds_server FROM kinds_bob;

--- a comment on a server => COMMENT SERVER kinds_server
COMMENT ON SERVER kinds_server IS 'somewhere';

--- an option of a foreign table => FOREIGN TABLE outside.option_changes
ALTER FOREIGN TABLE outside.option_changes OPTIONS (SET name 'two');

--- a foreign table is gone => FOREIGN TABLE outside.far_to_drop
DROP FOREIGN TABLE outside.far_to_drop;

--- a check of a foreign table => FOREIGN TABLE outside.far
ALTER FOREIGN TABLE outside.far DROP CONSTRAINT far_check;

--- a foreign partition is detached => outside.far_partition
ALTER TABLE outside.parted DETACH PARTITION outside.far_partition;

--- a row beside a foreign partition => table outside.near_partition
DELETE FROM outside.near_partition;

--- a publication loses a table => kinds_loses_table published_too
ALTER PUBLICATION kinds_loses_table DROP TABLE outside.published_too;

--- a publication publishes other rows => kinds_loses_rows published
ALTER PUBLICATION kinds_loses_rows SET TABLE outside.published WHERE (id > 6);

--- a publication publishes other columns => kinds_tables published
ALTER PUBLICATION kinds_tables SET TABLE outside.published (id, w) WHERE (id > 5 AND id < 100), outside.published_too, ONLY shapes.parent;

--- a publication loses a schema => kinds_loses_schema twin_b
ALTER PUBLICATION kinds_loses_schema DROP TABLES IN SCHEMA twin_b;

--- a publication publishes other events => PUBLICATION kinds_changes_events
ALTER PUBLICATION kinds_changes_events SET (publish = 'insert');

--- a publication of the root => PUBLICATION kinds_schemas
ALTER PUBLICATION kinds_schemas SET (publish_via_partition_root = false);

--- a publication is gone => PUBLICATION kinds_publication_to_drop
DROP PUBLICATION kinds_publication_to_drop;

--- a publication has another owner => PUBLICATION kinds_nothing
ALTER PUBLICATION kinds_nothing OWNER TO kinds_bob;

--- a comment on a publication => COMMENT PUBLICATION kinds_tables
COMMENT ON PUBLICATION kinds_tables IS NULL;

--- a publication of generated columns => PUBLICATION kinds_generated {since=18}
ALTER PUBLICATION kinds_generated SET (publish_generated_columns = none);

--- a subscription to something else => SUBSCRIPTION kinds_subscription_to_change
ALTER SUBSCRIPTION kinds_subscription_to_change SET PUBLICATION two WITH (refresh = false);

--- a subscription from elsewhere => SUBSCRIPTION kinds_connection_to_change
ALTER SUBSCRIPTION kinds_connection_to_change CONNECTION 'host=elsewhere.invalid';

--- an option of a subscription => SUBSCRIPTION kinds_subscription
ALTER SUBSCRIPTION kinds_subscription SET (binary = false);

--- a subscription is gone => SUBSCRIPTION kinds_subscription_to_drop
DROP SUBSCRIPTION kinds_subscription_to_drop;

--- a comment on a subscription => COMMENT SUBSCRIPTION kinds_subscription
COMMENT ON SUBSCRIPTION kinds_subscription IS NULL;

--- an origin of a subscription => SUBSCRIPTION kinds_subscription_origin {since=16}
ALTER SUBSCRIPTION kinds_subscription_origin SET (origin = any);
