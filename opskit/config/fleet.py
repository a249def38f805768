"""The settings of a fleet: its queue, its caps, and when a worker counts as dead."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr

from opskit.config.section import Count, Duration, PostgresUrl, Section, read_url


class FleetSettings(Section):
    """Many workers that share one queue in a PostgreSQL database.

    `inv fleet-init` makes its schema, `opskit_fleet`; docs/fleet.md describes it. It
    needs the extra `opskit-postgres[fleet]`.
    """

    _secrets = ("url",)

    url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL of the queue's database, to the server itself: a "
        "pooler in transaction mode is refused",
    )
    url_file: Path | None = Field(
        default=None, description="a file that holds the URL, for a mounted secret"
    )
    per_server: Count = Field(
        default=2, ge=1, description="how many backups may run at once on one server"
    )
    per_store: Count = Field(
        default=8,
        ge=1,
        description="how many jobs may use one store at once; `smoke` and reports do "
        "not count",
    )
    retries: Count = Field(
        default=3,
        description="how often a failed job is tried again, after one, two, four "
        "minutes and so on",
    )
    dead_after: Duration = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=3),
        description="others take over the jobs of a worker that has given no sign of "
        "life for so long",
    )
    patience: Duration = Field(
        default=timedelta(minutes=2),
        description="how long the queue may be away before workers back up their "
        "overdue sources without it",
    )
    clock_tolerance: Duration = Field(
        default=timedelta(minutes=1),
        description="a worker whose clock differs more from that of the queue's "
        "database takes no jobs",
    )

    @property
    def is_configured(self) -> bool:
        """Whether there is a queue."""
        return bool(self.url.get_secret_value() or self.url_file)

    def resolve_url(self) -> str:
        """Return the connection URL; empty if there is no queue.

        Raises:
            ConfigurationError: the file cannot be read or holds no URL.
        """
        return self._resolve("url", read_url)
