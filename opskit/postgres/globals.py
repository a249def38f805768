"""Roles and tablespaces: what belongs to the server and no dump of a database holds."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from opskit.postgres import client, roles
from opskit.postgres.connect import (
    Connection,
    client_connection,
    client_environment,
    database_name,
    milliseconds,
    query_value,
    with_settings,
)
from opskit.postgres.servers.programs import Installation
from opskit.postgres.sql_text import quoted, statements, unquoted

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
    """SQL that recreates roles and tablespaces, and whether it holds passwords.

    Of a server that has PostgreSQL's own tablespaces alone there is no SQL.
    """

    roles_sql: bytes
    tablespaces_sql: bytes
    with_passwords: bool

    def roles(self) -> set[str]:
        """Return the names of the roles that the SQL creates."""
        return created_roles(self.roles_sql.decode("utf-8", "surrogateescape"))


def dump(
    url: str,
    installation: Installation,
    connection: Connection,
    *,
    lock_wait: timedelta,
) -> Globals:
    """Return the server's globals as far as the connection's role may read them.

    Password hashes can be read by superusers alone; for others the roles come
    without.

    Raises:
        DatabaseError: pg_dumpall failed.
    """
    with_passwords = roles.passwords_readable(connection)
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
    first = roles.first(connection)
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


def for_roles(
    roles_sql: str,
    wanted: Collection[str],
    existing: Collection[str],
    *,
    as_superuser: bool = True,
) -> list[str]:
    """Return the statements that make the wanted roles, of which none exists.

    A role that exists is left as it is, but for its memberships in those that are
    made. Without a superuser's rights nothing is said that takes them.
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
