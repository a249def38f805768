"""Foreign data wrappers, put out of reach: nothing in a copy connects to elsewhere."""

from __future__ import annotations

from psycopg import sql

from opskit.postgres.connect import Connection, query

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
        JOIN pg_namespace n ON n.oid = p.pronamespace
        """,
    )
    for name, *_handler, _is_member in wrappers:
        connection.execute(
            sql.SQL("ALTER FOREIGN DATA WRAPPER {} NO HANDLER").format(
                sql.Identifier(name)
            )
        )
    return {
        name: (schema, handler)
        for name, schema, handler, is_member in wrappers
        if not is_member
    }


def connect_again(connection: Connection, handlers: Handlers) -> None:
    """Give wrappers their handlers back."""
    for name, handler in handlers.items():
        connection.execute(
            sql.SQL("ALTER FOREIGN DATA WRAPPER {} HANDLER {}").format(
                sql.Identifier(name), sql.Identifier(*handler)
            )
        )
