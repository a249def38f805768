"""Folders of state files, from `./inv backup` to the folder that is swapped back."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import boto3
import pytest

from tests import s3_servers
from tests.acceptance.conftest import Project
from tests.acceptance.services import Service, archive_in, equal, flip
from tests.s3_servers import S3Server
from tests.unit import stock
from tests.unit.files_sets import IS_ROOT, make_odd

BUCKET = s3_servers.BUCKET


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state and one store, configured."""
    made = Service(folder=tmp_path / "service")
    made.set_up()
    made.fill(orders='{"open": 3}', users='{"known": 12}')
    return made


def test_a_folder_goes_the_way_of_a_database(project: Project) -> None:
    """Backed up, listed, verified, drilled and restored beside one, entry by entry."""
    state = make_odd(project.folder / "state")
    project.configure(f"[files.state]\npath = {json.dumps(str(state))}")
    target = project.folder / "restored"

    both = project.json("backup", "--all")["backups"]
    (made,) = project.json("backup", "--files", "state")["backups"]
    listed = project.json("backups")["backups"]
    drill = project.json("restore-drill", "--files", "state")
    drills = project.json("restore-drill", "--all", "--mutants", "0")["drills"]
    restored = project.json(
        "restore", "--backup", made["backup_id"], "--to", str(target)
    )

    entries = sum(1 for _ in state.rglob("*")) + 1
    assert [each["source"] for each in both] == ["shop", "state"]
    assert (made["source"], made["stores"], made["encrypted"]) == (
        "state", ["local"], False,
    )  # fmt: skip
    assert (made["tables"], made["rows"], made["files"]) == (0, 0, entries)
    assert made["dump_bytes"] > made["size_bytes"] > 0
    assert [each["source"] for each in listed] == ["state", "state", "shop"]
    assert (drill["status"], drill["backup_id"]) == ("passed", made["backup_id"])
    assert drill["files"] == entries
    assert drill["mutants"]["killed"] == drill["mutants"]["planted"] == 12
    assert "files, folders and links" in Path(drill["report"]).read_text()
    assert [each["source"] for each in drills] == ["shop", "state"]
    assert [each["status"] for each in drills] == ["passed", "passed"]
    assert (restored["status"], restored["target"]) == ("ok", str(target))
    assert (restored["replaced"], restored["files"]) == (None, entries)
    assert equal(target, state)


def test_each_source_has_a_compression_level_of_its_own(project: Project) -> None:
    """Each is compressed as its own level says; all of it can be read."""
    state = project.folder / "state"
    state.mkdir()
    words = Random(1).choices(sorted(dir(builtins)), k=60_000)
    (state / "words").write_text(" ".join(words))
    project.configure(f"[files.state]\npath = {json.dumps(str(state))}")
    for source in ("DATABASES__SHOP", "FILES__STATE"):
        project.environment[f"OPSKIT_{source}__COMPRESSION_LEVEL"] = "1"
    quick = project.json("backup", "--all")["backups"]
    project.environment["OPSKIT_FILES__STATE__COMPRESSION_LEVEL"] = "12"
    small = project.json("backup", "--all")["backups"]
    project.environment["OPSKIT_DATABASES__SHOP__COMPRESSION_LEVEL"] = "12"
    both = project.json("backup", "--all")["backups"]
    project.environment["OPSKIT_DATABASES__SHOP__COMPRESSION_LEVEL"] = "13"
    refused = project.json("backup", "--all", code=2)
    project.environment.clear()
    project.run("verify", "--files", "state")
    listed = project.json("backups")["backups"]
    verified = project.json("verify")

    def stored(made: list[dict[str, Any]]) -> list[int]:
        return [each["size_bytes"] for each in made]

    assert stored(small)[1] < 0.95 * stored(quick)[1]
    # So little data is not smaller for more work, but never the same.
    assert stored(small)[0] == pytest.approx(stored(quick)[0], rel=0.01)
    assert stored(both)[0] != pytest.approx(stored(quick)[0], rel=0.02)
    # Of one source the newest set alone, then every set of both.
    proved = [each["backup_id"] for each in listed if each["proof"] == "verified"]
    assert proved == [both[1]["backup_id"]]
    assert verified["status"] == "ok"
    assert "compression_level" in refused["error"]


def test_what_cannot_be_meant_is_refused(service: Service) -> None:
    """Exit code 2 each, before anything is touched."""
    made = service.back_up()
    target = service.folder / "taken"
    target.mkdir()
    (target / "precious").write_text("mine")
    restore = ("restore", "--backup", made, "--to")
    secret = "postgresql://ops:hunter2@db.example/shop"

    taken = service.json(*restore, str(target), code=2)
    table = service.json(*restore, "new", "--table", "public.orders", code=2)
    url = service.json(*restore, secret, code=2)
    nowhere = service.json(*restore, "no/such/place", code=2)
    two = service.json("backup", "--database", "shop", "--files", "state", code=2)
    drill = service.json(
        "restore-drill", "--database", "shop", "--files", "state", code=2
    )
    unknown = service.json("backup", "--files", "stat", code=2)
    undrilled = service.json("restore-drill", "--files", "stat", code=2)

    assert "is not empty" in taken["error"]
    assert "--replace" in taken["hint"]
    assert [each.name for each in target.iterdir()] == ["precious"]
    assert "holds no tables" in table["error"]
    assert "--to is a URL" in url["error"]
    assert "has no parent folder" in nowhere["error"]
    assert "cannot be given together" in two["error"]
    assert "cannot be given together" in drill["error"]
    assert "(configured: state)" in unknown["error"]
    assert "(configured: state)" in undrilled["error"]
    ledger = (service.folder / ".opskit" / "ledger.jsonl").read_text()
    assert "hunter2" not in ledger + json.dumps(url)
    assert sorted(each.name for each in service.folder.iterdir()) == [
        ".opskit", "local", "opskit.toml", "state", "taken",
    ]  # fmt: skip


def test_a_folder_and_a_database_cannot_share_a_name(service: Service) -> None:
    """Their sets would lie in one place: the configuration is refused."""
    service.set_up('[databases.state]\nurl = "postgresql://ops@db.example/shop"\n')

    refused = service.json("backup", code=2)

    assert "must not share the name state" in refused["error"]
    assert list((service.folder / "local").iterdir()) == []


def test_replace_keeps_the_old_folder_and_says_where(service: Service) -> None:
    """The live folder is swapped for the restored one; nothing of the old is lost."""
    made = service.back_up()
    before = service.folder / "copy of the set"
    service.run("restore", "--backup", made, "--to", str(before))
    service.fill(orders='{"open": 0}', later="came later")

    said = service.run(
        "restore", "--backup", made, "--to", str(service.state), "--replace"
    )
    again = service.json(
        "restore", "--backup", made, "--to", str(service.state), "--replace"
    )

    (told,) = re.findall(r"the folder that was there is kept as (.*)", said)
    assert sorted(each.name for each in Path(told).iterdir()) == [
        "later", "orders", "users",
    ]  # fmt: skip
    assert (Path(told) / "orders").read_text() == '{"open": 0}'
    assert equal(service.state, before)
    assert equal(Path(again["replaced"]), before)
    assert again["replaced"] != told


def test_a_target_may_have_a_long_path(service: Service) -> None:
    """Longer than a file's name may be."""
    made = service.back_up()
    target = service.folder.joinpath(*["d" * 200] * 3, "back")
    target.parent.mkdir(parents=True)

    service.run("restore", "--backup", made, "--to", str(target))

    assert equal(target, service.state)


def download(server: S3Server, prefix: str, folder: Path) -> Path:
    """Fetch every object of the one set below a prefix, without opskit."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=s3_servers.ACCESS_KEY,
        aws_secret_access_key=s3_servers.SECRET_KEY,
    )
    folder.mkdir()
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/state/")
    for each in listed["Contents"]:
        body = client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"]
        if "/evidence/" not in each["Key"]:
            (folder / each["Key"].rpartition("/")[2]).write_bytes(body.read())
        body.close()
    client.close()
    return folder


def test_an_encrypted_signed_folder_comes_back_from_a_bucket(
    service: Service, seaweedfs: S3Server, tmp_path: Path
) -> None:
    """By opskit, and by the commands of its RESTORE.md with stock programs alone."""
    recipient = stock.age_key(tmp_path / "identity")
    public = stock.ssh_key(tmp_path / "signing")
    service.environment = s3_servers.environment()
    store = f"""\
[stores.offsite]
url = "s3://{BUCKET}/files"
endpoint_url = "{seaweedfs.endpoint_url}"
region = "us-east-1"
"""
    trusted = f'trusted_keys = ["{public}"]\n'
    service.set_up(
        f'{store}[encryption]\nrecipients = ["{recipient}"]\n'
        f'[signing]\nkey_file = "{tmp_path / "signing"}"\n{trusted}',
        stores=[],
    )
    made = service.back_up()
    machine = Service(folder=tmp_path / "new", environment=service.environment)
    machine.folder.mkdir()
    (machine.folder / "opskit.toml").write_text(
        f'{store}[encryption]\nidentity_file = "{tmp_path / "identity"}"\n'
        f"[signing]\n{trusted}"
    )

    target = machine.folder / "back"
    sealed = service.json("restore-drill", "--files", "state", code=2)
    drilled = machine.json("restore-drill")
    restored = machine.json("restore", "--backup", made, "--to", str(target))
    folder = download(seaweedfs, "files", tmp_path / "set")
    guide = "\n".join(
        re.findall(r"```sh\n(.*?)```", (folder / "RESTORE.md").read_text(), re.S)
    )
    for each in ("age", "zstd", "tar", "sha256sum"):
        stock.program(each)
    followed = subprocess.run(
        ["bash", "-eo", "pipefail", "-c",
         guide if IS_ROOT else guide.replace("--same-owner", "")],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "AGE_IDENTITY": str(tmp_path / "identity")},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    assert "no identity is configured" in sealed["error"]
    assert (drilled["passed"], restored["files"]) == (True, 3)
    assert equal(target, service.state)
    assert followed.returncode == 0, followed.stderr
    assert equal(folder / "restored", service.state)
    assert (folder / "manifest.json.sig").exists()
    assert b"open" not in (folder / "files.tar.zst.age").read_bytes()


@pytest.mark.skipif(not IS_ROOT, reason="only root can mount a small disk")
def test_a_store_without_room_can_be_pruned(service: Service) -> None:
    """The lock that prune takes there needs no room, and what is deleted makes some."""
    service.set_up(of_state="retention = { keep_last = 1, min_keep = 1 }")
    store = service.folder / "local"
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(store)]
    subprocess.run(mount, check=True)
    try:
        ids = [service.back_up() for _ in range(3)]
        with suppress(OSError), (store / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        service.json("backup", "--files", "state", code=10)
        pruned = service.json("prune")
        service.run("backup", "--files", "state")
    finally:
        subprocess.run(["umount", str(store)], check=True)

    assert {each["backup_id"] for each in pruned["delete"]} == set(ids[:2])


def test_hourly_sets_with_keep_last_ten(service: Service) -> None:
    """Of fourteen the newest ten stay, and the newest that a drill has passed."""
    service.set_up(of_state="retention = { keep_last = 10 }")
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=14)
    ids = service.back_up_at(began + timedelta(hours=number) for number in range(14))
    service.run("restore-drill", "--backup", ids[0])

    planned = service.json("prune", "--dry-run")
    first = service.json("prune")
    after_first = list(service.proofs())
    service.run("restore-drill", "--files", "state")
    second = service.json("prune")

    assert planned | {"run_id": first["run_id"]} == first
    assert [each["backup_id"] for each in first["delete"]] == ids[1:4]
    assert after_first == [*ids[:3:-1], ids[0]]
    reasons = {each["backup_id"]: each["reasons"] for each in first["keep"]}
    assert reasons[ids[0]] == ["newest that passed a drill"]
    assert reasons[ids[4]] == ["keep_last 10"]
    assert [each["backup_id"] for each in second["delete"]] == [ids[0]]
    assert list(service.proofs()) == ids[:3:-1]
    assert not [file for file in service.store_at().list() if ids[1] in file.key]


# It writes in place and in halves: who reads without the lock reads torn files.
WRITER = """
import sys
from pathlib import Path
from filelock import FileLock
folder, lock = Path(sys.argv[1]), sys.argv[2]
number = 0
while True:
    number += 1
    with FileLock(lock):
        for name in ("a", "b", "c"):
            with (folder / name).open("w") as file:
                file.write(f"{number:08d} " * 2000)
                file.flush()
                file.write(f"{number:08d} " * 2000)
    if number == 1:
        print("ready", flush=True)
"""


@contextmanager
def writing(folder: Path, lock: Path) -> Iterator[None]:
    """Run a service that writes its files under its lock, all the time."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(lock)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def test_a_service_that_writes_all_the_time_is_locked_out(service: Service) -> None:
    """In every set each file is whole, and all are of one moment."""
    lock = service.folder / "service.lock"
    service.set_up(of_state=f"lock = {json.dumps(str(lock))}")
    for each in service.state.iterdir():
        each.unlink()
    with writing(service.state, lock):
        made = [service.json("backup")["backups"][0] for _ in range(3)]
    words = []
    for number, each in enumerate(made):
        target = service.folder / f"restored {number}"
        service.run("restore", "--backup", each["backup_id"], "--to", str(target))
        texts = [(target / name).read_text().split() for name in ("a", "b", "c")]
        assert [len(each) for each in texts] == [4000] * 3
        words.append({word for text in texts for word in text})

    assert [each["warnings"] for each in made] == [[], [], []]
    assert [len(each) for each in words] == [1, 1, 1]
    assert len(set.union(*words)) == 3


def test_a_damaged_archive_is_told_by_each_command(service: Service) -> None:
    """Drill 50, restore 20, verify 20; and the set counts as failed."""
    made = service.back_up()
    flip(archive_in(service.folder / "local"))
    target = service.folder / "back"

    drill = service.json("restore-drill", code=50)
    restore = service.json("restore", "--backup", made, "--to", str(target), code=20)
    verify = service.json("verify", code=20)

    assert (drill["status"], drill["passed"]) == ("failed", False)
    assert Path(drill["report"]).is_file()
    for document in (drill["checks"][-1]["detail"], restore["error"], verify["error"]):
        assert "files.tar.zst" in document
    assert [each["key"].rpartition("/")[2] for each in verify["bad"]] == [
        "files.tar.zst"
    ]
    assert service.proofs() == {made: "failed"}
    assert sorted(each.name for each in service.folder.iterdir()) == [
        ".opskit", "local", "opskit.toml", "state",
    ]  # fmt: skip


def test_a_damaged_copy_is_passed_over(service: Service) -> None:
    """With two stores the next one's copy is restored, and the first is told."""
    service.set_up(stores=["local", "other"])
    made = service.back_up()
    flip(archive_in(service.folder / "local"))
    target = service.folder / "back"

    restored = service.json("restore", "--backup", made, "--to", str(target))

    assert restored["files"] == 3
    assert equal(target, service.state)
    assert "trying the next store" in service.errors
    assert "files.tar.zst" in service.errors
