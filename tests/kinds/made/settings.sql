-- Settings of the database and of roles in it, its grants and comment. They change how
-- every later session prints values, and must not change a digest.

--- how values are printed and read
DO $$ DECLARE setting text; BEGIN
    FOREACH setting IN ARRAY ARRAY[
        $q$ "DateStyle" TO 'SQL, DMY' $q$, $q$ "IntervalStyle" TO 'sql_standard' $q$, $q$ "TimeZone" TO 'Asia/Kathmandu' $q$,
        $q$ extra_float_digits TO '-3' $q$, $q$ bytea_output TO 'escape' $q$, $q$ xmlbinary TO 'hex' $q$, $q$ xmloption TO 'document' $q$,
        $q$ search_path TO "$user", traps, 'it''s' $q$, $q$ work_mem TO '5MB' $q$, $q$ "kinds.own" TO 'a, "b"' $q$, $q$ quote_all_identifiers TO on $q$,
        $q$ row_security TO off $q$, $q$ default_text_search_config TO 'pg_catalog.german' $q$, $q$ check_function_bodies TO off $q$]
    LOOP EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting); END LOOP;
END $$;

--- of roles in this database
DO $$ BEGIN
    EXECUTE format('ALTER ROLE kinds_alice IN DATABASE %I SET work_mem TO %L', current_database(), '6MB');
    EXECUTE format('ALTER ROLE kinds_bob IN DATABASE %I SET search_path TO guard, public', current_database());
    EXECUTE format('ALTER ROLE ALL IN DATABASE %I SET log_duration TO on', current_database());
END $$;

--- grants, comment and limits of the database itself
DO $$ BEGIN
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO kinds_readers', current_database());
    EXECUTE format('COMMENT ON DATABASE %I IS %L', current_database(), 'of every kind; it''s large');
    EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 50', current_database());
    EXECUTE format('ALTER DATABASE %I OWNER TO kinds_alice', current_database());
END $$;
