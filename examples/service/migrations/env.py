"""How Alembic reaches the database: by the settings of the service."""

from __future__ import annotations

import psycopg
from alembic import context
from service.settings import Settings
from sqlalchemy import create_engine, pool

_TIMEOUTS = "-c lock_timeout=5s -c statement_timeout=5min"
_LOCK = 7_423_001  # one migration at a time, from whichever host


def run() -> None:
    """Apply the migrations in one transaction."""
    url = Settings().database_url.get_secret_value()
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, options=_TIMEOUTS, connect_timeout=10),
        poolclass=pool.NullPool,
    )
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            context.run_migrations()


run()
