"""The settings of directories that are backed up: state files of a service."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from opskit.config.retention import SourceRetention
from opskit.config.section import Section
from opskit.config.types import CompressionLevel, Duration


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
