"""`init` in a repository of somebody else, and the whole life there afterwards."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import processes, s3_servers
from tests.conftest import MakeDatabase
from tests.s3_servers import BUCKET, S3Server

PROGRAMS = Path(sys.executable).parent
_OWN_TASKS = '''\
"""Tasks of a service."""

from invoke import Collection, task


@task
def backup(context):
    """Back up what is not in the database."""
    print("my own backup")


'''
# As a file may be that has no collection, or one by either name that Invoke knows.
_COLLECTIONS = {
    "none": "",
    "ns": "ns = Collection(backup)\n",
    "namespace": "namespace = Collection(backup)\n",
}
_SECONDS_MAX = 180
_NONE: Mapping[str, str] = {}


def inv(folder: Path, *words: str, code: int = 0) -> str:
    """Run `./inv` in a folder, expect its exit code, return what it printed."""
    ended, output, errors = processes.run_inv(
        folder, words, {"PATH": os.environ["PATH"]}
    )
    assert ended == code, output + errors
    assert "Traceback" not in output + errors
    return output + errors


def program(
    folder: Path, *words: str, code: int = 0, variables: Mapping[str, str] = _NONE
) -> str:
    """Run a program of the environment in a folder, return its standard output."""
    done = subprocess.run(
        [PROGRAMS / words[0], *words[1:]],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(processes.ROOT),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def document(output: str) -> dict[str, Any]:
    """Return the one document in an output."""
    read = json.loads(output)
    assert isinstance(read, dict)
    return read


def repository(folder: Path) -> Path:
    """Return a new repository of Git."""
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


def live(folder: Path, prefix: str = "") -> None:
    """Go the whole way: first by plain Invoke, then by `./inv`."""

    def invoked(task: str) -> dict[str, Any]:
        return document(program(folder, "invoke", prefix + task, "--json"))

    def run(task: str) -> dict[str, Any]:
        return document(inv(folder, task, "--json"))

    assert invoked("doctor")["status"] == "healthy"
    (backup,) = invoked("backup")["backups"]
    drill = invoked("restore-drill")
    assert (drill["passed"], drill["backup_id"]) == (True, backup["backup_id"])
    (listed,) = run("backups")["backups"]
    assert listed["proof"] == "drilled"
    assert [each["backup_id"] for each in run("prune")["keep"]] == [backup["backup_id"]]
    assert run("status")["status"] == "healthy"
    assert len(run("runbook")["runbooks"]) == 8
    ignored = subprocess.run(
        ["git", "-C", folder, "status", "--porcelain", "--untracked-files=all"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ".opskit/" not in ignored.stdout
    assert "sets/" not in ignored.stdout


def test_the_whole_life_in_an_empty_repository(
    tmp_path: Path, make_database: MakeDatabase
) -> None:
    """By plain Invoke, with the tasks.py that was written."""
    folder = repository(tmp_path / "service")
    flags = ("--store", "sets", "--database", f"shop={make_database(16)}")

    refused = inv(folder, "init", *flags, code=2)
    assert "--yes" in refused
    assert os.listdir(folder) == [".git"]
    said = inv(folder, "init", *flags, "--yes")

    assert "made " in said
    assert (folder / "sets").stat().st_mode & 0o777 == 0o700
    live(folder)
    assert "nothing was changed" in inv(folder, "init", *flags)
    assert "--config" in inv(folder, "--config", "other.toml", "init", *flags, code=2)
    more = (*flags, "crm=postgresql:///crm")
    assert '+url = "postgresql:///crm"' in inv(folder, "init", "--diff", *more)
    planned = document(inv(folder, "init", "--diff", "--json", *more))
    assert planned["status"] == "planned"
    told = document(inv(folder, "init", "--json", "--force", *more))
    assert {"path": "opskit.toml", "state": "overwritten"} in told["files"]
    assert (told["status"], told["new_store"]) == ("ok", None)


@pytest.mark.parametrize("kind", _COLLECTIONS)
def test_own_tasks_get_those_of_opskit_by_the_lines_that_init_shows(
    kind: str, tmp_path: Path, make_database: MakeDatabase
) -> None:
    """A file with tasks is left alone; with these lines it has both."""
    folder = repository(tmp_path / "service")
    tasks = folder / "tasks.py"
    tasks.write_text(_OWN_TASKS + _COLLECTIONS[kind])

    said = inv(
        folder,
        "init",
        "--database",
        f"shop={make_database(16)}",
        "--store",
        "sets",
        "--yes",
    )

    assert re.search(r"^kept +tasks\.py$", said, re.MULTILINE)
    assert tasks.read_text() == _OWN_TASKS + _COLLECTIONS[kind]
    lines = re.findall(r"^    (.+)$", said, re.MULTILINE)
    assert len(lines) == 3
    tasks.write_text(tasks.read_text() + "\n".join(lines) + "\n")
    assert program(folder, "invoke", "backup") == "my own backup\n"
    assert "`opskit backups`" in program(
        folder, "invoke", "opskit.verify", "--backup", "x", code=2
    )
    if kind == "none":
        live(folder, "opskit.")
    again = inv(folder, "init", "--database", "shop=postgresql:///x", "--store", "sets")
    assert "invoke.Collection" not in again


def test_a_store_in_a_bucket_needs_no_more_than_its_credentials(
    tmp_path: Path, make_database: MakeDatabase, seaweedfs: S3Server
) -> None:
    """They come from the environment; then all that doctor examines is as it should be."""
    folder, patched = repository(tmp_path / "service"), tmp_path / "patched"
    patched.mkdir()
    call = (
        "init",
        f"--database=shop={make_database(16)}",
        f"--store=s3://{BUCKET}/initialised",
        f"--endpoint={seaweedfs.endpoint_url}",
        "--deployer=command",
        "--run=github",
    )
    shown = inv(folder, *call, "--diff")
    inv(folder, *call)

    subprocess.run(
        ["git", "apply"],
        cwd=patched,
        input=shown,
        text=True,
        check=True,
    )
    compared = subprocess.run(
        ["diff", "--recursive", "--exclude=.git", folder, patched],
        capture_output=True,
        text=True,
    )
    assert compared.stdout == ""
    own = 'url = "postgresql://ops:secret99@db/shop"'
    (patched / "opskit.toml").write_text(f"[databases.shop]\n{own}\n")
    assert f"-{own.replace('secret99', '***')}\n" in inv(patched, *call, "--diff")
    examined = program(folder, "invoke", "doctor", variables=s3_servers.environment())

    assert "workflow backup.yml: databases: it backs up shop" in examined
    assert "note      workflow backup.yml: heartbeats: nobody notices" in examined
    assert "store offsite" in examined


def _answered(folder: Path, answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Type answers on a terminal, each once its question is there."""
    terminal, side = pty.openpty()
    with subprocess.Popen(
        [PROGRAMS / "python", "-m", "opskit", "init"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(processes.ROOT)},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    ) as process:
        os.close(side)
        try:
            said, left, until = "", list(answers), time.monotonic() + _SECONDS_MAX
            while time.monotonic() < until:
                if left and re.search(left[0][0], said.rpartition("\n")[2]):
                    os.write(terminal, f"{left.pop(0)[1]}\n".encode())
                    said += "\n"
                if not select.select([terminal], [], [], 0.1)[0]:
                    continue
                try:
                    said += os.read(terminal, 65536).decode().replace("\r\n", "\n")
                except OSError:  # the other side is closed
                    break
            assert not left, said
            return process.wait(_SECONDS_MAX), said
        finally:
            process.send_signal(signal.SIGKILL)
            os.close(terminal)


def test_answers_are_typed_on_a_terminal(tmp_path: Path) -> None:
    """It asks for what is missing, again where an answer cannot be, and once for consent."""
    code, said = _answered(
        tmp_path,
        [
            ("A database .*: $", "shop=postgresql://ops:secret99@db/shop"),
            ("A database .*: $", "shop=postgresql://ops@db/shop"),
            ("A database .*: $", ""),
            ("A folder .*: $", ""),
            ("Where .*: $", "sets"),
            ("deployed.*: $", "heroku"),
            ("deployed.*: $", ""),
            ("What runs .*: $", "scheduler"),
            ("does not exist.*: $", "Yes"),
        ],
    )

    assert code == 0, said
    assert "holds a password" in said
    assert "deployer cannot be 'heroku'" in said
    assert 'url = "postgresql://ops@db/shop"' in (tmp_path / "opskit.toml").read_text()
    assert (tmp_path / "sets").is_dir()
    assert not (tmp_path / ".github").exists()
