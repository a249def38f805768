"""A service that keeps its state in files, and `./inv` run beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opskit.backup.create import create_backup
from opskit.folders.backup import FolderSource
from opskit.store import LocalStore, Store
from tests.acceptance.conftest import Project
from tests.unit.files_sets import differences, dump

# Rules by which nothing stays but what a test is about.
KEEP_ONE = """\
[retention]
keep_last = 1
keep_within = "0s"
keep_daily = 0
keep_weekly = 0
keep_monthly = 0
min_keep = 1
"""


@dataclass
class Service(Project):
    """A working directory with a folder of state and stores beside it."""

    url: str = ""

    @property
    def state(self) -> Path:
        """The folder that is backed up."""
        return self.folder / "state"

    def store_at(self, name: str = "local") -> LocalStore:
        """Return the local store of this name."""
        return LocalStore(name, self.folder / name)

    def set_up(
        self, more: str = "", *, stores: Sequence[str] = ("local",), of_state: str = ""
    ) -> None:
        """Write a configuration with the folder and local stores, and make these."""
        for each in ("state", *stores):
            (self.folder / each).mkdir(parents=True, exist_ok=True)
        sections = [
            f'[stores.{each}]\nurl = "{(self.folder / each).as_uri()}"\n'
            for each in stores
        ]
        (self.folder / "opskit.toml").write_text(
            f"[files.state]\npath = {json.dumps(str(self.state))}\n{of_state}\n"
            + "".join(sections)
            + more
        )

    def fill(self, **contents: str) -> None:
        """Write files of the state."""
        self.state.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (self.state / name).write_text(content)

    def back_up_at(
        self, times: Iterable[datetime], stores: Sequence[Store] | None = None
    ) -> list[str]:
        """Back the state up as if it were these times, and return the sets' ids."""
        return [
            create_backup(
                FolderSource(name="state", path=self.state),
                [self.store_at()] if stores is None else stores,
                run_id=f"{number:06x}",
                state_dir=self.folder / ".opskit",
                clock=lambda time=time: time,  # type: ignore[misc]
            ).manifest.backup_id
            for number, time in enumerate(times)
        ]

    def back_up(self, *arguments: str) -> str:
        """Run `backup`, and return the id of the one set that it made."""
        (made,) = self.json("backup", "--files", "state", *arguments)["backups"]
        return str(made["backup_id"])

    def proofs(self) -> dict[str, str]:
        """Return what is proved of each set, newest first."""
        return {e["backup_id"]: e["proof"] for e in self.json("backups")["backups"]}


def equal(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same, modes and times included."""
    return differences(one, dump(other)) == {}


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def archive_in(store: Path, backup_id: str = "*") -> Path:
    """Return the archive of a set of files in a local store."""
    (found,) = store.glob(f"state/*/{backup_id}/files.tar.zst")
    return found
