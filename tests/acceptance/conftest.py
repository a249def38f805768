"""A user's folder with a configuration, and `./inv` run in it as a process."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeDatabase

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_MAX = 300


@dataclass
class Project:
    """A working directory in which a person runs opskit."""

    folder: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.folder / "store"

    def configure(self, more: str = "", *, url: str | None = None) -> None:
        """Write the configuration."""
        (self.folder / "opskit.toml").write_text(
            f"""\
[databases.shop]
url = {json.dumps(self.url if url is None else url)}
[stores.local]
url = {json.dumps(self.store.as_uri())}
{more}
"""
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `./inv` in the folder."""
        return subprocess.Popen(
            [ROOT / "inv", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run `./inv` to its end, expect its exit code, return standard output."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=_SECONDS_MAX)
        assert process.returncode == code, f"{process.returncode}: {output}\n{errors}"
        assert "Traceback" not in output + errors
        self.errors = errors
        return output

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run with `--json`; standard output must be exactly one document."""
        document = json.loads(self.run(*arguments, "--json", code=code))
        assert isinstance(document, dict)
        if code:
            assert code == document["code"]
            assert document["error"]
            assert document["hint"]
            assert "error: " in self.errors
            assert "hint: " in self.errors
        return document

    def files(self) -> list[str]:
        """Return every file of sets in the store, temporary ones included.

        The ledger's copies are left out: a run that fails is on record, too.
        """
        # os.walk passes over folders that a running backup removes meanwhile.
        return sorted(
            str((Path(folder) / name).relative_to(self.store))
            for folder, _folders, names in os.walk(self.store)
            for name in names
            if not Path(folder).is_relative_to(self.store / "_ledger")
        )


@pytest.fixture
def project(tmp_path: Path, make_database: MakeDatabase) -> Project:
    """A configured folder for a sample database on a real server."""
    made = Project(folder=tmp_path / "service", url=make_database(16))
    made.store.mkdir(parents=True)
    made.configure()
    return made
