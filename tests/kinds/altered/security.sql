-- Owners, grants, default privileges, policies.

--- an owner of a table => TABLE guard.new_owner
ALTER TABLE guard.new_owner OWNER TO kinds_bob;

--- an owner of a schema => SCHEMA guard_owner
ALTER SCHEMA guard_owner OWNER TO kinds_alice;

--- an owner of a type => TYPE guard.owned_type
ALTER TYPE guard.owned_type OWNER TO kinds_alice;

--- an owner of a materialized view => MATERIALIZED VIEW guard.owned_materialized
ALTER MATERIALIZED VIEW guard.owned_materialized OWNER TO kinds_bob;

--- a grant on a table => ACL guard.TABLE grants
REVOKE SELECT ON guard.grants FROM kinds_readers;

--- a grant on a column => ACL guard.COLUMN column_grants
REVOKE SELECT (a) ON guard.column_grants FROM kinds_readers;

--- the right to pass a grant on => ACL guard.TABLE grant_options
REVOKE GRANT OPTION FOR SELECT ON guard.grant_options FROM kinds_readers;

--- a grant on a schema => ACL SCHEMA guard_too
REVOKE USAGE ON SCHEMA guard_too FROM kinds_readers;

--- a grant on the schema public => ACL SCHEMA public
GRANT CREATE ON SCHEMA public TO PUBLIC;

--- a comment on the schema public => COMMENT SCHEMA public
COMMENT ON SCHEMA public IS 'standard public schema';

--- a function that everybody may call again => ACL guard.FUNCTION owned_function(integer)
GRANT EXECUTE ON FUNCTION guard.owned_function(int) TO PUBLIC;

--- a grant on a function => ACL guard.FUNCTION granted_function()
REVOKE EXECUTE ON FUNCTION guard.granted_function() FROM kinds_readers;

--- a grant on a procedure => ACL guard.PROCEDURE owned_procedure()
GRANT EXECUTE ON PROCEDURE guard.owned_procedure() TO PUBLIC;

--- a grant on a type => ACL guard.TYPE granted_type
REVOKE USAGE ON TYPE guard.granted_type FROM kinds_readers;

--- a grant on a domain => ACL guard.TYPE owned_domain
REVOKE USAGE ON DOMAIN guard.owned_domain FROM kinds_readers;

--- a grant on a sequence => ACL guard.SEQUENCE granted_sequence
REVOKE UPDATE ON SEQUENCE guard.granted_sequence FROM kinds_readers;

--- a grant on a language => ACL LANGUAGE kinds_language
GRANT USAGE ON LANGUAGE kinds_language TO PUBLIC;

--- a grant on a view => ACL guard.TABLE owned_view
REVOKE SELECT ON guard.owned_view FROM PUBLIC;

--- a grant that another than the owner gave => ACL guard.TABLE owned
SET SESSION AUTHORIZATION kinds_alice;
REVOKE REFERENCES ON guard.owned FROM kinds_restricted;
RESET SESSION AUTHORIZATION;

--- an owner has rights that were taken => ACL guard.TABLE read_only
GRANT INSERT ON guard.read_only TO kinds_alice;

--- a grant of maintenance => ACL guard.TABLE maintained {since=17}
REVOKE MAINTAIN ON guard.maintained FROM kinds_readers;

--- a grant on a function of the system => ACL pg_catalog.FUNCTION pg_reload_conf()
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() FROM kinds_readers;

--- a grant on a column of the system => ACL pg_catalog.COLUMN pg_authid.rolpassword
REVOKE SELECT (rolpassword) ON pg_catalog.pg_authid FROM kinds_alice;

--- a default privilege of a role => DEFAULT ACL DEFAULT PRIVILEGES FOR FUNCTIONS
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice GRANT EXECUTE ON FUNCTIONS TO PUBLIC;

--- a default privilege in a schema => DEFAULT ACL guard.DEFAULT PRIVILEGES FOR TABLES
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice IN SCHEMA guard REVOKE INSERT ON TABLES FROM kinds_bob;

--- a default privilege on schemas => DEFAULT ACL DEFAULT PRIVILEGES FOR SCHEMAS
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob REVOKE CREATE ON SCHEMAS FROM kinds_readers;

--- a default privilege on types => DEFAULT ACL DEFAULT PRIVILEGES FOR TYPES
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_bob GRANT USAGE ON TYPES TO PUBLIC;

--- a default privilege on large objects => DEFAULT ACL DEFAULT PRIVILEGES FOR LARGE OBJECTS {since=18}
ALTER DEFAULT PRIVILEGES FOR ROLE kinds_alice REVOKE SELECT ON LARGE OBJECTS FROM kinds_readers;

--- an expression of a policy => POLICY guard.policies expression_changes
ALTER POLICY expression_changes ON guard.policies USING (a > 0);

--- a check of a policy => POLICY guard.policies check_changes
ALTER POLICY check_changes ON guard.policies WITH CHECK (a > 1);

--- roles of a policy => POLICY guard.policies roles_change
ALTER POLICY roles_change ON guard.policies TO PUBLIC;

--- a command of a policy => POLICY guard.policies command_changes
DROP POLICY command_changes ON guard.policies;
CREATE POLICY command_changes ON guard.policies USING (a > 1);

--- a restrictive policy permits => POLICY guard.policies kind_changes
DROP POLICY kind_changes ON guard.policies;
CREATE POLICY kind_changes ON guard.policies USING (a > 1);

--- a policy is gone => POLICY guard.policies goes
DROP POLICY goes ON guard.policies;

--- a policy on a table without row security => POLICY guard.off waiting
DROP POLICY waiting ON guard.off;

--- row security is forced no more => TABLE guard.force_goes
ALTER TABLE guard.force_goes NO FORCE ROW LEVEL SECURITY;

--- row security is off => ROW SECURITY guard.security_goes
ALTER TABLE guard.security_goes DISABLE ROW LEVEL SECURITY;

--- a comment on a policy => COMMENT guard.POLICY own ON rows
COMMENT ON POLICY own ON guard.rows IS NULL;

--- a row behind a policy => table guard.rows
UPDATE guard.rows SET secret = false WHERE id = 1;

--- a row of a table that nobody may see => table guard.closed
DELETE FROM guard.closed;
