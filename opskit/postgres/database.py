"""Databases around a restore: created like the source, judged, renamed, dropped."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from opskit.errors import DatabaseError
from opskit.postgres import roles
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.connect import (
    Connection,
    connect,
    execute,
    has_row,
    query,
    query_value,
    quoted,
    statements,
)
from opskit.postgres.inventory import Inventory
from opskit.postgres.parameters import with_settings

NAME_BYTES_MAX = 63


@contextmanager
def maintenance(url: str, *, purpose: str = "restore") -> Iterator[Connection]:
    """Yield a connection from which databases can be created and renamed."""
    url = with_settings(url, {"default_transaction_read_only": "off"})
    with ExitStack() as stack:

        def enter(name: str) -> Connection:
            session = connect(url, purpose=purpose, database=name)
            return stack.enter_context(session)

        try:
            connection = enter("postgres")
        except DatabaseError:  # some servers have no database of that name
            connection = enter("template1")
        yield connection


def exists(connection: Connection, name: str) -> bool:
    """Return whether the server has a database of this name."""
    return has_row(connection, "SELECT 1 FROM pg_database WHERE datname = %s", name)


def create_tablespace(connection: Connection, name: str) -> None:
    """Create a tablespace in the server's data folder: for servers that are lost."""
    connection.execute("SET allow_in_place_tablespaces = on")
    execute(connection, "CREATE TABLESPACE {} LOCATION ''", name)


def size_bytes(connection: Connection, name: str) -> int:
    """Return how large a database of the server is by now."""
    return int(query_value(connection, "SELECT pg_database_size(%s)", name) or 0)


# What the speed of a migration depends on, besides the machine.
_SPEED = (
    "server_version", "shared_buffers", "maintenance_work_mem", "work_mem",
    "max_parallel_maintenance_workers", "max_wal_size", "wal_level",
    "full_page_writes", "fsync", "synchronous_commit",
)  # fmt: skip


def speed_settings(connection: Connection) -> dict[str, str]:
    """Return the version of a server, and the settings on which its speed depends."""
    rows = query(
        connection,
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) each (name)",
        list(_SPEED),
    )
    return dict(rows)


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
                UNION ALL SELECT oid FROM pg_ts_dict UNION ALL SELECT oid FROM pg_cast
                UNION ALL SELECT oid FROM pg_operator
                UNION ALL SELECT oid FROM pg_event_trigger
                UNION ALL SELECT oid FROM pg_publication
                UNION ALL SELECT oid FROM pg_language) each WHERE oid >= 16384)""",
    )


def run_script(connection: Connection, script: str) -> None:
    """Run a script of statements in one transaction; all of it or nothing."""
    if script.strip():
        connection.execute(sql.SQL(script))


def run_bytes(connection: Connection, script: bytes) -> None:
    """Run statements that are already in the session's client encoding."""
    if script.strip():
        connection.execute(script)


def create_like(
    connection: Connection,
    name: str,
    inventory: Inventory,
    *,
    tablespace: str = "",
) -> None:
    """Create an empty database with the encoding, locale and owner of the source."""
    locale = inventory.locale
    own = locale.provider if locale.provider != "libc" else None
    owned = inventory.owner in roles.names(connection)
    options: dict[LiteralString, str | None] = {
        "ENCODING": inventory.encoding,
        "LC_COLLATE": locale.collate,
        "LC_CTYPE": locale.ctype,
        "LOCALE_PROVIDER": own,
        "ICU_LOCALE": locale.locale if own == "icu" else None,
        "BUILTIN_LOCALE": locale.locale if own == "builtin" else None,
        "ICU_RULES": locale.icu_rules or None,
        "OWNER": inventory.owner if owned else None,
        "TABLESPACE": tablespace or None,
    }
    statement: LiteralString = "CREATE DATABASE {} TEMPLATE template0"
    given = {key: each for key, each in options.items() if each is not None}
    for key in given:
        statement += f" {key} {{{key}}}"
    execute(connection, statement, name, **given)


def make_bare(url: str, inventory: Inventory) -> None:
    """Drop what each new database has and the source has not; dumps do not say so."""
    unwanted = []
    if not inventory.has_public:
        unwanted.append("DROP SCHEMA public")
    if all(each.name != "plpgsql" for each in inventory.extensions):
        unwanted.append("DROP EXTENSION plpgsql")
    if unwanted:
        with connect(url, purpose="restore") as connection:
            run_script(connection, ";".join(unwanted))


def allow_connections(connection: Connection, name: str, *, allowed: bool) -> None:
    """Let new sessions into a database, or keep everybody out."""
    statement: LiteralString = "ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}"
    execute(connection, statement, name, allowed=allowed)


def rename(connection: Connection, old: str, new: str) -> None:
    """Rename a database that nobody is in."""
    execute(connection, "ALTER DATABASE {} RENAME TO {}", old, new)


def drop(connection: Connection, name: str) -> None:
    """Drop a database, ending its sessions; a missing one is dropped already."""
    execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def drop_template(connection: Connection, name: str) -> None:
    """Drop a database even if others are made like it."""
    execute(connection, "ALTER DATABASE {} IS_TEMPLATE false", name)
    drop(connection, name)


def derived_name(name: str, suffix: str) -> str:
    """Return a name for a database beside another, within PostgreSQL's length."""
    room = NAME_BYTES_MAX - len(suffix.encode())
    return name.encode()[:room].decode("utf-8", "ignore") + suffix


_PROPERTIES = ("DATABASE PROPERTIES", "ACL", "COMMENT", "SECURITY LABEL")


def property_script(
    entries: Iterable[TocEntry],
    source: str,
    target: str,
    *,
    without_settings: Collection[str] = (),
    without_roles: Collection[str] = (),
    with_grants: bool = True,
) -> str:
    """Return the archive's settings, grants and comments of the database itself."""
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
        if with_grants or entry.kind != "ACL"
        for statement in statements(entry.definition)
        if not _sets_any(statement, without_settings)
        and not any(
            statement.startswith((f"ALTER ROLE {role} ", f"ALTER ROLE {quoted(role)} "))
            for role in without_roles
        )
    )


def _sets_any(statement: str, names: Collection[str]) -> bool:
    setting = re.search(r" SET \"?([^\s\"]+)\"? (?:TO|=) ", statement)
    return setting is not None and setting[1].lower() in names


def _is_of_database(entry: TocEntry) -> bool:
    return "DATABASE" in entry.kind or entry.name.startswith("DATABASE ")


@dataclass(frozen=True)
class RowCheck:
    """A constraint of a table or domain, what puts it back, and who inherits it."""

    schema: str
    of: str
    name: str
    statement: str
    heirs: tuple[tuple[str, str], ...]


def take_off_checks(connection: Connection) -> list[RowCheck]:
    """Drop all CHECK constraints of tables and domains; return them in that order.

    An inherited one goes with its parent's; what a child has of its own then is taken
    in the next round. Those of domains within arrays or composite types cannot be put
    back, and stay.
    """
    checks: list[RowCheck] = []
    staying: set[int] = set()
    while constraints := [
        each for each in query(connection, _CHECKS) if each[0] not in staying
    ]:
        for oid, schema, of, name, drop, statement, heirs in constraints:
            try:
                with connection.transaction():
                    for each in (drop, statement, drop):
                        run_script(connection, each)
            except psycopg.errors.FeatureNotSupported:
                staying.add(oid)
            else:
                check = RowCheck(schema, of, name, statement, tuple(map(tuple, heirs)))
                checks.append(check)
    return checks


_CHECKS = """
    SELECT k.oid, n.nspname::text, coalesce(c.relname, t.typname)::text,
           k.conname::text,
           format('ALTER %1$s DROP CONSTRAINT %2$I', o.name, k.conname),
           format('ALTER %1$s ADD CONSTRAINT %2$I %3$s', o.name, k.conname,
                  pg_get_constraintdef(k.oid)),
           ARRAY(WITH RECURSIVE heirs AS (
               SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
               UNION SELECT i.inhrelid FROM pg_inherits i JOIN heirs h
               ON i.inhparent = h.inhrelid)
             SELECT ARRAY[hn.nspname::text, hc.relname::text] FROM heirs h
             JOIN pg_class hc ON hc.oid = h.inhrelid
             JOIN pg_namespace hn ON hn.oid = hc.relnamespace)
    FROM pg_constraint k
    LEFT JOIN pg_class c ON c.oid = k.conrelid
    LEFT JOIN pg_type t ON t.oid = k.contypid
    JOIN pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
    CROSS JOIN LATERAL (SELECT CASE
        WHEN c.oid IS NULL THEN 'DOMAIN ' || t.oid::regtype
        WHEN c.relkind = 'f' THEN 'FOREIGN TABLE ' || c.oid::regclass
        ELSE 'TABLE ' || c.oid::regclass END) AS o (name)
    WHERE k.contype = 'c' AND k.coninhcount = 0
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
        AND d.objid IN (c.oid, t.oid))
    ORDER BY k.oid"""
