"""Roles and tablespaces: what belongs to the server and no dump of a database holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from opskit.postgres import client, roles
from opskit.postgres.connect import Connection, query_value
from opskit.postgres.conninfo import (
    client_connection,
    client_environment,
    database_name,
    with_settings,
)
from opskit.postgres.programs import Installation

_TIMEOUT_SECONDS = 600
_IDENTIFIER = r'("(?:[^"]|"")*"|[^\s;]+)'
_ABOUT_ROLE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) ROLE {_IDENTIFIER}")
_CREATED = re.compile(rf"CREATE ROLE {_IDENTIFIER}")
_PARAMETER = re.compile(
    rf"(?:GRANT|REVOKE) .* ON PARAMETER .* (?:TO|FROM) {_IDENTIFIER}", re.DOTALL
)
_MEMBERSHIP = re.compile(rf"GRANT {_IDENTIFIER} TO {_IDENTIFIER}")


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
        text = self.roles_sql.decode("utf-8", "surrogateescape")
        found = (_CREATED.match(statement) for statement in statements(text))
        return {_name(each[1]) for each in found if each is not None}


def dump(url: str, installation: Installation, connection: Connection) -> Globals:
    """Return the server's globals as far as the connection's role may read them.

    Password hashes can be read by superusers alone; for others the roles come
    without.

    Raises:
        DatabaseError: pg_dumpall failed.
    """
    with_passwords = bool(
        query_value(connection, "SELECT has_table_privilege('pg_authid', 'SELECT')")
    )

    # Its role may have a limit that is meant for others.
    url = with_settings(url, {"statement_timeout": "0"})
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
    quoted = '"' + name.replace('"', '""') + '"'
    for form in (name, quoted):
        roles_sql = roles_sql.replace(f" GRANTED BY {form};\n".encode(), b";\n")
    return roles_sql


def for_missing_roles(roles_sql: str, existing: set[str]) -> str:
    """Return the statements about roles that do not exist yet.

    A role that exists is left as it is: its password, rights and memberships are the
    target's own affair.
    """
    kept = []
    for statement in statements(roles_sql):
        about = _ABOUT_ROLE.match(statement)
        parameter = _PARAMETER.match(statement)
        membership = _MEMBERSHIP.match(statement)
        if about is not None:
            role = about[1]
        elif parameter is not None:
            role = parameter[1]
        elif membership is not None:
            role = membership[2]
        elif not statement.startswith("SET ") or "client_encoding" in statement:
            # The encoding is that of the session that runs the script, and stays it.
            continue
        else:
            role = ""
        if role and _name(role) in existing:
            continue
        kept.append(f"{statement};\n")
    return "".join(kept)


def statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script of pg_dumpall, without comments.

    Semicolons and line ends inside quotes belong to a name or a value. Lines that
    begin with a backslash are psql's own and left out.
    """
    statement: list[str] = []
    quote = ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", sql):
        if (
            not quote
            and not "".join(statement).strip()
            and line.startswith(("--", "\\"))
        ):
            continue
        for character in line:
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            if character == ";" and not quote:
                yield "".join(statement).strip()
                statement = []
            else:
                statement.append(character)
    rest = "".join(statement).strip()
    if rest:
        yield rest


def _name(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier
