"""Events with an outbox for hooks, incoming webhooks, and imports."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables."""
    op.execute(
        """
        CREATE TABLE events (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL,
            account_id bigint NOT NULL REFERENCES accounts,
            data jsonb NOT NULL,
            request_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX ON events (account_id, id);
        CREATE TABLE hooks (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            url text NOT NULL UNIQUE,
            secret text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE deliveries (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            event_id bigint NOT NULL REFERENCES events,
            hook_id bigint NOT NULL REFERENCES hooks,
            attempts integer NOT NULL DEFAULT 0,
            due_at timestamptz NOT NULL DEFAULT now(),
            ended_at timestamptz,
            error text NOT NULL DEFAULT ''
        );
        CREATE INDEX ON deliveries (due_at) WHERE ended_at IS NULL;
        CREATE INDEX ON deliveries (event_id);
        CREATE TABLE incoming (
            id text PRIMARY KEY,
            signature text NOT NULL UNIQUE,
            kind text NOT NULL,
            body bytea NOT NULL,
            request_id text NOT NULL,
            received_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE imports (
            id uuid PRIMARY KEY,
            account_id bigint NOT NULL REFERENCES accounts,
            status text NOT NULL DEFAULT 'waiting'
                CHECK (status IN ('waiting', 'done', 'failed')),
            added bigint,
            error text,
            request_id text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE imported (
            account_id bigint NOT NULL REFERENCES accounts,
            key text NOT NULL,
            digest text NOT NULL,
            task_id bigint NOT NULL UNIQUE REFERENCES tasks,
            PRIMARY KEY (account_id, key)
        );
        """
    )


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE imported, imports, incoming, deliveries, hooks, events")
