"""Why pg_dump failed: it reports no SQLSTATE, so the server is asked for the reason."""

from __future__ import annotations

from collections.abc import Iterator

from opskit.errors import DatabaseError
from opskit.postgres import capabilities
from opskit.postgres.connect import Connection, connect, query, query_value


def hint(connection: Connection, *, url: str, streams: int) -> str:
    """Return what to do about a dump that failed, empty where nothing is found.

    Raises:
        DatabaseError: another connection, such as pg_dump's, is refused, and nothing
            on the server says why.
    """
    hindrances = " ".join(_hindrances(connection, streams))
    try:
        with connect(url, purpose="diagnosis") as other:
            if _server(other) != _server(connection):
                return (
                    "Two servers answer at this URL, and a snapshot exists on one of "
                    "them only: name the server itself in the URL."
                )
    except DatabaseError:
        if not hindrances:
            raise
    return hindrances


def _server(connection: Connection) -> object:
    return query_value(connection, "SELECT pg_postmaster_start_time()")


def _hindrances(connection: Connection, streams: int) -> Iterator[str]:
    if capabilities.hidden_tables(connection):
        yield (
            "Connect as a role with BYPASSRLS or as the tables' owner: a dump through "
            "row-level security would hold only the rows that the role may see."
        )
    if unreadable := capabilities.unreadable_relations(connection):
        yield _how_to_read(connection, unreadable[0])
    if unreadable := capabilities.unreadable_large_objects(connection):
        yield (
            "Let its owner grant it: GRANT SELECT ON LARGE OBJECT "
            f"{unreadable[0]} TO that_role; or back up as a superuser."
        )
    yield from _limits(connection, streams)
    if query_value(connection, _CONFLICTS):
        yield (
            "This standby has cancelled queries for its replay: set "
            "hot_standby_feedback = on there, or raise max_standby_streaming_delay."
        )


_CONFLICTS = """
    SELECT sum(confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin
               + confl_deadlock) > 0
    FROM pg_stat_database_conflicts
    WHERE datname = current_database() AND pg_is_in_recovery()
    """


def _how_to_read(connection: Connection, relation: str) -> str:
    if roles := capabilities.role_in_place_of_ours(connection):
        given, ours, database = roles
        return (
            f"A setting gives the session the role {given}, which may not read "
            f"everything. If {ours} may: "
            f"ALTER ROLE {ours} IN DATABASE {database} SET role = none. "
            f"Else grant {given} what is missing."
        )
    return (
        f"The role may not read {relation}. Grant what is missing to it, for instance: "
        "GRANT pg_read_all_data TO that_role; or exclude the table."
    )


def _limits(connection: Connection, streams: int) -> Iterator[str]:
    ((connections, has_slots),) = query(
        connection,
        """
        SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1)),
               (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p'))
               < current_setting('max_locks_per_transaction')::int8 *
                 (current_setting('max_connections')::int8
                  + current_setting('max_prepared_transactions')::int8)
        FROM pg_roles r, pg_database d
        WHERE r.rolname = session_user AND d.datname = current_database()
        """,
    )
    needed = 2 + streams
    if connections is not None and connections < needed:
        yield (
            f"A backup needs {needed} connections at once, and the role or database is "
            f"allowed {connections}: raise CONNECTION LIMIT, or set streams lower."
        )
    if not has_slots:
        yield (
            "Raise max_locks_per_transaction on the server: pg_dump locks every table."
        )
