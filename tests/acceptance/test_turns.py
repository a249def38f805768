"""Runs that make the set of one turn, on hosts that do not know of each other.

One is stopped, as a process, and goes on when another host has long had its turn.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from opskit.config.fleet import FleetSettings
from opskit.fleet.queue import init, session
from opskit.store.s3.client import make_client
from tests import s3_servers
from tests.acceptance.conftest import Project
from tests.conftest import MakeDatabase
from tests.s3_servers import BUCKET, S3Server
from tests.unit import stock

DUE = "2026-03-10T03:00:00Z"
# Stops itself right before it puts an object of this name.
STOPPING = """\
import os, signal, sys
from opskit.catalog import writer
put, name = writer.put_everywhere, sys.argv.pop(1)
def stop_and_put(stores, key, chunks):
    if key.endswith("/" + name):
        os.kill(os.getpid(), signal.SIGSTOP)
    return put(stores, key, chunks)
writer.put_everywhere = stop_and_put
from opskit.__main__ import main
sys.exit(main())
"""
SECONDS_MAX = 120


@contextmanager
def s3_client(server: S3Server) -> Iterator[Any]:
    """Yield a client of an S3 server."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_servers.environment().items():
            patch.setenv(name, value)
        client = make_client(server.settings(BUCKET))
        yield client
        client.close()


@dataclass
class Queue:
    """A queue with one job, which a worker is doing."""

    url: str
    job: int = 0
    attempt: int = 0
    worker: int = 0

    def __post_init__(self) -> None:
        with self._session() as connection:
            init(connection)
            (self.job,) = connection.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args)"
                " VALUES ('default', 'opskit', 'shop', '{}') RETURNING id"
            ).fetchone() or (0,)
        self.pass_on()

    def pass_on(self) -> None:
        """Let another worker have the job, as when the one before gives no sign."""
        with self._session() as connection:
            self.worker, self.attempt = connection.execute(
                "WITH new AS (INSERT INTO procrastinate_workers DEFAULT VALUES"
                " RETURNING id) UPDATE procrastinate_jobs SET status = 'doing',"
                " attempts = attempts + 1, worker_id = new.id FROM new"
                " RETURNING worker_id, attempts"
            ).fetchone() or (0, 0)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        settings = FleetSettings.model_validate({"url": self.url})
        with session(settings, "test") as connection:
            yield connection

    def turn(self, *, due: str = DUE) -> str:
        """Return what the worker tells the job's process."""
        fields = ("job", "attempt", "worker")
        return json.dumps({"due": due} | {name: getattr(self, name) for name in fields})


@dataclass
class Host(Project):
    """A machine of the fleet with a state folder of its own."""

    stopped: list[subprocess.Popen[str]] = field(default_factory=list)

    def back_up(self, turn: str, code: int = 0) -> dict[str, Any]:
        """Make the set of a turn."""
        self.environment["OPSKIT_TURN"] = turn
        return self.json("backup", "--database", "shop", code=code)

    def stop_before(self, name: str, turn: str) -> subprocess.Popen[str]:
        """Begin to make the set of a turn, until right before an object of it."""
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                STOPPING,
                name,
                "backup",
                "--database=shop",
                "--json",
            ],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]} | self.environment | {"OPSKIT_TURN": turn},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stopped.append(process)
        until = time.monotonic() + SECONDS_MAX
        status = Path(f"/proc/{process.pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        return process

    def go_on(self) -> tuple[int, dict[str, Any]]:
        """Let it go on, and return how it ended."""
        process = self.stopped.pop()
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=SECONDS_MAX)
        assert "Traceback" not in errors
        return process.returncode, json.loads(output)

    def kill(self) -> None:
        """End what is stopped."""
        while self.stopped:
            process = self.stopped.pop()
            process.kill()
            process.communicate()


@dataclass
class Fleet:
    """Hosts with a database and two stores, and the keys to sign and encrypt."""

    folder: Path
    url: str
    queue: Queue
    server: S3Server
    recipient: str
    signer: str
    hosts: dict[str, Host] = field(default_factory=dict)

    def host(self, name: str, *, queue: str | None = None) -> Host:
        """Return a host, set up when it is first asked for."""
        if name not in self.hosts:
            host = Host(
                folder=self.folder / name,
                url=self.url,
                environment=s3_servers.environment(),
            )
            host.folder.mkdir()
            (host.folder / "opskit.toml").write_text(self._configuration(queue))
            self.hosts[name] = host
        return self.hosts[name]

    def _configuration(self, queue: str | None) -> str:
        return f"""\
[databases.shop]
url = {json.dumps(self.url)}
[fleet]
url = {json.dumps(self.queue.url if queue is None else queue)}
[stores.near]
url = {json.dumps(self.near.as_uri())}
[stores.offsite]
url = "s3://{BUCKET}/{self.folder.name}"
endpoint_url = "{self.server.endpoint_url}"
region = "us-east-1"
[encryption]
identity_file = "{self.folder / "identity"}"
recipients = ["{self.recipient}"]
[signing]
key_file = "{self.folder / "signing"}"
trusted_keys = ["{self.signer}"]
"""

    @property
    def near(self) -> Path:
        """The folder of the store that is one."""
        return self.folder / "near"

    def folders(self) -> list[Path]:
        """Return the folders that runs have made in the store that is one."""
        return sorted(self.near.glob("shop/*/*/run-*"))

    def require_only(self, made: dict[str, Any]) -> Path:
        """Check that there is one set, whole in both stores, with nothing beside it.

        Return the folder with its objects.
        """
        host = self.host("two")
        (listed,) = host.json("backups")["backups"]
        verified = host.json("verify")
        assert listed["backup_id"] == made["backup_id"]
        assert listed["stores"] == ["near", "offsite"]
        assert (verified["status"], verified["bad"]) == ("ok", [])
        (folder,) = self.folders()
        keys = {each.relative_to(self.near).as_posix() for each in folder.iterdir()}
        prefix = folder.parent.relative_to(self.near).as_posix()
        with s3_client(self.server) as client:
            prefix = f"{self.folder.name}/{prefix}/run-"
            held = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        assert {each["Key"].partition("/")[2] for each in held} == keys
        return folder


@pytest.fixture
def fleet(
    tmp_path: Path, make_database: MakeDatabase, moto: S3Server
) -> Iterator[Fleet]:
    """A fleet with one job."""
    (tmp_path / "near").mkdir()
    made = Fleet(
        folder=tmp_path,
        url=make_database(16),
        queue=Queue(make_database(16, "SELECT 1")),
        server=moto,
        recipient=stock.age_key(tmp_path / "identity"),
        signer=stock.ssh_key(tmp_path / "signing"),
    )
    yield made
    for host in made.hosts.values():
        host.kill()


def test_runs_that_wake_up_late_leave_the_set_of_their_successor(fleet: Fleet) -> None:
    """One was stopped in its work, the other when nothing but its manifest was left."""
    one, two, three = (fleet.host(name) for name in ("one", "two", "three"))
    for host, name in ((one, "manifest.json"), (three, "RESTORE.md")):
        host.stop_before(name, fleet.queue.turn())
        fleet.queue.pass_on()
    assert len(fleet.folders()) == 2

    (made,) = two.back_up(fleet.queue.turn())["backups"]
    in_its_work, at_its_end = three.go_on(), one.go_on()

    assert made["backup_id"].startswith("shop-20260310T030000Z-")
    assert made["stores"] == ["near", "offsite"]
    assert [each[0] for each in (in_its_work, at_its_end)] == [11, 11]
    assert "another worker of the fleet has taken over" in in_its_work[1]["error"]
    assert f"{made['backup_id']} has been made by another" in at_its_end[1]["error"]
    assert in_its_work[1]["hint"]
    assert at_its_end[1]["hint"]
    folder = fleet.require_only(made)
    (entry,) = [
        each for each in two.json("ledger")["entries"] if each["operation"] == "backup"
    ]
    assert entry["details"]["due"] == "2026-03-10T03:00:00+00:00"
    # As its RESTORE.md has it.
    (fleet.folder / "allowed_signers").write_text(f"opskit {fleet.signer}\n")
    guide = (folder / "RESTORE.md").read_text()
    (command,) = re.findall(r"^    ssh-keygen -Y verify .*\n.*$", guide, re.M)
    checked = command.replace("allowed_signers", "../../../../../allowed_signers")
    subprocess.run(checked, shell=True, cwd=folder, check=True, capture_output=True)


def test_without_the_queue_the_stores_decide(fleet: Fleet) -> None:
    """Whoever comes second in them takes back what it has stored."""
    nobody = "postgresql:///queue?host=/nowhere"
    one, two = (fleet.host(name, queue=nobody) for name in ("one", "two"))
    one.stop_before("manifest.json", fleet.queue.turn())
    fleet.queue.pass_on()

    (made,) = two.back_up(fleet.queue.turn())["backups"]
    code, refused = one.go_on()

    assert "the fleet's queue cannot be asked, so the stores decide" in two.errors
    assert (code, refused["backups"]) == (11, [])
    assert "has been made by another run" in refused["error"]
    fleet.require_only(made)


def test_what_a_killed_run_leaves(fleet: Fleet) -> None:
    """Before its manifest: objects, which its host removes. After it: a set."""
    one, two = fleet.host("one"), fleet.host("two")
    one.stop_before("manifest.json", fleet.queue.turn())
    one.kill()
    (killed,) = fleet.folders()
    fleet.queue.pass_on()

    (made,) = two.back_up(fleet.queue.turn())["backups"]
    assert len(fleet.folders()) == 2
    # Its worker died before it could tell the queue: the job is done again.
    fleet.queue.pass_on()
    (again,) = fleet.host("three").back_up(fleet.queue.turn())["backups"]
    assert (again["backup_id"], again["stores"]) == (made["backup_id"], made["stores"])
    assert len(fleet.folders()) == 2
    (later,) = one.back_up(fleet.queue.turn(due="2026-03-11T03:00:00Z"))["backups"]
    assert not killed.exists()
    assert len(two.json("backups")["backups"]) == 2

    # The worker died before one store had it.
    shutil.rmtree(fleet.near / "shop" / "2026-03-10")
    fleet.near.rename(fleet.folder / "away")
    partly = two.back_up(fleet.queue.turn(), code=10)
    assert partly["backups"][0]["stores"] == ["offsite"]
    assert re.search("`[^` ]+ copy --from offsite --to near`", partly["hint"])
    (fleet.folder / "away").rename(fleet.near)
    (whole,) = two.back_up(fleet.queue.turn())["backups"]
    assert sorted(whole["stores"]) == ["near", "offsite"]
    assert two.json("verify")["status"] == "ok"
    listed = {e["backup_id"]: e["stores"] for e in two.json("backups")["backups"]}
    both = ["near", "offsite"]
    assert listed == {later["backup_id"]: both, made["backup_id"]: both}
