"""How a server is set up whose data nobody will miss: for speed alone."""

from __future__ import annotations

import psycopg

# Nothing here must survive a crash: the data exists elsewhere, and is compared.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1d",
    "autovacuum": "off",
    # Little: what is loaded once and read once the system's cache holds as well, and
    # memory that is new costs more than what is found again in it.
    "shared_buffers": "64MB",
    "maintenance_work_mem": "256MB",
    "max_parallel_maintenance_workers": "2",
    "max_locks_per_transaction": "1024",
    "jit": "off",
}
_QUICK_COMPRESSION = "lz4"


def add_what_it_can(connection: psycopg.Connection) -> None:
    """Set what only some servers can: those that do not would not start with it.

    Columns that name no compression of their own are then compressed in a fraction of
    the time. What they hold is the same, and how they are declared.
    """
    connection.autocommit = True
    able = connection.execute(
        "SELECT %s = ANY (enumvals) FROM pg_settings "
        "WHERE name = 'default_toast_compression' AND source = 'default'",
        [_QUICK_COMPRESSION],
    ).fetchone()
    if able == (True,):
        connection.execute(
            f"ALTER SYSTEM SET default_toast_compression = {_QUICK_COMPRESSION}"
        )
        connection.execute("SELECT pg_reload_conf()")
