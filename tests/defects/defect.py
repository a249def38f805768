"""Defect: one way in which a service is broken, as a change of its source."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SERVICE = Path(__file__).resolve().parents[2] / "examples" / "service"
# Python compiles again what is changed, by its time and size, and only that.
_LEFT_OUT = shutil.ignore_patterns("tests", ".env", "*.log")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A passage of a file that is replaced; it must stand there exactly once."""

    file: str
    old: str
    new: str

    def apply(self, folder: Path) -> None:
        """Change the file in this copy of the service."""
        path = folder / self.file
        source = path.read_text()
        if (times := source.count(self.old)) != 1:
            raise LookupError(f"{self.file} holds {times} times {self.old!r}")
        path.write_text(source.replace(self.old, self.new))


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One way in which a team breaks its service, and the probe that must notice it.

    `settings` are those of the service that it is seen with, and `configuration` what is
    replaced in the example's opskit.toml for them. One that only a restart shows
    `restarts` the service after the probe was asked once.
    """

    name: str
    what: str
    probe: str
    edits: tuple[Edit, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, str] = field(default_factory=dict)
    restarts: bool = False

    @property
    def family(self) -> str:
        """The family of the probe."""
        return self.probe.partition(".")[0]

    def plant(self, folder: Path) -> None:
        """Give this defect to a copy of the service."""
        for edit in self.edits:
            edit.apply(folder)


def copy(folder: Path) -> None:
    """Make a copy of the service as it is."""
    shutil.copytree(SERVICE, folder, ignore=_LEFT_OUT, dirs_exist_ok=True)


class Planted(Protocol):
    """Makes a defect out of one passage of a file and another in its place."""

    def __call__(
        self, name: str, old: str, new: str, *, probe: str, what: str
    ) -> Defect:
        """Return the defect."""


def planted_in(file: str) -> Planted:
    """Return what makes defects of one file of the service."""

    def make(name: str, old: str, new: str, *, probe: str, what: str) -> Defect:
        edits = (Edit(file=file, old=old, new=new),)
        return Defect(name=name, what=what, probe=probe, edits=edits)

    return make
