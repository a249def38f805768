-- What points outside of the database: foreign data, publications, subscriptions.

--- wrappers without programs, servers, user mappings, all with options and grants
CREATE SCHEMA outside;
CREATE FOREIGN DATA WRAPPER kinds_wrapper OPTIONS (debug 'true', "odd option" 'it''s');
CREATE FOREIGN DATA WRAPPER kinds_checked VALIDATOR postgresql_fdw_validator;
CREATE SERVER kinds_server TYPE 'a type' VERSION '1.0' FOREIGN DATA WRAPPER kinds_checked OPTIONS (host 'nowhere.invalid', dbname 'x');
CREATE SERVER kinds_bare FOREIGN DATA WRAPPER kinds_wrapper;
CREATE SERVER "kinds odd.server" FOREIGN DATA WRAPPER kinds_wrapper;
CREATE USER MAPPING FOR kinds_alice SERVER kinds_server OPTIONS (user 'far', password 'not a secret''');
CREATE USER MAPPING FOR PUBLIC SERVER kinds_server;
CREATE USER MAPPING FOR kinds_bob SERVER kinds_bare OPTIONS (a 'b');
ALTER SERVER kinds_server OWNER TO kinds_alice;
GRANT USAGE ON FOREIGN DATA WRAPPER kinds_wrapper TO kinds_readers;
GRANT USAGE ON FOREIGN SERVER kinds_server TO kinds_bob WITH GRANT OPTION;
COMMENT ON SERVER kinds_server IS 'nowhere';
COMMENT ON FOREIGN DATA WRAPPER kinds_wrapper IS 'dummy';

--- foreign tables: options, checks, as partition, as child; they hold no rows to dump
CREATE FOREIGN TABLE outside.far (a int OPTIONS (column_name 'A') NOT NULL, b text COLLATE "C" DEFAULT 'x', CONSTRAINT far_check CHECK (a > 0)) SERVER kinds_bare OPTIONS (schema_name 's', table_name 'it''s');
CREATE TABLE outside.near_parent (a int);
CREATE FOREIGN TABLE outside.far_child () INHERITS (outside.near_parent) SERVER kinds_bare;
CREATE TABLE outside.parted (a int) PARTITION BY LIST (a);
CREATE FOREIGN TABLE outside.far_partition PARTITION OF outside.parted FOR VALUES IN (1) SERVER kinds_bare;
CREATE TABLE outside.near_partition PARTITION OF outside.parted FOR VALUES IN (2);
INSERT INTO outside.near_partition VALUES (2);
GRANT SELECT ON outside.far TO kinds_readers;
COMMENT ON FOREIGN TABLE outside.far IS 'far away';

--- some to alter
CREATE FOREIGN DATA WRAPPER kinds_wrapper_to_change OPTIONS (a '1');
CREATE FOREIGN DATA WRAPPER kinds_wrapper_to_drop;
CREATE SERVER kinds_server_to_change FOREIGN DATA WRAPPER kinds_wrapper OPTIONS (a '1');
CREATE SERVER kinds_server_to_drop FOREIGN DATA WRAPPER kinds_wrapper;
CREATE SERVER kinds_mappings FOREIGN DATA WRAPPER kinds_wrapper;
CREATE USER MAPPING FOR kinds_alice SERVER kinds_mappings OPTIONS (user 'one');
CREATE USER MAPPING FOR kinds_bob SERVER kinds_mappings OPTIONS (user 'two');
CREATE FOREIGN TABLE outside.option_changes (a int OPTIONS (name 'one')) SERVER kinds_bare OPTIONS (name 'one');
CREATE FOREIGN TABLE outside.far_to_drop (a int) SERVER kinds_bare;

--- publications: tables, columns, rows, schemas, everything, nothing; what they publish
CREATE TABLE outside.published (id int PRIMARY KEY, v text, w text);
CREATE TABLE outside.published_too (id int PRIMARY KEY);
CREATE PUBLICATION kinds_tables FOR TABLE outside.published (id, v) WHERE (id > 5 AND id < 100), TABLE outside.published_too, ONLY shapes.parent WITH (publish = 'insert, delete');
CREATE PUBLICATION kinds_schemas FOR TABLES IN SCHEMA outside, twin_a, TABLE outside.published WITH (publish = 'insert', publish_via_partition_root);
CREATE PUBLICATION kinds_everything FOR ALL TABLES WITH (publish = 'truncate');
CREATE PUBLICATION kinds_nothing;
ALTER PUBLICATION kinds_nothing OWNER TO kinds_alice;
COMMENT ON PUBLICATION kinds_tables IS 'some';
CREATE PUBLICATION kinds_loses_table FOR TABLE outside.published, outside.published_too;
CREATE PUBLICATION kinds_loses_rows FOR TABLE outside.published WHERE (id > 5);
CREATE PUBLICATION kinds_loses_schema FOR TABLES IN SCHEMA twin_a, twin_b WITH (publish = 'insert');
CREATE PUBLICATION kinds_changes_events FOR TABLE outside.published;
CREATE PUBLICATION kinds_publication_to_drop;

--- publications of generated columns {since=18}
CREATE PUBLICATION kinds_generated FOR TABLE outside.published_too WITH (publish_generated_columns = stored);

--- subscriptions, never connected
CREATE SUBSCRIPTION kinds_subscription CONNECTION 'host=nowhere.invalid dbname=x application_name=''it\''s''' PUBLICATION one, "t.wo"
    WITH (connect = false, slot_name = 'kinds_slot', binary = true, streaming = true, synchronous_commit = 'off', two_phase = false, disable_on_error = true);
CREATE SUBSCRIPTION kinds_without_slot CONNECTION 'host=nowhere.invalid' PUBLICATION one WITH (connect = false, slot_name = NONE);
CREATE SUBSCRIPTION kinds_subscription_to_change CONNECTION 'host=nowhere.invalid' PUBLICATION one WITH (connect = false, slot_name = NONE);
CREATE SUBSCRIPTION kinds_connection_to_change CONNECTION 'host=nowhere.invalid' PUBLICATION one WITH (connect = false, slot_name = NONE);
CREATE SUBSCRIPTION kinds_subscription_to_drop CONNECTION 'host=nowhere.invalid' PUBLICATION one WITH (connect = false, slot_name = NONE);
COMMENT ON SUBSCRIPTION kinds_subscription IS 'from nowhere';

--- subscriptions with what came later {since=16}
CREATE SUBSCRIPTION kinds_subscription_origin CONNECTION 'host=nowhere.invalid' PUBLICATION one
    WITH (connect = false, slot_name = NONE, origin = none, password_required = false, run_as_owner = true, streaming = parallel);
