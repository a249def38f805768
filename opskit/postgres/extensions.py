"""A database's extensions, and their tables that hold rows of the user's."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from typing import LiteralString

import psycopg
from psycopg import conninfo

from opskit.postgres.connect import (
    Connection,
    execute,
    query,
    query_column,
    query_value,
    records,
)
from opskit.postgres.inventory import Extension, library_names
from opskit.postgres.servers.programs import Installation


def take(connection: Connection) -> tuple[Extension, ...]:
    """Return the extensions of the connection's database."""
    rows = records(
        connection,
        """
        SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema,
               pg_get_userbyid(e.extowner) AS owner
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1""",
    )
    return tuple(Extension(**each) for each in rows)


def relations(connection: Connection) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Return the extensions' configuration tables and sequences, by schema and name.

    With each come its extension, and the condition of the rows that are dumped.
    """
    rows = query(
        connection,
        """
        SELECT n.nspname, c.relname, e.extname, nullif(each.condition, '')
        FROM pg_extension e
        CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) each (oid, condition)
        JOIN pg_class c ON c.oid = each.oid
        JOIN pg_namespace n ON n.oid = c.relnamespace""",
    )
    return {
        (schema, name): (extension, condition)
        for schema, name, extension, condition in rows
    }


def names_in_settings(connection: Connection) -> list[str]:
    """Return what settings of extensions, loaded or in files, may call a database."""
    return query_column(
        connection,
        """
        SELECT DISTINCT setting FROM (
          SELECT name, setting FROM pg_settings
          WHERE vartype = 'string' AND context IN ('postmaster', 'sighup')
          UNION ALL SELECT name, setting FROM pg_file_settings) each
        WHERE name LIKE '%.%' AND octet_length(setting) BETWEEN 1 AND 63
          AND setting <> current_database()
        ORDER BY 1""",
    )


@contextlib.contextmanager
def under_name(connection: Connection, name: str) -> Iterator[None]:
    """Run the block in a transaction that sees its own database under another name.

    An extension may refuse any database but the one that a setting of the server names.
    A session cannot rename its own database, and the name may be in use; nobody else
    sees the names of the block. A superuser may do this.
    """
    own = query_value(connection, "SELECT current_database()")
    spare = f"opskit_{secrets.token_hex(8)}"
    with connection.transaction():
        _rename(connection, {name: spare, own: name})
        yield
        _rename(connection, {name: own, spare: name})


def _rename(connection: Connection, names: dict[str, str]) -> None:
    for old, new in names.items():
        connection.execute(
            "UPDATE pg_database SET datname = %s WHERE datname = %s", (new, old)
        )


# Their background workers would act in the copy; these have none.
_WITHOUT_WORKERS = {"auto_explain", "pg_stat_statements"}


def settings(installation: Installation, libraries: Sequence[str]) -> dict[str, str]:
    """Return settings by which a throw-away server preloads what is installed of them.

    No background worker starts where one of them may bring some.
    """
    installed = [
        each
        for each in libraries
        if (installation.folder("pkglibdir") / f"{each}.so").exists()
    ]
    if not installed:
        return {}
    preloading = {"shared_preload_libraries": ",".join(installed)}
    return preloading | (
        {} if _WITHOUT_WORKERS.issuperset(installed) else {"max_worker_processes": "0"}
    )


def is_usable(connection: Connection, name: str) -> bool:
    """Return whether a library is loaded, or a new session can load it now."""
    shown = query_value(connection, "SHOW shared_preload_libraries")
    if name in library_names(str(shown)):
        return True
    own = {
        each.keyword.decode(): each.val.decode()
        for each in connection.pgconn.info
        if each.val is not None
    }
    try:
        with psycopg.connect(conninfo.make_conninfo("", **own)) as session:
            execute(session, "LOAD {name}", name=name)
    except psycopg.Error:
        return False
    return True


# By the name of a wrapper: schema and name of its handler.
Handlers = dict[str, tuple[str, str]]


def disconnect(connection: Connection) -> Handlers:
    """Take the handler from every wrapper; return those that a dump would miss.

    Without one, no foreign table can be read, whatever its server and mapping say. What
    an extension owns is not in a dump. Only a superuser may do this.
    """
    wrappers = query(
        connection,
        """
        SELECT f.fdwname, n.nspname, p.proname,
               EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.objid = f.oid
                 AND d.classid = 'pg_foreign_data_wrapper'::regclass)
        FROM pg_foreign_data_wrapper f JOIN pg_proc p ON p.oid = f.fdwhandler
        JOIN pg_namespace n ON n.oid = p.pronamespace""",
    )
    for name, *_handler, _is_member in wrappers:
        execute(connection, "ALTER FOREIGN DATA WRAPPER {} NO HANDLER", name)
    return {
        name: (schema, handler)
        for name, schema, handler, is_member in wrappers
        if not is_member
    }


def connect_again(connection: Connection, handlers: Handlers) -> None:
    """Give wrappers their handlers back."""
    for name, handler in handlers.items():
        statement: LiteralString = "ALTER FOREIGN DATA WRAPPER {} HANDLER {}.{}"
        execute(connection, statement, name, *handler)
