"""Project: a repository that `init` made, its service, database, store and machine."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opskit.postgres.parameters import parse
from opskit.store.s3.client import make_client
from tests import s3_servers
from tests.act.machine import Machine
from tests.defects.defect import copy
from tests.releases import campaign, versions
from tests.releases.site import Ground, Site
from tests.releases.versions import Version
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from tests.support import execute

_SECONDS_MAX = 300
_PASSWORD = "kept in a secret"
_CREDENTIALS = f"""\
[default]
aws_access_key_id = {ACCESS_KEY}
aws_secret_access_key = {SECRET_KEY}
"""
_LOCAL = """
deployer = "local"
[release.local]
folder = "{folder}"
start = {{start}}
prepare = ["sh", "-c", 'cp -Rp "$GITHUB_WORKSPACE/app/." .']
"""
# What a user adds to each workflow: a key that the probes need.
_ADDED = """\
          OPSKIT_SMOKE__KEYS__WRITER__FILE: ${{ secrets.SMOKE_KEY }}
"""
_AFTER = """\
          AWS_SHARED_CREDENTIALS_FILE: ${{ secrets.AWS_SHARED_CREDENTIALS_FILE }}
"""
_TEST = """\
from pathlib import Path


def test_the_migrations_are_there():
    assert Path("app/alembic.ini").exists()
"""


@dataclass(frozen=True, kw_only=True)
class Project:
    """The repository, the site on which its service runs, and where its sets go."""

    repository: Path
    site: Site
    machine: Machine
    server: S3Server
    prefix: str
    ground: Ground

    @contextlib.contextmanager
    def staging(self) -> Iterator[Site]:
        """Have a second site for a block, which releases go to before this one."""
        with self.ground.site() as site:
            text = (self.repository / "opskit.toml").read_text()
            ours, theirs = parse(self.site.url)["dbname"], parse(site.url)["dbname"]
            path = self.repository / "opskit.staging.toml"
            written = text.partition("[smoke]")[0].replace(ours, theirs)
            path.write_text(written + _service_of(site))
            yield site

    def check_in(self, version: Version) -> None:
        """Commit a version of the service."""
        app = self.repository / "app"
        shutil.rmtree(app, ignore_errors=True)
        copy(app)
        version.apply(app)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change the service")

    def await_start(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until version 2 was started."""
        deadline = time.monotonic() + _SECONDS_MAX
        while not (self.site.folder / "releases" / "2" / "started").exists():
            assert process.poll() is None, self.machine.log
            assert time.monotonic() < deadline, self.machine.log
            time.sleep(0.05)

    @property
    def running(self) -> tuple[str, str]:
        """The version that answers, and the newest migration of the database."""
        return self.site.version, self.site.schema

    def git(self, *arguments: str) -> None:
        """Run git in the repository."""
        who = ("-c", "user.name=ops", "-c", "user.email=ops@example.com")
        command = ["git", *who, *arguments]
        subprocess.run(command, cwd=self.repository, check=True, timeout=60)

    def stored(self, under: str = "") -> list[str]:
        """Return the names of the objects in the store."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=BUCKET, Prefix=f"{self.prefix}/{under}"
            )
            found = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return [name.removeprefix(f"{self.prefix}/") for name in found]

    @contextlib.contextmanager
    def damaged(self) -> Iterator[None]:
        """Have another byte in the dump of the set for a block."""
        (name,) = [each for each in self.stored("service/") if "dump" in each]
        where = {"Bucket": BUCKET, "Key": f"{self.prefix}/{name}"}
        with self._client() as client:
            whole = client.get_object(**where)["Body"].read()
            client.put_object(**where, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
            try:
                yield
            finally:
                client.put_object(**where, Body=whole)

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in s3_servers.environment().items():
                patch.setenv(name, value)
            client = make_client(self.server.settings(BUCKET))
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """Yield the ground of the releases; its server asks `ops` for a password."""
    with campaign.ground(drilled=False) as made:
        execute(
            made.server.url(), f"CREATE ROLE ops SUPERUSER LOGIN PASSWORD '{_PASSWORD}'"
        )
        hba = made.server.folder / "data" / "pg_hba.conf"
        hba.write_text("host all ops 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        execute(made.server.url(), "SELECT pg_reload_conf()")
        yield made


@contextlib.contextmanager
def project(ground: Ground, server: S3Server) -> Iterator[Project]:
    """Yield a project whose service runs in version 1, and whose store is empty."""
    with ground.site() as site, tempfile.TemporaryDirectory(prefix="act-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server of a drill runs as a user of its own
        repository = folder / "repository"
        repository.mkdir()
        machine = Machine(
            folder=folder / "machine",
            repository=repository,
            secrets={
                "PGPASSFILE": f"*:*:*:ops:{_PASSWORD}\n",
                "AWS_SHARED_CREDENTIALS_FILE": _CREDENTIALS,
                "SMOKE_KEY": ground.keys["writer"],
            },
        )
        machine.prepare()
        made = Project(
            repository=repository,
            site=site,
            machine=machine,
            server=server,
            prefix=folder.name,
            ground=ground,
        )
        made.git("init", "--quiet", "--initial-branch", "main")
        made.git("remote", "add", "origin", "https://github.com/acme/shop")
        _initialise(made)
        made.check_in(versions.SAME)
        yield made


def _initialise(project: Project) -> None:
    """Let `init` write the repository, and change what its user would."""
    site, repository = project.site, project.repository
    name = parse(site.url)["dbname"]
    url = f"postgresql://ops@127.0.0.1:{site.server_port}/{name}"
    subprocess.run(
        [
            project.machine.python / "bin" / "opskit", "init", "--yes",
            "--database", f"service={url}",
            "--store", f"s3://{BUCKET}/{project.prefix}",
            "--endpoint", project.server.endpoint_url,
            "--deployer", "command",
            "--run", "github",
        ],
        cwd=repository,
        env={"PATH": site.environment["PATH"]},
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    path = repository / "opskit.toml"
    written = path.read_text().partition("[smoke]")[0]
    path.write_text(written + _service_of(site))
    (repository / "test_app.py").write_text(_TEST)
    for workflow in (repository / ".github" / "workflows").iterdir():
        text = workflow.read_text()
        workflow.write_text(text.replace(_AFTER, _AFTER + _ADDED))


def _service_of(site: Site) -> str:
    """Return the sections about the service of a site."""
    site.configure(deployer=_LOCAL.format(folder=site.folder))
    text = (site.folder / "opskit.toml").read_text()
    # Here the speed of a busy machine is not what is tried.
    text = text.replace('p95 = "2s"', 'p95 = "60s"')
    settings = " ".join(
        f"{name}={shlex.quote(each)}"
        for name, each in site.environment.items()
        if name.startswith("SERVICE_")
    )
    begin = "SERVICE_VERSION="
    return "[smoke]" + text.partition("[smoke]")[2].replace(
        begin, f"{settings} {begin}"
    )
