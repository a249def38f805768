"""Migrations: the database's schema, brought to this version by Alembic."""

from __future__ import annotations

from pathlib import Path

_CONFIG = Path(__file__).resolve().parents[1] / "alembic.ini"


def upgrade() -> None:
    """Bring the schema to the newest version."""
    # Here, for what serves needs none of it, and starts sooner.
    from alembic import command
    from alembic.config import Config

    command.upgrade(Config(_CONFIG), "head")
