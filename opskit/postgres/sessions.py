"""Sessions of a server: what they work at, and their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from opskit.postgres.connect import Connection, query, server_major

# Statements that the user wrote in the configuration run under this name.
OWN_STATEMENTS = "statements"
_FIRST_WITH_COPY_PROGRESS = 14
_COPIED = "(SELECT c::text FROM pg_stat_progress_copy c WHERE c.pid = a.pid)"
# One that waits for a lock, its client or a disk is not the one that holds all up.
_WORKING: LiteralString = """
    SELECT a.pid, a.query_start, a.query, {copied},
        (SELECT i::text FROM pg_stat_progress_create_index i WHERE i.pid = a.pid)
    FROM pg_stat_activity a
    WHERE a.datname = ANY (%s) AND a.state = 'active' AND a.pid <> pg_backend_pid()
        AND a.application_name <> %s
        AND coalesce(a.wait_event_type, '') NOT IN ('Lock', 'Client', 'IO')
"""


@dataclass(frozen=True)
class Session:
    """A session, its statement, and how far that has come, where the server says so."""

    pid: int
    began_at: datetime
    statement: str
    copied: str | None
    indexed: str | None


def working(connection: Connection, databases: Sequence[str]) -> list[Session]:
    """Return the sessions in some databases that work, but for the user's own."""
    copied: LiteralString = "pg_database_size(a.datname)::text"
    if server_major(connection) >= _FIRST_WITH_COPY_PROGRESS:
        copied = _COPIED
    found = query(
        connection,
        _WORKING.replace("{copied}", copied),
        list(databases),
        f"opskit {OWN_STATEMENTS}",
    )
    return [Session(*row) for row in found]


def end(connection: Connection, databases: Sequence[str]) -> None:
    """End all sessions in some databases."""
    query(
        connection,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = ANY (%s) AND pid <> pg_backend_pid()",
        list(databases),
    )
