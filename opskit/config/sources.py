"""The settings of what is backed up, databases and folders, and its retention."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from opskit.config.cron import CronLine
from opskit.config.section import (
    CompressionLevel,
    Count,
    Duration,
    PostgresUrl,
    Section,
    read_url,
)

_NONE = timedelta(0)
_RULES = ("keep_last", "keep_within", "keep_daily", "keep_weekly", "keep_monthly")


_Last = Annotated[Count, Field(description="the newest N sets")]
_Within = Annotated[Duration, Field(description="every set younger than this")]
_Daily = Annotated[Count, Field(description="the newest set of each of N days")]
_Weekly = Annotated[Count, Field(description="the same for ISO weeks")]
_Monthly = Annotated[Count, Field(description="the same for months")]


class SourceRetention(Section):
    """The rules of one source instead of the general ones; a rule left out is 0."""

    keep_last: _Last = 0
    keep_within: _Within = _NONE
    keep_daily: _Daily = 0
    keep_weekly: _Weekly = 0
    keep_monthly: _Monthly = 0
    min_keep: Count = Field(
        default=2,
        ge=1,
        description="how many good sets are kept in any case",
    )


class RetentionSettings(SourceRetention):
    """Which sets are kept: a set stays if any rule keeps it.

    The values shown are those of a section that names no `keep_*`; naming any of them
    sets the others to 0.
    """

    keep_last: _Last = 7
    keep_within: _Within = timedelta(days=30)
    keep_daily: _Daily = 30
    keep_weekly: _Weekly = 8
    keep_monthly: _Monthly = 12
    require_drill: bool = Field(
        default=False,
        description="delete a set only if a newer one has passed a drill",
    )
    max_drop: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="`prune` stops until somebody confirms a set that lacks a table, "
        "or whose size or number of rows, of all tables or of one, fell by more than "
        "this share; 1: only a missing table stops it",
    )
    ignore_drop: list[str] = Field(
        default=[],
        description="tables, as `schema.name` with `*`, that may become empty at any "
        "time, such as queues",
    )

    @property
    def is_empty(self) -> bool:
        """Whether no rule keeps anything: surely a mistake."""
        return not any(getattr(self, rule) for rule in _RULES)

    def of_source(self, own: SourceRetention | None) -> RetentionSettings:
        """Return the rules for a source, which may have its own."""
        return self if own is None else self.model_copy(update=dict(own))

    @model_validator(mode="before")
    @classmethod
    def _named_rules_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and any(rule in given for rule in _RULES):
            return dict.fromkeys(_RULES, 0) | {"keep_within": _NONE} | given
        return given


_Schedule = Annotated[
    CronLine, Field(description="cron line of the backup, in `scheduler.timezone`")
]
_Age = Annotated[
    Duration,
    Field(description="if the newest set is older than this, the source is unhealthy"),
]
_Label = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="in a fleet, the workers with this `--label` do its jobs",
    ),
]
_Rules = Annotated[
    SourceRetention | None,
    Field(description="its own rules instead of those of `[retention]`"),
]


class DatabaseSettings(Section):
    """One PostgreSQL database that is backed up."""

    _secrets = ("restore_url",)

    url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL, `postgresql://user@host:port/name`; leave the "
        "password to PGPASSFILE, a service file, `url_file` or the environment",
    )
    url_file: Path | None = Field(
        default=None, description="a file that holds the URL, for a mounted secret"
    )
    restore_url: PostgresUrl = Field(
        default=SecretStr(""),
        description="connection URL for `restore` to the source's server, where the "
        "role that backs up may not create databases; empty: `url`",
    )
    restore_url_file: Path | None = Field(
        default=None, description="a file that holds that URL"
    )
    schedule: _Schedule = ""
    exclude_tables: list[str] = Field(
        default=[], description="pg_dump patterns of tables to leave out"
    )
    exclude_table_data: list[str] = Field(
        default=[], description="pg_dump patterns of tables to store without their rows"
    )
    max_age: _Age = timedelta(hours=26)
    label: _Label = "default"
    retention: _Rules = None
    lock_wait: Duration = Field(
        default=timedelta(seconds=60),
        description="how long a backup may wait for a lock, of a table or of the "
        "catalog",
    )
    compression_level: CompressionLevel = 3
    streams: Count = Field(
        default=0,
        le=32,
        description="how many dumps may run at once in one snapshot, each with its own "
        "connection; large tables are divided among them. 0: half of this machine's "
        "processors, at most 4",
    )

    @model_validator(mode="after")
    def _one_address(self) -> DatabaseSettings:
        if bool(self.url.get_secret_value()) == bool(self.url_file):
            raise ValueError("exactly one of url and url_file must be set")
        return self

    def resolve_url(self) -> str:
        """Return the connection URL, from `url_file` if that is set.

        Raises:
            ConfigurationError: the file cannot be read or holds no URL.
        """
        return self._resolve("url", read_url)

    def resolve_restore_url(self) -> str:
        """Return the URL that `restore` connects with, by default that of backups.

        Raises:
            ConfigurationError: a file cannot be read or holds no URL.
        """
        return self._resolve("restore_url", read_url) or self.resolve_url()


class FolderSettings(Section):
    """One folder of state files that is backed up."""

    path: Path = Field(description="the folder; an absolute path")
    schedule: _Schedule = ""
    lock: str = Field(
        default="",
        description="the file that the service locks while it writes; the backup takes "
        "the same lock. Empty: files are read without a lock",
    )
    lock_kind: Literal["flock", "fcntl"] = Field(
        default="flock",
        description="`flock`: the lock of filelock and flock(1); `fcntl`: a record "
        "lock, that of lockf",
    )
    lock_wait: Duration = Field(
        default=timedelta(seconds=30),
        description="how long the backup may wait for the service's lock",
    )
    exclude: list[str] = Field(
        default=[],
        description="patterns of what to leave out: `*.tmp` matches names anywhere, "
        "`cache/*` paths inside the folder",
    )
    compression_level: CompressionLevel = 3
    label: _Label = "default"
    retention: _Rules = None
    max_age: _Age = timedelta(hours=26)

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute() or path == path.parent:
            raise ValueError("must be an absolute path, and not / itself")
        return path

    @field_validator("lock")
    @classmethod
    def _absolute_or_none(cls, lock: str) -> str:
        if lock and not Path(lock).is_absolute():
            raise ValueError("must be an absolute path, or empty")
        return lock

    @field_validator("exclude")
    @classmethod
    def _relative(cls, exclude: list[str]) -> list[str]:
        for pattern in exclude:
            parts = pattern.split("/")
            if pattern.startswith("/") or {"", ".", ".."} & set(parts):
                raise ValueError(
                    f"{pattern!r} must be a name or a path inside the folder, "
                    "without . and .. and without a slash at either end"
                )
        return exclude

    @property
    def lock_path(self) -> Path | None:
        """The service's lock, if one is named."""
        return Path(self.lock) if self.lock else None
