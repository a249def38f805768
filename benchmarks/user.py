"""opskit as its user has it: a folder with a configuration, and commands run in it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opskit.postgres.servers.programs import Installation

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "bench"


@dataclass(frozen=True, kw_only=True)
class User:
    """A folder with an `opskit.toml`, its store and its state."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """The folder of the store, where that is one."""
        return self.folder / "store"

    def command(self, *arguments: str) -> list[str]:
        """Return how `inv` calls opskit once its environment stands."""
        return [sys.executable, "-m", "opskit", *arguments]

    def forget(self) -> None:
        """Remove the sets and the state of earlier runs."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.rmtree(self.folder / ".opskit", ignore_errors=True)
        self.store.mkdir()


@dataclass(frozen=True, kw_only=True)
class S3Place:
    """A bucket on a server, and who may write there."""

    bucket: str
    endpoint_url: str
    environment: dict[str, str]


def make_user(
    folder: Path,
    *,
    url: str,
    installation: Installation,
    jobs: int,
    s3: S3Place | None = None,
    recipient: str = "",
    options: Mapping[str, int] | None = None,
) -> User:
    """Write a configuration and return whose it is; `options` are the database's."""
    folder.mkdir(parents=True)
    temporary = folder / "temporary"
    temporary.mkdir()
    # A drill's server runs as another user where opskit runs as root.
    temporary.chmod(0o1777)
    environment = plain_environment(folder) | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(temporary),
    }
    if s3 is not None:
        environment |= s3.environment
    made = User(folder=folder, environment=environment)
    made.store.mkdir()
    own = "\n".join(f"{name} = {value}" for name, value in (options or {}).items())
    text = f"""\
[databases.{SOURCE}]
url = {json.dumps(url)}
{own}
{_store(made, s3)}
[postgres]
bin_dirs = [{json.dumps(str(installation.bin_dir))}]
[drill]
mutants = 0
jobs = {jobs}
work_dir = {json.dumps(str(temporary))}
"""
    if recipient:
        text += f"[encryption]\nrecipients = [{json.dumps(recipient)}]\n"
    (folder / "opskit.toml").write_text(text)
    return made


def plain_environment(folder: Path) -> dict[str, str]:
    """Return an environment that says nothing but where programs are."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _store(user: User, s3: S3Place | None) -> str:
    if s3 is None:
        return f"[stores.local]\nurl = {json.dumps(user.store.as_uri())}"
    return f"""\
[stores.s3]
url = "s3://{s3.bucket}/opskit"
endpoint_url = {json.dumps(s3.endpoint_url)}
region = "us-east-1"
addressing = "path\""""
