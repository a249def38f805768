"""Roles and tablespaces, which belong to the server and to no dump of a database."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import LiteralString

import psycopg
from psycopg import conninfo

from opskit.errors import DatabaseError
from opskit.log import logger
from opskit.postgres import client
from opskit.postgres.connect import (
    Connection,
    connect,
    execute,
    milliseconds,
    query,
    query_column,
    query_value,
    quoted,
    server_major,
    statements,
    translated,
    unquoted,
)
from opskit.postgres.inventory import FIRST_WITH_MEMBERSHIP_OPTIONS, Role
from opskit.postgres.parameters import (
    client_connection,
    client_environment,
    database_name,
    parse,
    with_settings,
)
from opskit.postgres.servers.programs import Installation


def take(connection: Connection) -> tuple[Role, ...]:
    """Return the server's roles with their rights, settings and memberships."""
    digest, options = "NULL", "NULL, NULL"
    if readable := passwords_readable(connection):
        digest = "(SELECT md5(rolpassword) FROM pg_authid a WHERE a.oid = r.oid)"
    if server_major(connection) >= FIRST_WITH_MEMBERSHIP_OPTIONS:
        options = "m.inherit_option, m.set_option"
    rows = connection.execute(
        f"""
        SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb,
               r.rolcanlogin, r.rolreplication, r.rolbypassrls, r.rolconnlimit,
               extract(epoch FROM r.rolvaliduntil)::text,
               shobj_description(r.oid, 'pg_authid'),
               ARRAY(SELECT split_part(each, '=', 1) || ' ' || md5(each)
                     FROM pg_db_role_setting s, unnest(s.setconfig) each
                     WHERE s.setrole = r.oid AND s.setdatabase = 0 ORDER BY 1),
               ARRAY(SELECT concat_ws(' ', p.parname, g.privilege_type,
                              CASE WHEN g.is_grantable THEN 'grantable' END)
                     FROM pg_parameter_acl p, aclexplode(p.paracl) g
                     WHERE g.grantee = r.oid ORDER BY 1),
               ARRAY(SELECT DISTINCT jsonb_build_array(
                              b.rolname, m.admin_option, {options})
                     FROM pg_auth_members m JOIN pg_roles b ON b.oid = m.roleid
                     WHERE m.member = r.oid ORDER BY 1),
               {digest}
        FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1
        """  # noqa: S608  # put together from constants
    ).fetchall()
    unread = {} if readable else {"password_unread": True}
    return tuple(
        Role(**dict(zip(Role.model_fields, row, strict=False)), **unread)
        for row in rows
    )


def passwords_readable(connection: Connection) -> bool:
    """Return whether the connection's role may read the hashes of passwords."""
    return bool(
        query_value(connection, "SELECT has_table_privilege('pg_authid', 'SELECT')")
    )


def names(connection: Connection) -> set[str]:
    """Return the names of the server's roles."""
    return set(query_column(connection, "SELECT rolname FROM pg_roles"))


def superusers(connection: Connection) -> frozenset[str]:
    """Return the names of the server's superusers."""
    return frozenset(
        query_column(connection, "SELECT rolname FROM pg_roles WHERE rolsuper")
    )


@contextlib.contextmanager
def superusers_meanwhile(
    connection: Connection, names: Iterable[str]
) -> Iterator[None]:
    """Make roles superusers while the block lasts."""
    raised = sorted(set(names) - superusers(connection))

    def alter(attribute: LiteralString) -> None:
        for name in raised:
            execute(connection, "ALTER ROLE {} " + attribute, name)

    alter("SUPERUSER")
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):  # it may be what ended the block
            alter("NOSUPERUSER")


def needed(connection: Connection) -> list[str]:
    """Return the roles that the database's objects, grants and settings name."""
    return query_column(
        connection,
        """
        WITH here AS (SELECT oid, datdba FROM pg_database
                      WHERE datname = current_database())
        SELECT r.rolname FROM pg_roles r WHERE r.rolname !~ '^pg_' AND r.oid IN (
            SELECT datdba FROM here
            UNION SELECT d.refobjid FROM pg_shdepend d, here
            WHERE d.refclassid = 'pg_authid'::regclass AND (d.dbid = here.oid
              OR (d.classid = 'pg_database'::regclass AND d.objid = here.oid))
            UNION SELECT s.setrole FROM pg_db_role_setting s, here
            WHERE s.setdatabase = here.oid)
        ORDER BY 1""",
    )


def owners(connection: Connection) -> list[str]:
    """Return the roles that own something in the database that a dump restores.

    Not extensions and what is in them; the first role's belongings are not in
    pg_shdepend.
    """
    return query_column(
        connection,
        """
        WITH here AS (SELECT oid, datdba FROM pg_database
                      WHERE datname = current_database()),
        owned (class, oid, owner) AS (
            SELECT d.classid, d.objid, d.refobjid FROM pg_shdepend d, here
            WHERE d.deptype = 'o' AND d.dbid = here.oid
            UNION SELECT 'pg_class'::regclass, oid, relowner FROM pg_class
            WHERE relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
            UNION SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
            UNION SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace
            WHERE nspname !~ '^pg_(toast_)?temp_')
        SELECT DISTINCT r.rolname FROM owned o JOIN pg_roles r ON r.oid = o.owner
        WHERE o.oid >= 16384 AND o.class <> 'pg_extension'::regclass
          AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e'
            AND e.classid = o.class AND e.objid = o.oid)
        ORDER BY 1""",
    )


def first_role(connection: Connection) -> str:
    """Return the name of the superuser that initdb made."""
    return str(query_value(connection, "SELECT rolname FROM pg_roles WHERE oid = 10"))


_PREFIX = "opskit_rows_"
_MARK = "loads rows for opskit, and is dropped afterwards"
_VALID = "7 days"
_GRANTS: tuple[LiteralString, ...] = (
    "GRANT USAGE ON SCHEMA {} TO {}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}",
    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {} TO {}",
)


@dataclass(frozen=True, kw_only=True)
class RowsRole:
    """The role's name, and how to connect as it to the database that is loaded."""

    name: str
    url: str = field(repr=False)


@contextlib.contextmanager
def rows_role(
    connection: Connection, url: str, settings: Mapping[str, str]
) -> Iterator[RowsRole]:
    """Yield a new role that may log in and nothing else.

    A superuser's session cannot give its rights up for good: a function may take them
    back. So the role logs in by itself. `connection` is a superuser's, `url` leads to
    the database, `settings` are those of the role that only a superuser may set.
    """
    _drop_leftovers(connection)
    name, password = f"{_PREFIX}{secrets.token_hex(6)}", secrets.token_urlsafe(24)
    login = parse(url) | {"user": name, "password": password}
    role = RowsRole(name=name, url=conninfo.make_conninfo(**login))
    try:
        _create(connection, name, password, settings)
        with connect(role.url, purpose="restore"):
            pass
        yield role
    finally:
        _drop(connection, url, name)


def allow_rows(url: str, role: RowsRole) -> None:
    """Let the role read and write the rows of one database, until it is dropped.

    No more than that: its own code can give it a password that others know.
    """
    with connect(url, purpose="restore") as connection:
        for schema in query_column(
            connection,
            "SELECT nspname FROM pg_namespace "
            "WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
        ):
            for grant in _GRANTS:
                execute(connection, grant, schema, role.name)


def become_member(connection: Connection, role: RowsRole, owner: str) -> None:
    """Give the role another one's rights, until it is dropped."""
    with translated("role"):
        execute(connection, "GRANT {} TO {}", owner, role.name)


def _create(
    connection: Connection, name: str, password: str, settings: Mapping[str, str]
) -> None:
    # The server writes statements into its log: it gets no more than a hash.
    digest = connection.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    until = str(query_value(connection, "SELECT now() + %s::interval", _VALID))
    create: LiteralString = "CREATE ROLE {} LOGIN PASSWORD {hash} VALID UNTIL {until}"
    with translated("role"), connection.transaction():
        execute(connection, create, name, hash=digest, until=until)
        execute(connection, "COMMENT ON ROLE {} IS {mark}", name, mark=_MARK)
        for setting, value in settings.items():
            if value:  # an empty list of libraries cannot be set so
                statement: LiteralString = "ALTER ROLE {} SET {} = {value}"
                execute(connection, statement, name, setting, value=value)


def _drop(connection: Connection, url: str, name: str) -> None:
    """Drop the role, its grants and what code that it ran has made; never raise."""
    end: LiteralString = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
    )
    try:
        query(connection, end, name)
        with contextlib.suppress(DatabaseError), connect(url, purpose="restore") as it:
            execute(it, "DROP OWNED BY {}", name)
        execute(connection, "DROP ROLE IF EXISTS {}", name)
    except psycopg.Error as error:
        logger().warning(
            "a role could not be dropped; drop it by hand", role=name, reason=str(error)
        )


def _drop_leftovers(connection: Connection) -> None:
    """Drop roles of killed loads that are no longer valid and own nothing."""
    for name in query_column(
        connection,
        """
        SELECT rolname FROM pg_roles
        WHERE shobj_description(oid, 'pg_authid') = %s AND rolvaliduntil < now()""",
        _MARK,
    ):
        with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
            execute(connection, "DROP ROLE {}", name)


_TIMEOUT_SECONDS = 600
_IDENTIFIER = r'("(?:[^"]|"")*"|[^\s;]+)'
_ABOUT_ROLE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) ROLE {_IDENTIFIER}")
_CREATED = re.compile(rf"CREATE ROLE {_IDENTIFIER}")
_PARAMETER = re.compile(
    rf"(?:GRANT|REVOKE) .* ON PARAMETER .* (?:TO|FROM) {_IDENTIFIER}", re.DOTALL
)
_MEMBERSHIP = re.compile(
    rf"(?P<before>GRANT (?P<role>{_IDENTIFIER}) TO (?P<member>{_IDENTIFIER}).*?)"
    rf"( GRANTED BY (?P<grantor>{_IDENTIFIER}))?",
    re.DOTALL,
)
_WITH = re.compile(rf"\A(ALTER ROLE {_IDENTIFIER} WITH)((?: [A-Z]+)+)")
# Only a superuser may say whether a role has these.
_SUPERUSERS = re.compile(r" (?:NO)?(?:SUPERUSER|REPLICATION|BYPASSRLS)\b")


@dataclass(frozen=True, kw_only=True)
class Globals:
    """SQL that recreates roles and tablespaces; none for PostgreSQL's own alone."""

    roles_sql: bytes
    tablespaces_sql: bytes
    with_passwords: bool

    def roles(self) -> set[str]:
        """Return the names of the roles that the SQL creates."""
        return created_roles(self.roles_sql.decode("utf-8", "surrogateescape"))


def dump_globals(
    url: str,
    installation: Installation,
    connection: Connection,
    *,
    lock_wait: timedelta,
) -> Globals:
    """Return the server's globals; hashes of passwords only a superuser reads."""
    with_passwords = passwords_readable(connection)
    # Its role may have a limit that is meant for others.
    url = with_settings(
        url, {"statement_timeout": "0", "lock_timeout": str(milliseconds(lock_wait))}
    )
    name = database_name(url)
    # pg_dumpall takes such a name for a connection string; `postgres` serves as well.
    is_plain = "=" not in name and "://" not in name

    def dumpall(what: str) -> bytes:
        output, _words = client.run(
            [
                installation.program("pg_dumpall"),
                what,
                f"--dbname={client_connection(url)}",
                *([f"--database={name}"] if is_plain else []),
                *([] if with_passwords else ["--no-role-passwords"]),
            ],
            client_environment(url),
            doing="pg_dumpall",
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        return output

    has_tablespaces = query_value(connection, "SELECT count(*) > 2 FROM pg_tablespace")
    # Whoever the first superuser is on another server, it is that one who grants there.
    first = first_role(connection)
    return Globals(
        roles_sql=without_grantor(dumpall("--roles-only"), first),
        tablespaces_sql=dumpall("--tablespaces-only") if has_tablespaces else b"",
        with_passwords=with_passwords,
    )


def without_grantor(roles_sql: bytes, name: str) -> bytes:
    """Leave out that a role granted memberships, if it is the server's first one."""
    for form in (name, quoted(name)):
        roles_sql = roles_sql.replace(f" GRANTED BY {form};\n".encode(), b";\n")
    return roles_sql


def created_roles(roles_sql: str) -> set[str]:
    """Return the names of the roles that a script creates."""
    matches = (_CREATED.match(statement) for statement in statements(roles_sql))
    return {unquoted(match[1]) for match in matches if match}


def role_statements(
    roles_sql: str,
    wanted: Collection[str],
    existing: Collection[str],
    *,
    as_superuser: bool = True,
) -> list[str]:
    """Return the statements that make the wanted roles, of which none exists.

    A role that exists gets no more than memberships in those that are made. Without a
    superuser's rights nothing is said that takes them.
    """
    kept = []
    for statement in statements(roles_sql):
        about = _ABOUT_ROLE.match(statement)
        parameter = _PARAMETER.match(statement)
        membership = _MEMBERSHIP.fullmatch(statement)
        if about is not None:
            is_kept = unquoted(about[1]) in wanted
            if not as_superuser:
                statement = _WITH.sub(_without_superusers_rights, statement)
        elif parameter is not None:
            is_kept = unquoted(parameter[1]) in wanted and as_superuser
        elif membership is not None:
            roles = {unquoted(membership["role"]), unquoted(membership["member"])}
            is_kept = bool(roles & {*wanted}) and roles <= {*wanted, *existing}
            grantor = membership["grantor"]
            # A role that exists may lack the right to grant it here.
            if grantor and not (as_superuser and unquoted(grantor) in wanted):
                statement = membership["before"]
        else:
            # The encoding is that of the session that runs the script, and stays it.
            is_setting = statement.startswith("SET ")
            is_kept = is_setting and "client_encoding" not in statement
        if is_kept:
            kept.append(statement)
    return kept


def _without_superusers_rights(attributes: re.Match[str]) -> str:
    return attributes[1] + _SUPERUSERS.sub("", attributes[3])
