"""A user's folder with a configuration, and `./inv` run in it as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from opskit import config
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import begin
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers.throwaway import Server
from tests import initialised, processes
from tests.conftest import MajorServer, MakeDatabase
from tests.sample import SAMPLE
from tests.support import execute

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
        """Run `./inv` to its end, expect its exit code, return standard output.

        It is a process of its own, and in a new interpreter where that has settings.
        """
        if "PYTHONPATH" in self.environment:
            process = self.start(*arguments)
            output, errors = process.communicate(timeout=_SECONDS_MAX)
            ended = process.returncode
        else:
            environment = {"PATH": os.environ["PATH"], **self.environment}
            ended, output, errors = processes.run_inv(
                self.folder, arguments, environment
            )
        assert ended == code, f"{ended}: {output}\n{errors}"
        assert "Traceback" not in output + errors
        self.errors = errors
        if code and arguments[0] in ("verify", "restore-drill"):
            # Of two pieces of evidence of one second the failed one counts as the later.
            time.sleep(1 - time.time() % 1)
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


@dataclass(frozen=True, kw_only=True)
class Template:
    """A project whose newest set was drilled, and its database, both to be copied."""

    project: Project
    server: Server
    database: str

    def copy(self, folder: Path, name: str) -> Project:
        """Return a project like it in a folder, with a database of its own."""
        made = Project(folder=folder, url=self.server.url(name))
        execute(
            self.server.url(),
            f"CREATE DATABASE {quoted(name)} TEMPLATE {quoted(self.database)}",
        )
        shutil.copytree(self.project.folder, folder)
        made.configure()
        return made


@pytest.fixture(scope="session")
def drilled(
    server_of: MajorServer, tmp_path_factory: pytest.TempPathFactory
) -> Template:
    """A sample database with one set, which was drilled."""
    server, name = server_of(16), "drilled template"
    folder = tmp_path_factory.mktemp("drilled")
    project = Project(folder=folder, url=server.url(name))
    project.store.mkdir()
    project.configure()
    execute(server.url(), f"CREATE DATABASE {quoted(name)} IS_TEMPLATE true")
    with connect(project.url, purpose="test") as connection:
        database.run_script(connection, SAMPLE)
    settings = config.load(folder / "opskit.toml")
    assert not backup(begin(settings), BackupRequest(database="shop")).errors
    with initialised.copied():
        proved = drill(begin(settings), RestoreDrillRequest(database="shop"))
    assert proved.result is not None
    assert proved.result.evidence.passed
    return Template(project=project, server=server, database=name)


@pytest.fixture
def drilled_project(drilled: Template, tmp_path: Path) -> Iterator[Project]:
    """A configured folder whose newest set was drilled already."""
    name = f"drilled {tmp_path.name}"
    yield drilled.copy(tmp_path / "service", name)
    with connect(drilled.server.url(), purpose="test") as connection:
        database.drop(connection, name)
