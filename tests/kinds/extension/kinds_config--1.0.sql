-- Rows that the user adds to a configuration table are the database's own, and dumped.
CREATE TABLE @extschema@.kinds_setting (name text PRIMARY KEY, value text);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.kinds_setting', '');

-- Of this one only some rows are: those below 1000 come with the extension.
CREATE TABLE @extschema@.kinds_partly (id int PRIMARY KEY, value text);
INSERT INTO @extschema@.kinds_partly VALUES (1, 'shipped'), (2, 'shipped');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.kinds_partly', 'WHERE id > 1000');

-- Of this one none are.
CREATE TABLE @extschema@.kinds_cache (id int);

CREATE SEQUENCE @extschema@.kinds_numbers;
SELECT pg_catalog.pg_extension_config_dump('@extschema@.kinds_numbers', '');

CREATE DOMAIN @extschema@.kinds_word AS text CHECK (VALUE <> '');
