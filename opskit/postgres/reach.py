"""Whether PostgreSQL's programs reach the very server and session that we do."""

from __future__ import annotations

from typing import LiteralString

from opskit.errors import DatabaseError
from opskit.postgres import client
from opskit.postgres.connect import (
    PINNED_SETTINGS,
    Connection,
    client_connection,
    client_environment,
    connect,
    query_value,
    require_pinned,
)
from opskit.postgres.servers.programs import Installation

_TIMEOUT_SECONDS = 60
_SERVER: LiteralString = "SELECT pg_postmaster_start_time()"


def require_same(url: str, installation: Installation, connection: Connection) -> None:
    """Check that psql, by the same URL, reaches the same server with the same settings.

    They have another libpq than we have: it may look for a socket elsewhere, and not
    know a parameter of the URL.

    Raises:
        DatabaseError: they do not.
    """
    shows = [f"--command=SHOW {name}" for name in PINNED_SETTINGS]
    try:
        output, _words = client.run(
            [
                installation.program("psql"),
                "--no-psqlrc",
                "--no-password",
                "--tuples-only",
                "--no-align",
                f"--dbname={client_connection(url)}",
                f"--command={_SERVER}",
                *shows,
            ],
            client_environment(url),
            doing=f"connecting with psql {installation.version}",
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except DatabaseError as error:
        with connect(url, purpose="test"):  # the server's own refusal has a code
            pass
        raise error.replace(
            hint="opskit itself connects by this URL: one of its parameters may be "
            "newer than these programs; leave it out, or install newer client programs."
        ) from error
    server, *shown = output.decode("utf-8", "replace").splitlines()
    if server != str(query_value(connection, f"{_SERVER}::text")):
        raise DatabaseError(
            "two servers answer at this URL: psql reaches another one than opskit",
            hint="Name the server itself in the URL, not an address that leads to "
            "several.",
        )
    require_pinned(connection, dict(zip(PINNED_SETTINGS, shown, strict=False)))
