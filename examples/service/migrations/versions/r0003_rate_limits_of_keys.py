"""Keys with a rate limit of their own."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE api_keys ADD COLUMN rate_limit text")


def downgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE api_keys DROP COLUMN rate_limit")
