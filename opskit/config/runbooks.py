"""The settings of runbooks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from opskit import files
from opskit.config.section import Duration, Section


class RunbooksSettings(Section):
    """Where runbooks lie, and how `runbook` walks through one."""

    folder: Path | None = Field(
        default=None,
        description="the folder with the runbooks, relative to the configuration's; "
        "by default `runbooks` beside the configuration if there is one, else those "
        "that come with opskit",
    )
    operator: str = Field(
        default="",
        description="who is recorded as the operator; empty: the login name",
    )
    second_person: bool = Field(
        default=False,
        description="whether a step that destroys something needs the name of a second "
        "person, which is recorded",
    )
    step_timeout: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(seconds=1),
        description="with `--yes`, a command that takes longer is ended, and has "
        "failed",
    )

    @property
    def place(self) -> Path:
        """The folder with the runbooks."""
        return self.folder or files.documents() / "runbooks"

    @property
    def files(self) -> list[Path]:
        """The files of the runbooks."""
        return sorted(e for e in self.place.glob("*.md") if e.name != "README.md")

    def beside(self, base: Path) -> RunbooksSettings:
        """Return them with their folder as the configuration in `base` means it."""
        folder = base / (self.folder or "runbooks")
        if self.folder is None and not folder.is_dir():
            return self
        return self.model_copy(update={"folder": folder})
