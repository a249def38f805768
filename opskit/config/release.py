"""The settings of releases: migrations, and what they may cost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from opskit.config.section import Count, Duration, Section, SourceName
from opskit.config.watch import read_key
from opskit.errors import ConfigurationError


class MigrationsSettings(Section):
    """The migrations of a service, and the tool that applies them."""

    tool: Literal["", "alembic", "sql", "command"] = Field(
        default="",
        description="`alembic`, `sql` for a folder of SQL files, or `command` for any "
        "other tool; empty: none",
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
        description="the environment variable in which Alembic's env.py, or the "
        "command, expects the address of the database",
    )
    folder: Path = Field(
        default=Path("migrations"),
        description="the SQL files, in the order of their names; `NAME.down.sql` is "
        "the way back of `NAME.sql`. For `command`: what it applies; a change there is "
        "a pending migration",
    )
    command: list[str] = Field(
        default=[],
        description="for `command`: applies all that is pending; an argument list",
    )
    undo: list[str] = Field(
        default=[],
        description="for `command`: takes back what the newest run of it applied",
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
        if self.tool == "command" and not self.command:
            raise ValueError("migrations.command must name what is to be run")
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


class LocalSettings(Section):
    """Release folders on this machine: `releases/VERSION`, and the link `current`.

    The commands are argument lists; they find the version in `OPSKIT_VERSION` and its
    folder in `OPSKIT_RELEASE_FOLDER`.
    """

    folder: Path = Field(default=Path(), description="where the folders lie")
    prepare: list[str] = Field(
        default=[], description="makes the folder of a version; runs in it"
    )
    restart: list[str] = Field(
        default=[],
        description="has the service run what `current` names, for instance "
        '`["systemctl", "restart", "app"]`',
    )
    start: list[str] = Field(
        default=[],
        description="instead of `restart`: the service itself, which is started in the "
        "folder of its version; its output goes to `service.log`",
    )
    deadline: Duration = Field(
        default=timedelta(minutes=1),
        description="until when the process that was started must name its version at "
        "the `url` of `[smoke]`",
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=30),
        description="how long the process before may take to end; then it is killed",
    )

    @model_validator(mode="after")
    def _has_one_supervisor(self) -> LocalSettings:
        if self.start and self.restart:
            raise ValueError("only one of start and restart may be set")
        return self


class CommandSettings(Section):
    """A deployment tool, by its commands: argument lists.

    They find the version in `OPSKIT_VERSION` and the id of the deployment in
    `OPSKIT_DEPLOYMENT`; what they say is on the last line that they print.
    """

    deploy: list[str] = Field(
        default=[], description="begins a deployment, and prints its id"
    )
    status: list[str] = Field(default=[], description="prints its status")
    current: list[str] = Field(
        default=[], description="prints the version that is deployed"
    )
    good: list[str] = Field(default=["SUCCESS"], description="statuses of success")
    bad: list[str] = Field(
        default=["FAILED", "CRASHED"], description="statuses of failure"
    )
    deadline: Duration = Field(
        default=timedelta(minutes=10),
        description="until when a status must be one of success; others are waited for",
    )


class RailwaySettings(Section):
    """A service on Railway that is built from a repository; a version is a commit."""

    _secrets = ("token",)

    service: str = Field(default="", description="the id of the service")
    token: SecretStr = Field(
        default=SecretStr(""),
        description="a project token of the environment; leave it to `token_file` or "
        "the environment",
    )
    token_file: Path | None = Field(
        default=None, description="a file of mode 0600 that holds the token"
    )
    deadline: Duration = Field(
        default=timedelta(minutes=20),
        description="until when a deployment must be successful; then it is cancelled",
    )
    url: str = Field(
        default="https://backboard.railway.com/graphql/v2",
        pattern=r"^(https://|http://(localhost|127\.0\.0\.1)(:\d+)?/)",
        description="the address of its API",
    )

    def resolve_token(self) -> str:
        """Return the token.

        Raises:
            ConfigurationError: there is none, or its file cannot be read.
        """
        token = self._resolve("token", read_key)
        if not token:
            raise ConfigurationError(
                "release.railway.token is not set",
                hint="Set token_file in [release.railway], or "
                "OPSKIT_RELEASE__RAILWAY__TOKEN in the environment.",
            )
        if not (token.isascii() and token.isprintable()):
            raise ConfigurationError(
                "release.railway.token holds what no header may carry",
                hint="It is a project token, as Railway shows it once.",
            )
        return token


class AcceptedWarning(Section):
    """A warning about a migration that somebody accepts, and why."""

    warning: str = Field(description="its name, for instance `ban-drop-column`")
    revision: str = Field(default="", description="the migration; empty: any")
    reason: str = Field(min_length=1, description="why; goes on record")


class ReleaseSettings(Section):
    """Releases: migrations, how a version is deployed, in which order."""

    deployer: Literal["", "local", "railway", "command"] = Field(
        default="",
        description="`local`, `railway` or `command`, each with a section of its own",
    )
    local: LocalSettings = LocalSettings()
    railway: RailwaySettings = RailwaySettings()
    command: CommandSettings = CommandSettings()
    configuration: list[Path] = Field(
        default=[],
        description="files from which the service takes its configuration and "
        "environment; their hashes are recorded, and a rollback says which differ",
    )
    order: Literal["migrate-first", "deploy-first"] = Field(
        default="migrate-first",
        description="whether migrations come before the deployment or after it; those "
        "of the contract phase always come last",
    )
    restore_point_age: Duration = Field(
        default=timedelta(hours=26),
        description="how old the drilled set may be that a release can return to",
    )
    take_restore_point: bool = Field(
        default=False,
        description="where no drilled set is new enough, take a backup and drill it, "
        "instead of refusing the release",
    )
    oldest_schema: str = Field(
        default="",
        description="the oldest migration that the version to be released can run on, "
        "its name or the beginning of it; by default the newest one that the database "
        "had while the version ran",
    )
    migrations: MigrationsSettings = MigrationsSettings()
    budgets: BudgetSettings = BudgetSettings()
    accept: list[AcceptedWarning] = Field(
        default=[], description="warnings about migrations that are accepted"
    )
