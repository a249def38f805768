"""A host on which the example service runs, with opskit beside it and a drilled set."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from opskit import config
from opskit.operations.backup import BackupRequest, backup
from opskit.operations.drill import RestoreDrillRequest, drill
from opskit.operations.run import begin
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.parameters import parse
from opskit.postgres.servers.throwaway import Server
from opskit.release import processes
from tests import initialised
from tests.defects.defect import SERVICE, copy
from tests.integration.test_connecting import pooled
from tests.ports import free_port
from tests.releases.versions import Version
from tests.support import execute, value

_SECONDS_MAX = 300
TEMPLATE = "releases_template"
_numbers = itertools.count(1)
_SLEEPING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND query LIKE '%pg_sleep%' AND wait_event = 'PgSleep'
"""
# A column that no version uses, and some rows.
_ROWS = """
ALTER TABLE public.tasks ADD legacy text;
INSERT INTO public.tasks (owner_id, title) SELECT id, 'before ' || n
FROM public.accounts, generate_series(1, 500) n WHERE name = 'writer'
"""
_CONFIGURATION = """\
[databases.service]
url = {url}
[stores.local]
url = {store}
[smoke]
url = "http://127.0.0.1:{port}"
deadline = "{deadline}"
timeout = "5s"
connections = 2
[smoke.keys]
writer = {{ file = "writer" }}
[smoke.health]
path = "/health"
services = ["database"]
[smoke.lists.tasks]
path = "/api/tasks"
key = "writer"
total = "total"
limit = "limit"
[smoke.pagination]
lists = ["tasks"]
[smoke.latency]
path = "/api/tasks"
key = "writer"
requests = 100
gating = true
[slo]
latency = {{ p95 = "2s" }}
error_rate = 0.01
[release]
{release}
{deployer}
[release.migrations]
tool = "alembic"
config = "app/alembic.ini"
database = "service"
url_variable = "SERVICE_DATABASE_URL"
lock_timeout = "1s"
lock_attempts = 2
statement_timeout = "60s"
"""
LOCAL = """
deployer = "local"
[release.local]
start = {start}
prepare = ["cp", "-Rp", "../../app/.", "."]
"""


@dataclass
class Site:
    """A folder with the checkout `app`, releases, a configuration, and a database."""

    folder: Path
    url: str
    port: int
    server_port: int
    codes: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def _service(self) -> list[str]:
        run = f"exec {sys.executable} -m service serve --port {self.port}"
        return ["sh", "-c", f"SERVICE_VERSION=$OPSKIT_VERSION {run}"]

    @property
    def environment(self) -> dict[str, str]:
        """The settings of the service."""
        return {
            "PATH": os.environ["PATH"],
            "TMPDIR": tempfile.gettempdir(),
            "PYTHONPATH": str(SERVICE.parents[1]),
            "SERVICE_DATABASE_URL": self.url,
            "SERVICE_RATE_LIMIT": "100000/minute",
            "SERVICE_STATE_DIR": str(self.folder / "state"),
        }

    def configure(
        self,
        *,
        url: str = "",
        deployer: str = LOCAL,
        release: str = "",
        deadline: str = "20s",
    ) -> None:
        """Write the configuration, with more in its section `[release]`."""
        (self.folder / "opskit.toml").write_text(
            _CONFIGURATION.format(
                url=json.dumps(url or self.url),
                store=json.dumps((self.folder / "store").as_uri()),
                port=self.port,
                deadline=deadline,
                release=release,
                deployer=deployer.format(start=json.dumps(self._service)),
            )
        )

    def check_out(self, version: Version) -> None:
        """Have `app` hold a version, as a checkout does."""
        app = self.folder / "app"
        shutil.rmtree(app)
        copy(app)
        version.apply(app)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start opskit."""
        return subprocess.Popen(
            [sys.executable, "-m", "opskit", *arguments, "--json"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for its end, keep the exit code, and return its document."""
        output, errors = process.communicate(timeout=_SECONDS_MAX)
        self.codes.append(process.returncode)
        assert "Traceback" not in output + errors, errors
        if process.returncode < 0:
            return {}
        document: dict[str, Any] = json.loads(output)
        self.errors.append(document.get("error", ""))
        return document

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run opskit to its end."""
        return self.end(self.start(*arguments))

    def await_step(self, process: subprocess.Popen[str], step: str) -> None:
        """Wait until a step of a release has begun."""
        self.await_record(process, f'"state": "begun", "step": "{step}"')

    def await_record(self, process: subprocess.Popen[str], words: str) -> None:
        """Wait until the ledger holds some words that it did not hold before."""
        ledger = self.folder / ".opskit" / "ledger.jsonl"
        deadline = time.monotonic() + _SECONDS_MAX
        while words not in ledger.read_text():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def serve(self) -> None:
        """Start version 1, as a release of it does."""
        processes.start(
            self._service,
            folder=self.folder / "releases" / "1",
            record=self.folder / "processes" / "1",
            log=self.folder / "service.log",
            variables={**self.environment, "OPSKIT_VERSION": "1"},
        )

    def stop(self) -> None:
        """End whichever version runs."""
        for record in (self.folder / "processes").iterdir():
            if process := processes.read(record):
                process.stop(0)

    def await_answer(self) -> None:
        """Wait until the service is ready."""
        deadline = time.monotonic() + 60
        while not self.version:
            assert time.monotonic() < deadline, (
                self.folder / "service.log"
            ).read_text()
            time.sleep(0.05)

    def await_migration(self, process: subprocess.Popen[Any]) -> None:
        """Wait until a migration sleeps in the database."""
        deadline = time.monotonic() + _SECONDS_MAX
        while not value(self.url, _SLEEPING):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @contextlib.contextmanager
    def database_away(self) -> Iterator[None]:
        """Refuse everybody the database, and end all connections, for a block."""
        name = parse(self.url)["dbname"]
        server = self.url.replace(name, "postgres")
        execute(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            execute(
                server,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{name}'",
            )
            yield
        finally:
            execute(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    @contextlib.contextmanager
    def pooled(self) -> Iterator[str]:
        """Yield the address of its database behind PgBouncer, by transactions."""
        settings = "pool_mode = transaction\nignore_startup_parameters = *"
        with pooled(self.server_port, settings) as url:
            yield url.replace("/postgres", "/" + parse(self.url)["dbname"])

    @property
    def version(self) -> str:
        """The version that answers; empty if none does."""
        with contextlib.suppress(urllib3.exceptions.HTTPError, KeyError, ValueError):
            answer = urllib3.request(
                "GET", f"http://127.0.0.1:{self.port}/health", retries=False, timeout=5
            )
            return str(answer.json()["version"])
        return ""

    @property
    def schema(self) -> str:
        """The newest migration that the database has."""
        return str(value(self.url, "SELECT version_num FROM public.alembic_version"))

    def lost(self, confirmed: Sequence[int]) -> int:
        """Return how many of these tasks are not there."""
        there = value(
            self.url,
            f"SELECT count(*) FROM public.tasks WHERE id = ANY ('{{{','.join(map(str, confirmed))}}}')",
        )
        return len(confirmed) - int(there)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What sites are copies of: made once, for it takes long."""

    folder: Path
    server: Server
    server_port: int
    keys: dict[str, str]

    @contextlib.contextmanager
    def site(self, name: str = "") -> Iterator[Site]:
        """Yield a site on which version 1 runs; its database may have a name."""
        number = next(_numbers)
        name, folder = name or f"releases_{number}", self.folder / f"site-{number}"
        create = f"CREATE DATABASE {quoted(name)} TEMPLATE {TEMPLATE}"
        execute(self.server.url(), create)
        shutil.copytree(self.folder / "template", folder, symlinks=True)
        site = Site(
            folder=folder,
            url=self.server.url(name),
            port=free_port(),
            server_port=self.server_port,
        )
        site.configure()
        try:
            site.serve()
            site.await_answer()
            yield site
        finally:
            site.stop()
            with connect(self.server.url(), purpose="test") as connection:
                database.drop(connection, name)
            shutil.rmtree(folder)


def make_ground(
    folder: Path, server: Server, server_port: int = 0, *, drilled: bool = True
) -> Ground:
    """Make a folder and a database of the service, with a set that was drilled."""
    template = folder / "template"
    for name in ("store", "state", "releases", "processes"):
        (template / name).mkdir(parents=True)
    copy(template / "app")
    copy(template / "releases" / "1")
    (template / "current").symlink_to("releases/1")
    execute(server.url(), f"CREATE DATABASE {TEMPLATE}")
    site = Site(folder=template, url=server.url(TEMPLATE), port=9, server_port=0)
    site.configure()
    migrated = site.run("migrate")
    assert migrated["status"] == "ok", migrated
    keys = {name: _create_key(site, name) for name in ("writer", "client")}
    with connect(site.url, purpose="test") as connection:
        database.run_script(connection, _ROWS)
    path = template / "writer"
    path.write_text(keys["writer"])
    path.chmod(0o600)
    if drilled:
        settings = config.load(template / "opskit.toml")
        assert not backup(begin(settings), BackupRequest(database="service")).errors
        with initialised.copied():
            assert not drill(begin(settings), RestoreDrillRequest()).errors
    return Ground(folder=folder, server=server, server_port=server_port, keys=keys)


def _create_key(site: Site, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "service", "create-key", name, "--role", "writer"],
        cwd=site.folder / "app",
        env=site.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_SECONDS_MAX,
        check=True,
    )
    return done.stdout.strip()
