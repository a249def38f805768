"""Accounts with keys, their tasks, and the audit trail."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.execute(
        """
        CREATE TABLE accounts (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
            role text NOT NULL CHECK (role IN ('reader', 'writer', 'admin')),
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE api_keys (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            account_id bigint NOT NULL REFERENCES accounts,
            prefix text NOT NULL UNIQUE,
            hash text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            revoked_at timestamptz
        );
        CREATE INDEX ON api_keys (account_id);
        CREATE TABLE tasks (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            owner_id bigint NOT NULL REFERENCES accounts,
            title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
            details text NOT NULL DEFAULT '' CHECK (length(details) <= 10000),
            status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done')),
            due_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ON tasks (owner_id, id);
        CREATE TABLE audit (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            time timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            request_id text NOT NULL
        );
        CREATE INDEX ON audit (actor, id);
        CREATE INDEX ON audit (time);
        """
    )


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE audit, tasks, api_keys, accounts")
