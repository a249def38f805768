-- Owners, grants, default privileges, policies.

--- owners: a schema, and one object of each kind in it
CREATE SCHEMA guard AUTHORIZATION kinds_alice;
CREATE TABLE guard.owned (a serial PRIMARY KEY, b text, c text, d text);
INSERT INTO guard.owned (b) VALUES ('x');
ALTER TABLE guard.owned OWNER TO kinds_bob;
CREATE VIEW guard.owned_view AS SELECT * FROM guard.owned;
ALTER VIEW guard.owned_view OWNER TO kinds_alice;
CREATE MATERIALIZED VIEW guard.owned_materialized AS SELECT 1 AS a;
ALTER MATERIALIZED VIEW guard.owned_materialized OWNER TO kinds_alice;
CREATE SEQUENCE guard.owned_sequence;
ALTER SEQUENCE guard.owned_sequence OWNER TO kinds_alice;
CREATE FUNCTION guard.owned_function(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
ALTER FUNCTION guard.owned_function(int) OWNER TO kinds_bob;
CREATE PROCEDURE guard.owned_procedure() LANGUAGE sql AS 'SELECT 1';
ALTER PROCEDURE guard.owned_procedure() OWNER TO kinds_bob;
CREATE AGGREGATE guard.owned_aggregate(int) (sfunc = int4pl, stype = int);
ALTER AGGREGATE guard.owned_aggregate(int) OWNER TO kinds_bob;
CREATE TYPE guard.owned_type AS ENUM ('a');
ALTER TYPE guard.owned_type OWNER TO kinds_bob;
CREATE DOMAIN guard.owned_domain AS int;
ALTER DOMAIN guard.owned_domain OWNER TO kinds_alice;
ALTER OPERATOR ops.@@+ (int, int) OWNER TO kinds_alice;
ALTER OPERATOR FAMILY ops.empty USING hash OWNER TO kinds_alice;
ALTER COLLATION ops.posix OWNER TO kinds_alice;
ALTER CONVERSION ops.plain_conversion OWNER TO kinds_alice;
ALTER TEXT SEARCH DICTIONARY search.stems OWNER TO kinds_alice;
ALTER TEXT SEARCH CONFIGURATION search.copied OWNER TO kinds_alice;
ALTER STATISTICS idx.some_kinds OWNER TO kinds_alice;

--- grants on every kind, with and without the right to pass them on
GRANT USAGE ON SCHEMA guard TO kinds_readers;
GRANT CREATE, USAGE ON SCHEMA guard TO kinds_bob WITH GRANT OPTION;
GRANT SELECT, INSERT ON guard.owned TO kinds_readers;
GRANT ALL ON guard.owned TO kinds_alice WITH GRANT OPTION;
GRANT SELECT (b), UPDATE (c) ON guard.owned TO kinds_restricted;
GRANT SELECT ON guard.owned_view TO PUBLIC;
GRANT SELECT ON guard.owned_materialized TO kinds_readers;
GRANT USAGE, SELECT ON SEQUENCE guard.owned_sequence TO kinds_readers;
REVOKE EXECUTE ON FUNCTION guard.owned_function(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guard.owned_function(int) TO kinds_readers;
REVOKE ALL ON PROCEDURE guard.owned_procedure() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION guard.owned_aggregate(int) TO kinds_readers;
REVOKE USAGE ON TYPE guard.owned_type FROM PUBLIC;
GRANT USAGE ON TYPE guard.owned_type TO kinds_readers;
GRANT USAGE ON DOMAIN guard.owned_domain TO kinds_readers WITH GRANT OPTION;
GRANT USAGE ON LANGUAGE kinds_language TO kinds_readers;
REVOKE USAGE ON LANGUAGE kinds_language FROM PUBLIC;

--- granted by another than the owner
SET SESSION AUTHORIZATION kinds_alice;
GRANT SELECT (d), REFERENCES ON guard.owned TO kinds_restricted;
RESET SESSION AUTHORIZATION;

--- the owner's own rights taken away
CREATE TABLE guard.read_only (a int);
ALTER TABLE guard.read_only OWNER TO kinds_alice;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON guard.read_only FROM kinds_alice;

--- maintenance as a privilege {since=17}
CREATE TABLE guard.maintained (a int);
GRANT MAINTAIN ON guard.maintained TO kinds_readers;

--- the system's own objects and the schema public
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO kinds_readers;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_stat_get_activity(int) FROM PUBLIC;
GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO kinds_alice;
GRANT CREATE ON SCHEMA public TO kinds_readers;
COMMENT ON SCHEMA public IS 'not the standard words';

--- default privileges: of a role, in a schema, for every kind
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice GRANT SELECT ON TABLES TO kinds_readers;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice IN SCHEMA guard GRANT INSERT ON TABLES TO kinds_bob WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob GRANT USAGE ON SEQUENCES TO kinds_readers;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob REVOKE USAGE ON TYPES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob GRANT CREATE ON SCHEMAS TO kinds_readers;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob IN SCHEMA guard GRANT EXECUTE ON FUNCTIONS TO kinds_restricted;
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_restricted IN SCHEMA guard GRANT SELECT ON TABLES TO kinds_readers;

--- default privileges of large objects {since=18}
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice GRANT SELECT ON LARGE OBJECTS TO kinds_readers;

--- row security: on, forced, without a policy; policies of every command and kind
CREATE TABLE guard.rows (id int, who name, secret boolean);
INSERT INTO guard.rows VALUES (1, 'kinds_alice', true), (2, 'kinds_bob', false);
ALTER TABLE guard.rows OWNER TO kinds_alice;
ALTER TABLE guard.rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE guard.rows FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON guard.rows USING (who = CURRENT_USER) WITH CHECK (who = CURRENT_USER AND NOT secret);
CREATE POLICY read ON guard.rows FOR SELECT TO kinds_readers, kinds_bob USING (EXISTS (SELECT FROM guard.owned o WHERE o.a = rows.id));
CREATE POLICY never ON guard.rows AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (NOT secret) WITH CHECK (true);
CREATE POLICY add ON guard.rows FOR INSERT WITH CHECK (id > 0);
CREATE POLICY remove ON guard.rows FOR DELETE TO kinds_alice USING (id < 0);
CREATE TABLE guard.closed (a int);
INSERT INTO guard.closed VALUES (1);
ALTER TABLE guard.closed ENABLE ROW LEVEL SECURITY;
CREATE TABLE guard.off (a int);
CREATE POLICY waiting ON guard.off USING (a > 0);
COMMENT ON POLICY own ON guard.rows IS 'who am I';

--- policies and row security to alter
CREATE TABLE guard.policies (a int, b name);
ALTER TABLE guard.policies ENABLE ROW LEVEL SECURITY;
CREATE POLICY expression_changes ON guard.policies USING (a > 1);
CREATE POLICY check_changes ON guard.policies USING (a > 1) WITH CHECK (a > 2);
CREATE POLICY roles_change ON guard.policies TO kinds_readers USING (a > 1);
CREATE POLICY command_changes ON guard.policies FOR SELECT USING (a > 1);
CREATE POLICY kind_changes ON guard.policies AS RESTRICTIVE USING (a > 1);
CREATE POLICY goes ON guard.policies USING (a > 1);
CREATE TABLE guard.force_goes (a int);
ALTER TABLE guard.force_goes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE guard.security_goes (a int);
ALTER TABLE guard.security_goes ENABLE ROW LEVEL SECURITY;

--- grants and owners to alter
CREATE TABLE guard.grants (a int, b int);
GRANT SELECT ON guard.grants TO kinds_readers;
CREATE TABLE guard.column_grants (a int, b int);
GRANT SELECT (a), INSERT (b) ON guard.column_grants TO kinds_readers;
CREATE TABLE guard.grant_options (a int);
GRANT SELECT ON guard.grant_options TO kinds_readers WITH GRANT OPTION;
CREATE TABLE guard.new_owner (a int);
CREATE SCHEMA guard_too;
GRANT USAGE ON SCHEMA guard_too TO kinds_readers;
CREATE SCHEMA guard_owner AUTHORIZATION kinds_bob;
CREATE FUNCTION guard.granted_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON FUNCTION guard.granted_function() TO kinds_readers;
CREATE TYPE guard.granted_type AS (a int);
GRANT USAGE ON TYPE guard.granted_type TO kinds_readers;
CREATE SEQUENCE guard.granted_sequence;
GRANT UPDATE ON SEQUENCE guard.granted_sequence TO kinds_readers;
