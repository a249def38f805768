"""The settings of directories that are backed up: state files of a service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from opskit.config.section import CompressionLevel, Count, Duration, Section

_NONE = timedelta(0)
_RULES = ("keep_last", "keep_within", "keep_daily", "keep_weekly", "keep_monthly")


class SourceRetention(Section):
    """The rules of one source, instead of the general ones; what is left out is 0."""

    keep_last: Count = Field(default=0, description="the newest N sets")
    keep_within: Duration = Field(
        default=_NONE, description="every set younger than this"
    )
    keep_daily: Count = Field(default=0, description="the newest set of each of N days")
    keep_weekly: Count = Field(default=0, description="the same for ISO weeks")
    keep_monthly: Count = Field(default=0, description="the same for months")
    min_keep: Count = Field(
        default=2,
        ge=1,
        description="never fewer good sets than this, whatever the rest says",
    )


class RetentionSettings(Section):
    """Which sets are kept: a set stays if any rule keeps it.

    The values shown are those of a section that names no `keep_*`; naming any of them
    sets the others to 0.
    """

    keep_last: Count = Field(default=7, description="the newest N sets")
    keep_within: Duration = Field(
        default=timedelta(days=30), description="every set younger than this"
    )
    keep_daily: Count = Field(
        default=30, description="the newest set of each of N days"
    )
    keep_weekly: Count = Field(default=8, description="the same for ISO weeks")
    keep_monthly: Count = Field(default=12, description="the same for months")
    min_keep: Count = Field(
        default=2,
        ge=1,
        description="never fewer good sets than this, whatever the rest says",
    )
    require_drill: bool = Field(
        default=False,
        description="delete a set only if a newer one has passed a drill",
    )
    max_drop: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="a set whose rows, in all or in one table, or whose size fell by a "
        "larger share than this, or that lacks a table, stops `prune` until somebody "
        "has confirmed it; 1: only a table that is gone does",
    )
    ignore_drop: list[str] = Field(
        default=[],
        description="tables, as `schema.name` with `*`, that may empty at any time, "
        "such as queues",
    )

    @model_validator(mode="before")
    @classmethod
    def _named_rules_alone(cls, given: Any) -> Any:
        if isinstance(given, dict) and any(rule in given for rule in _RULES):
            return dict.fromkeys(_RULES, 0) | {"keep_within": _NONE} | given
        return given


class FilesSettings(Section):
    """One directory of state files that is backed up."""

    path: Path = Field(description="the directory; an absolute path")
    schedule: str = Field(default="", description="cron timetable of the backup")
    lock: str = Field(
        default="",
        description="the file that the service locks while it writes; the backup takes "
        "the same lock. Empty: files are read as they come",
    )
    lock_kind: Literal["flock", "fcntl"] = Field(
        default="flock",
        description="`flock`: what filelock and flock(1) take; `fcntl`: record locks, "
        "what lockf takes",
    )
    lock_wait: Duration = Field(
        default=timedelta(seconds=30),
        description="how long the backup may wait for the service's lock",
    )
    exclude: list[str] = Field(
        default=[],
        description="patterns of what to leave out: `*.tmp` by name anywhere, "
        "`cache/*` by the path inside of the directory",
    )
    compression_level: CompressionLevel = 3
    retention: SourceRetention | None = Field(
        default=None, description="rules of its own instead of `[retention]`"
    )
    max_age: Duration = Field(
        default=timedelta(hours=26),
        description="a newest set older than this is unhealthy",
    )

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
                    f"{pattern!r} must be a name or a path inside of the directory, "
                    "without . and .. and without a slash at either end"
                )
        return exclude

    @property
    def lock_path(self) -> Path | None:
        """The service's lock, if one is named."""
        return Path(self.lock) if self.lock else None
