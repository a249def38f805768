"""Databases around a restore: created like the source, judged, renamed, dropped."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg import sql

from opskit.errors import DatabaseError
from opskit.postgres.connect import Connection, connect, query_value, translated
from opskit.postgres.globals import statements
from opskit.postgres.toc import TocEntry

_MAINTENANCE = ("postgres", "template1")
_PROPERTIES = ("DATABASE PROPERTIES", "ACL", "COMMENT", "SECURITY LABEL")
NAME_BYTES_MAX = 63
_SWAP_ATTEMPTS = 20
_SWAP_PAUSE_SECONDS = 0.25


@contextmanager
def maintenance(url: str) -> Iterator[Connection]:
    """Yield a connection from which databases can be created and renamed.

    Raises:
        DatabaseError: the server is unreachable or refuses.
    """
    first, second = _MAINTENANCE
    with ExitStack() as stack:
        try:
            found = stack.enter_context(connect(url, purpose="restore", database=first))
        except DatabaseError:
            # Some servers have no database of that name.
            found = stack.enter_context(
                connect(url, purpose="restore", database=second)
            )
        yield found


def exists(connection: Connection, name: str) -> bool:
    """Return whether the server has a database of this name."""
    return bool(
        query_value(connection, "SELECT true FROM pg_database WHERE datname = %s", name)
    )


def idle(connection: Connection) -> list[str]:
    """Return the names of the databases in which there is no session."""
    rows = connection.execute(
        "SELECT datname FROM pg_database d WHERE NOT EXISTS "
        "(SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)"
    )
    return [name for (name,) in rows]


def tablespaces(connection: Connection) -> set[str]:
    """Return the names of the server's tablespaces."""
    return {name for (name,) in connection.execute("SELECT spcname FROM pg_tablespace")}


def is_empty(connection: Connection) -> bool:
    """Return whether the connection's database is as `template0` is."""
    # Numbers below are given to what initdb makes, the same in every database.
    return not query_value(
        connection,
        """
        SELECT EXISTS (SELECT FROM pg_class
                       WHERE oid >= 16384 AND relpersistence <> 't')
            OR EXISTS (SELECT FROM pg_namespace
                       WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp_')
            OR EXISTS (SELECT FROM pg_largeobject_metadata)
            OR EXISTS (SELECT FROM pg_default_acl)
            OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d
                       ON d.oid = s.setdatabase WHERE d.datname = current_database())
            OR EXISTS (SELECT FROM (
                SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_type
                UNION ALL SELECT oid FROM pg_extension
                UNION ALL SELECT oid FROM pg_foreign_data_wrapper
                UNION ALL SELECT oid FROM pg_foreign_server
                UNION ALL SELECT oid FROM pg_collation
                UNION ALL SELECT oid FROM pg_ts_config
                UNION ALL SELECT oid FROM pg_ts_dict
                UNION ALL SELECT oid FROM pg_operator
                UNION ALL SELECT oid FROM pg_cast
                UNION ALL SELECT oid FROM pg_event_trigger
                UNION ALL SELECT oid FROM pg_publication
                UNION ALL SELECT oid FROM pg_language) each WHERE oid >= 16384)
        """,
    )


def existing_roles(connection: Connection) -> set[str]:
    """Return the names of the server's roles."""
    return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}


def run_script(connection: Connection, script: str) -> None:
    """Run a script of statements in one transaction; all of it or nothing."""
    if script.strip():
        connection.execute(sql.SQL(script))


def create_like(connection: Connection, name: str, inventory: dict[str, Any]) -> None:
    """Create an empty database with the encoding, locale and owner of the source.

    Raises:
        DatabaseError: the server refuses, or lacks the locale.
    """
    locale = inventory["locale"]
    clauses = [
        sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)),
        sql.SQL("ENCODING {}").format(sql.Literal(inventory["encoding"])),
        sql.SQL("LC_COLLATE {}").format(sql.Literal(locale["collate"])),
        sql.SQL("LC_CTYPE {}").format(sql.Literal(locale["ctype"])),
    ]
    if locale["provider"] != "libc":
        clauses.append(
            sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(locale["provider"]))
        )
        keyword = (
            "ICU_LOCALE {}" if locale["provider"] == "icu" else "BUILTIN_LOCALE {}"
        )
        clauses.append(sql.SQL(keyword).format(sql.Literal(locale["locale"])))
    if locale.get("icu_rules"):
        clauses.append(sql.SQL("ICU_RULES {}").format(sql.Literal(locale["icu_rules"])))
    if inventory["owner"] in existing_roles(connection):
        clauses.append(sql.SQL("OWNER {}").format(sql.Identifier(inventory["owner"])))
    connection.execute(sql.SQL(" ").join(clauses))


def property_script(entries: Iterable[TocEntry], source: str, target: str) -> str:
    """Return the archive's settings, grants and comments of the database itself.

    They name the source's database, which is another one here.
    """
    names = (source, quoted(source))
    tags = {source, *(f"DATABASE {name}" for name in names)}
    old = "|".join(map(re.escape, names))
    pattern = re.compile(rf"\bDATABASE (?:{old})(?=\s|\Z)")
    replacement = f"DATABASE {quoted(target)}".replace("\\", r"\\")
    return "".join(
        # The first mention is the object; later ones are somebody's words.
        f"{pattern.sub(replacement, statement, count=1)};\n"
        for entry in entries
        if entry.kind in _PROPERTIES and entry.name in tags and _is_of_database(entry)
        for statement in statements(entry.definition)
    )


def _is_of_database(entry: TocEntry) -> bool:
    return "DATABASE" in entry.kind or entry.name.startswith("DATABASE ")


def quoted(name: str) -> str:
    """Return a name as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def swap_names(connection: Connection, renames: Sequence[tuple[str, str]]) -> None:
    """Rename databases in one transaction: all of them or none.

    Sessions in them are ended first, again and again while new ones come in.

    Raises:
        DatabaseError: one is in use all the time, or the role may not.
    """
    for attempt in range(1, _SWAP_ATTEMPTS + 1):
        try:
            with translated("renaming"), connection.transaction():
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = ANY (%s) AND pid <> pg_backend_pid()",
                    ([old for old, _new in renames],),
                )
                for old, new in renames:
                    connection.execute(
                        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                            sql.Identifier(old), sql.Identifier(new)
                        )
                    )
        except DatabaseError as error:
            in_use = isinstance(error.__cause__, psycopg.errors.ObjectInUse)
            if not in_use or attempt == _SWAP_ATTEMPTS:
                raise
            time.sleep(_SWAP_PAUSE_SECONDS)
        else:
            return


def drop(connection: Connection, name: str) -> None:
    """Drop a database, ending its sessions; a missing one is dropped already."""
    connection.execute(
        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


def derived_name(name: str, suffix: str) -> str:
    """Return a name for a database beside another, within PostgreSQL's length."""
    room = NAME_BYTES_MAX - len(suffix.encode())
    return name.encode()[:room].decode("utf-8", "ignore") + suffix
