-- Roles: they belong to the server, and are compared with the inventory.

--- an attribute of a role => kinds_attribute
ALTER ROLE kinds_attribute NOCREATEDB CREATEROLE;

--- an end of a password => kinds_until
ALTER ROLE kinds_until VALID UNTIL 'infinity';

--- a limit of a role's connections => kinds_limit
ALTER ROLE kinds_limit CONNECTION LIMIT 8;

--- a role that may pass by policies no more => kinds_bypass
ALTER ROLE kinds_bypass NOBYPASSRLS;

--- a setting of a role => kinds_setting
ALTER ROLE kinds_setting SET work_mem = '8MB';

--- a membership => kinds_member
REVOKE kinds_readers FROM kinds_member;

--- the right to pass a membership on => kinds_admin
REVOKE ADMIN OPTION FOR kinds_readers FROM kinds_admin;

--- a membership in a role of the server's own => kinds_monitor
REVOKE pg_monitor FROM kinds_monitor;

--- a comment on a role => kinds_comment
COMMENT ON ROLE kinds_comment IS NULL;

--- a right to set a parameter => kinds_parameter
REVOKE SET ON PARAMETER log_min_messages FROM kinds_parameter;
