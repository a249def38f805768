DO $$
BEGIN
    IF current_database() IS DISTINCT FROM current_setting('kinds.database_name', true) THEN
        RAISE EXCEPTION 'can only create extension in database %',
            current_setting('kinds.database_name', true);
    END IF;
END
$$;
CREATE TABLE @extschema@.bound_job (id serial PRIMARY KEY, command text);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bound_job', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bound_job_id_seq', '');
