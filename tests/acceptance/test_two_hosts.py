"""Two hosts back up one source at once: two state folders, one store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Project
from tests.acceptance.services import KEEP_ONE
from tests.conftest import MakeDatabase

MakeHost = Callable[..., Project]
Started = subprocess.Popen[str]
# So that a backup is met in the middle, also by a test that pauses: what comes after
# the archive of a folder, or the dump of a database, waits for ten seconds and more.
SLOW = "bandwidth_limit = 1500"
SLOW_DATABASE = "bandwidth_limit = 8000"
# What does not compress; an archive of it takes three seconds to read.
ORDERS_BYTES = 20_000
SLOW_TO_READ = "bandwidth_limit = 6000"


@pytest.fixture
def make_host(tmp_path: Path) -> MakeHost:
    """Return a function that sets up a host; all of them have one store."""
    shared = tmp_path / "shared"
    shared.mkdir()

    def make(name: str, source: str, more: str = "") -> Project:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "opskit.toml").write_text(
            f'{source}\n[stores.shared]\nurl = "{shared.as_uri()}"\n{more}\n'
        )
        return Project(folder=folder, url="")

    return make


def database(url: str) -> str:
    """Return the configuration of a database."""
    return f"[databases.shop]\nurl = {json.dumps(url)}"


@pytest.fixture
def files(tmp_path: Path) -> str:
    """The configuration of a folder that both hosts see."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "orders").write_bytes(os.urandom(ORDERS_BYTES))
    return f"[files.state]\npath = {json.dumps(str(folder))}"


def claims(host: Project) -> list[Path]:
    """Return the signs of life of runs in the store."""
    return list((host.folder.parent / "shared").glob("_locks/*/*/*.json"))


def is_writing(host: Project) -> bool:
    """Return whether a backup of this host has begun to write a set."""
    return any((host.folder / ".opskit" / "inflight").glob("*"))


def until_writing(hosts: dict[int, Project], running: list[Started]) -> int:
    """Wait until one of several backups writes, and return which one."""
    while True:
        for number, host in hosts.items():
            if is_writing(host):
                return number
        assert None in [each.poll() for each in running]
        time.sleep(0.005)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Wait for a run with --json, and return its code and document."""
    output, _errors = process.communicate(timeout=120)
    document = json.loads(output)
    assert isinstance(document, dict)
    return process.returncode, document


def ids(host: Project) -> list[str]:
    """Return the sets in the store."""
    return [each["backup_id"] for each in host.json("backups")["backups"]]


def test_of_two_backups_of_a_database_one_wins(
    make_host: MakeHost, make_database: MakeDatabase
) -> None:
    """The other ends with 11 at once, and says which run has it."""
    url = make_database(16)
    hosts = [make_host(name, database(url), SLOW_DATABASE) for name in ("one", "two")]

    running = [host.start("backup", "--json") for host in hosts]
    winner = until_writing(dict(enumerate(hosts)), running)
    # Until the other one has ended, however slow this machine is.
    running[winner].send_signal(signal.SIGSTOP)
    code, refused = ended(running[1 - winner])
    running[winner].send_signal(signal.SIGCONT)
    won, done = ended(running[winner])

    assert (won, code) == (0, 11)
    (entry,) = hosts[winner].json("ledger")["entries"]
    assert "in the database is held by" in refused["error"]
    assert entry["run_id"] in refused["error"]
    assert refused["hint"]
    assert ids(hosts[0]) == [done["backups"][0]["backup_id"]]
    assert claims(hosts[0]) == []


def refused_while_it_runs(
    host: Project, other: Project, source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Back up on both, the other one in the middle of the first; return documents."""
    first = host.start("backup", "--json")
    until_writing({0: host}, [first])
    first.send_signal(signal.SIGSTOP)
    try:
        refused = other.json("backup", code=11)
    finally:
        first.send_signal(signal.SIGCONT)
    code, done = ended(first)
    assert code == 0
    assert f"{source} is locked in store shared by backup {source}" in refused["error"]
    assert f"process {first.pid} on {socket.gethostname()}" in refused["error"]
    assert refused["holder"]["pid"] == first.pid
    return done, refused


def test_two_backups_of_a_folder_meet_in_the_store(
    make_host: MakeHost, files: str
) -> None:
    """There is no lock in a database: that of the store keeps them apart."""
    one, two = make_host("one", files, SLOW), make_host("two", files)

    done, refused = refused_while_it_runs(one, two, "state")

    assert refused["backups"] == []
    assert ids(two) == [done["backups"][0]["backup_id"]]
    assert claims(one) == []
    assert two.json("backup")["status"] == "ok"
    assert len(ids(one)) == 2


def test_two_servers_of_one_source_meet_in_the_store(
    make_host: MakeHost, make_database: MakeDatabase
) -> None:
    """Where locks in the database do not meet, as behind two addresses."""
    one = make_host("one", database(make_database(16)), SLOW_DATABASE)
    two = make_host("two", database(make_database(16)))

    done, _refused = refused_while_it_runs(one, two, "shop")

    assert ids(two) == [done["backups"][0]["backup_id"]]


def test_a_killed_backup_holds_up_others_but_not_its_own_host(
    make_host: MakeHost, files: str
) -> None:
    """Its claim stays behind: told to the others, buried by the next run here."""
    one, two = make_host("one", files, SLOW), make_host("two", files)
    killed = one.start("backup")
    until_writing({0: one}, [killed])
    killed.kill()
    killed.communicate()
    left = claims(one)

    refused = two.json("backup", code=11)
    began = time.monotonic()
    made = one.json("backup")["backups"]
    seconds = time.monotonic() - began
    then = two.json("backup")["backups"]

    assert left != []
    assert f"process {killed.pid} on" in refused["error"]
    assert "5 minutes" in refused["hint"]
    assert seconds < 240
    assert ids(two) == [then[0]["backup_id"], made[0]["backup_id"]]
    assert claims(one) == []


def aged(folder: Path, days: float) -> None:
    """Let every file below a folder look as if it was written days ago."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - days * 86400,) * 2)


def at_another_time(host: Project, days: float, *arguments: str) -> tuple[int, Any]:
    """Run a task on a host whose clock is wrong by so many days."""
    code = (
        "import sys; from datetime import UTC, datetime, timedelta\n"
        "from opskit.operations import run as runtime\n"
        f"runtime.now = lambda: datetime.now(UTC) + timedelta(days={days})\n"
        "from opskit.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--json"],
        cwd=host.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_prune_takes_no_set_that_another_host_is_writing(
    make_host: MakeHost, files: str
) -> None:
    """However old its objects look: its claim in the store says that it is alive."""
    one, two = make_host("one", files, SLOW), make_host("two", files)
    running = one.start("backup", "--json")
    until_writing({0: one}, [running])
    running.send_signal(signal.SIGSTOP)
    try:
        shared = one.folder.parent / "shared"
        aged(shared / "state", 2)
        code, refused = at_another_time(two, 2, "prune")
    finally:
        running.send_signal(signal.SIGCONT)
    done, made = ended(running)

    assert (code, refused["delete"]) == (11, [])
    assert "is locked in store shared by backup state" in refused["error"]
    assert done == 0
    assert two.json("verify")["status"] == "ok"
    assert ids(two) == [made["backups"][0]["backup_id"]]


def test_a_set_whose_object_went_away_is_not_recorded(
    make_host: MakeHost, files: str
) -> None:
    """Whoever took it: before the manifest is put, every object is looked at again."""
    one = make_host("one", files, SLOW)
    shared = one.folder.parent / "shared"
    running = one.start("backup", "--json")
    until_writing({0: one}, [running])
    while not (found := [*shared.glob("state/*/*/files.tar.zst")]):
        assert running.poll() is None
        time.sleep(0.005)
    running.send_signal(signal.SIGSTOP)
    found[0].unlink()
    running.send_signal(signal.SIGCONT)
    code, refused = ended(running)

    assert code == 10
    assert "files.tar.zst" in refused["error"]
    assert ids(one) == []
    assert not [*shared.glob("state/**/*.*")]


def test_a_clock_that_is_ahead_deletes_nothing_early(
    make_host: MakeHost, files: str
) -> None:
    """The time is the store's; a host that is two months ahead keeps what is young."""
    one = make_host("one", files, KEEP_ONE.replace("0s", "30d"))
    made = [one.json("backup")["backups"][0]["backup_id"] for _ in range(2)]
    shared = one.folder.parent / "shared"
    orphan = shared / "state/2026-01-01/state-20260101T000000Z-abcdef/files.tar.zst"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half")

    code, pruned = at_another_time(one, 60, "prune")

    assert code == 0
    assert pruned["delete"] == []
    assert sorted(ids(one)) == sorted(made)
    assert orphan.exists()
    aged(orphan.parent, 2)
    one.run("prune")
    assert not orphan.exists()
    assert sorted(ids(one)) == sorted(made)


def test_sets_that_are_pruned_meanwhile_are_no_damage(
    make_host: MakeHost, files: str
) -> None:
    """A verification passes over them, and leaves nothing in their place."""
    one = make_host("one", files, f"{SLOW_TO_READ}\n{KEEP_ONE}")
    two = make_host("two", files, KEEP_ONE)
    for _ in range(4):
        two.run("backup")
    kept, *others = ids(two)

    verifying = one.start("verify", "--json")
    shared = one.folder.parent / "shared"
    while not [*shared.glob("state/*/*/evidence/*")]:
        assert verifying.poll() is None
        time.sleep(0.005)
    pruned = two.json("prune")
    code, verified = ended(verifying)

    assert (code, verified["status"], verified["bad"]) == (0, "ok", [])
    assert sorted(each["backup_id"] for each in pruned["delete"]) == sorted(others)
    assert ids(two) == [kept]
    assert {path.name for path in shared.glob("state/*/*")} == {kept}
