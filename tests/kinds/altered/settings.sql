-- The database itself. It is named {database} here.

--- a setting of the database => DATABASE PROPERTIES {database}
ALTER DATABASE {database} SET work_mem TO '4MB';

--- a setting of the database is gone => DATABASE PROPERTIES {database}
ALTER DATABASE {database} RESET "TimeZone";

--- a setting of a role in the database => DATABASE PROPERTIES {database}
ALTER ROLE kinds_alice IN DATABASE {database} SET work_mem TO '8MB';

--- a setting of everybody in the database is gone => DATABASE PROPERTIES {database}
ALTER ROLE ALL IN DATABASE {database} RESET log_duration;

--- a grant on the database => ACL DATABASE {database}
REVOKE CREATE ON DATABASE {database} FROM kinds_readers;

--- a comment on the database => COMMENT DATABASE {database}
COMMENT ON DATABASE {database} IS 'small';

--- a limit of connections => DATABASE PROPERTIES {database}
ALTER DATABASE {database} CONNECTION LIMIT 51;

--- an owner of the database => DATABASE {database}
ALTER DATABASE {database} OWNER TO kinds_bob;
