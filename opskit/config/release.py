"""The settings of releases: migrations, and what they may cost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from opskit.config.section import Count, Duration, Section, SourceName


class MigrationsSettings(Section):
    """The migrations of a service, and the tool that applies them."""

    tool: Literal["", "alembic", "sql"] = Field(
        default="",
        description="`alembic`, or `sql` for a folder of SQL files; empty: none",
    )
    database: SourceName | Literal[""] = Field(
        default="", description="the configured database that they are for"
    )
    config: Path = Field(
        default=Path("alembic.ini"), description="Alembic's configuration"
    )
    python: Path | None = Field(
        default=None,
        description="the interpreter that has Alembic and the service's packages; by "
        "default opskit's own",
    )
    url_variable: str = Field(
        default="DATABASE_URL",
        description="the environment variable in which Alembic's env.py expects the "
        "address of the database",
    )
    folder: Path = Field(
        default=Path("migrations"),
        description="the SQL files, in the order of their names; `NAME.down.sql` is "
        "the way back of `NAME.sql`",
    )
    lock_timeout: Duration = Field(
        default=timedelta(seconds=3),
        ge=timedelta(milliseconds=1),
        description="how long a statement waits for a lock, while others queue behind",
    )
    lock_attempts: Count = Field(
        default=5,
        ge=1,
        description="how often a migration that waited in vain is tried",
    )
    statement_timeout: Duration = Field(
        default=timedelta(minutes=15), description="how long a statement may run"
    )

    @model_validator(mode="after")
    def _has_database(self) -> MigrationsSettings:
        if self.tool and not self.database:
            raise ValueError("migrations.database must name a configured database")
        return self


class BudgetSettings(Section):
    """What migrations may cost in a rehearsal; more than that is a no."""

    reads_blocked: Duration | None = Field(
        default=timedelta(seconds=1), description="how long a table may not be read"
    )
    writes_blocked: Duration | None = Field(
        default=timedelta(seconds=5),
        description="how long a table may not be written to",
    )
    duration: Duration | None = Field(
        default=None, description="how long all migrations may take"
    )
    rewrites: bool = Field(default=False, description="whether tables may be rewritten")
    wal_bytes: Count | None = Field(
        default=None, description="how much may be written ahead"
    )
    disk_bytes: Count | None = Field(
        default=None, description="how much the database may grow meanwhile"
    )


class AcceptedWarning(Section):
    """A warning about a migration that somebody accepts, and why."""

    warning: str = Field(description="its name, for instance `ban-drop-column`")
    revision: str = Field(default="", description="the migration; empty: any")
    reason: str = Field(min_length=1, description="why; goes on record")


class ReleaseSettings(Section):
    """Releases: so far the migrations of the database and their rehearsal."""

    migrations: MigrationsSettings = MigrationsSettings()
    budgets: BudgetSettings = BudgetSettings()
    accept: list[AcceptedWarning] = Field(
        default=[], description="warnings about migrations that are accepted"
    )
