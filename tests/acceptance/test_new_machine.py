"""A new machine: the store's address, credentials, the identity, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyrage  # type: ignore[import-untyped]
import pytest

from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from tests import s3_servers
from tests.acceptance.conftest import Project
from tests.conftest import MajorServer
from tests.s3_servers import S3Server
from tests.sample import SAMPLE
from tests.support import execute, value
from tests.unit import stock

BUCKET = "recovery"
# Prefixes with the sets of so many sources.
ONE, TWO = "one", "two"
ROWS = 2102
SECRET = "the-secret-of-row-42"
# Cannot be restored under another name, and the server says why with the row.
ONLY_THERE = f"""
    CREATE FUNCTION public.is_there(word text) RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN
            IF current_database() <> 'lost crm' THEN RAISE 'only there: %', word; END IF;
            RETURN true;
        END
    $$;
    CREATE TABLE public.only_there (id int, word text, CHECK (public.is_there(word)));
    INSERT INTO public.only_there VALUES (42, '{SECRET}');
"""
Objects = dict[str, bytes]


@dataclass(frozen=True)
class Bucket:
    """What lies on the server, seen without opskit."""

    server: S3Server
    client: Any = field(repr=False)

    def sets(self, prefix: str, source: str = "") -> Objects:
        """Return every object of the sets below a prefix, without evidence."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/{source}")
        keys = [each["Key"].removeprefix(f"{prefix}/") for each in listed["Contents"]]
        return {
            key: self._get(f"{prefix}/{key}")
            for key in keys
            if not key.startswith("_") and "/evidence/" not in key
        }

    def read(self, prefix: str) -> list[bytes]:
        """Return the content of every object below a prefix."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [self._get(each["Key"]) for each in listed["Contents"]]

    def _get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found

    def write(self, prefix: str, objects: Objects) -> None:
        """Put objects below a prefix."""
        for key, content in objects.items():
            self.client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=content)

    def section(self, prefix: str) -> str:
        """Return the configuration of the store."""
        return f"""\
[stores.offsite]
url = "s3://{BUCKET}/{prefix}"
endpoint_url = "{self.server.endpoint_url}"
region = "us-east-1"
addressing = "path"
"""


@pytest.fixture(scope="module")
def bucket(seaweedfs: S3Server) -> Iterator[Bucket]:
    """SeaweedFS with an empty bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=seaweedfs.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=s3_servers.ACCESS_KEY,
        aws_secret_access_key=s3_servers.SECRET_KEY,
    )
    client.create_bucket(Bucket=BUCKET)
    yield Bucket(seaweedfs, client)
    client.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an identity, another's, and a signing key."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("identity", "stranger"):
        own = pyrage.x25519.Identity.generate()
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(f"{own}\n")
        (folder / f"{name}.pub").write_text(f"{own.to_public()}\n")
    stock.ssh_key(folder / "signing")
    return folder


def line(path: Path) -> str:
    """Return a public key without its comment."""
    return " ".join(path.read_text().split()[:2])


@pytest.fixture(scope="module")
def lost(
    bucket: Bucket,
    keys: Path,
    server_of: MajorServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """What the machine that is gone backed up, by source."""
    running = server_of(16)
    names = {"shop": "lost shop", "crm": "lost crm"}
    with connect(running.url(), purpose="test") as connection:
        for name in names.values():
            statement = f"CREATE DATABASE {quoted(name)}"
            database.run_script(connection, statement)
    for name in names.values():
        execute(running.url(name), SAMPLE)
    execute(running.url(names["crm"]), ONLY_THERE)
    folder = tmp_path_factory.mktemp("lost")
    (folder / "opskit.toml").write_text(
        "".join(
            f"[databases.{each}]\nurl = {json.dumps(running.url(name))}\n"
            for each, name in names.items()
        )
        + bucket.section(TWO)
        + f"""\
[encryption]
recipients = ["{line(keys / "identity.pub")}"]
[signing]
key_file = "{keys / "signing"}"
"""
    )
    machine = Project(folder=folder, url="", environment=s3_servers.environment())
    backups = machine.json("backup")["backups"]
    bucket.write(ONE, bucket.sets(TWO, "shop/"))
    yield {each["source"]: each for each in backups}
    with connect(running.url(), purpose="test") as connection:
        for name in names.values():
            database.drop(connection, name)


Build = Callable[..., Project]


@pytest.fixture
def new_machine(bucket: Bucket, keys: Path, lost: object, tmp_path: Path) -> Build:
    """Return a function that sets up an empty folder with a configuration."""

    def build(prefix: str = ONE, *, identity: str | Path = "identity") -> Project:
        folder = tmp_path / "new"
        folder.mkdir()
        encryption = f'[encryption]\nidentity_file = "{keys / identity}"\n'
        (folder / "opskit.toml").write_text(
            bucket.section(prefix)
            + (encryption if identity else "")
            + f'[signing]\ntrusted_keys = ["{line(keys / "signing.pub")}"]\n'
        )
        return Project(folder=folder, url="", environment=s3_servers.environment())

    return build


@pytest.fixture
def target(server_of: MajorServer) -> Iterator[str]:
    """The URL of a database that does not exist yet and is dropped afterwards."""
    running = server_of(16)
    yield running.url("recovered")
    with connect(running.url(), purpose="test") as connection:
        database.drop(connection, "recovered")


def test_everything_comes_back(new_machine: Build, lost: Any, target: str) -> None:
    """Listed, verified, drilled and restored; each command prints one document."""
    machine = new_machine()
    made = lost["shop"]
    assert made["encrypted"] is True

    (listed,) = machine.json("backups")["backups"]
    verified = machine.json("verify")
    drill = machine.json("restore-drill")
    restored = machine.json("restore", "--backup", listed["backup_id"], "--to", target)

    assert (listed["backup_id"], listed["source"]) == (made["backup_id"], "shop")
    assert (listed["stores"], listed["proof"]) == (["offsite"], "unproven")
    assert (verified["status"], verified["bytes"]) == ("ok", made["size_bytes"])
    assert (drill["passed"], drill["backup_id"]) == (True, made["backup_id"])
    assert (drill["tables"], drill["rows"]) == (5, ROWS)
    assert Path(machine.folder / drill["report"]).is_file()
    assert (restored["status"], restored["rows"]) == ("ok", ROWS)
    assert restored["target"] == "recovered"
    assert value(target, "SELECT count(*) FROM public.lines") == 1500
    # This machine has no key to sign evidence with: what it found counts for itself.
    assert machine.json("backups")["backups"][0]["proof"] == "unproven"


def test_two_sources_are_not_guessed_between(new_machine: Build, lost: Any) -> None:
    """Both are named, and each can be."""
    machine = new_machine(TWO)

    refused = machine.json("restore-drill", code=2)
    listed = machine.json("backups")["backups"]
    (of_crm,) = machine.json("backups", "--database", "crm")["backups"]

    assert "crm" in refused["error"]
    assert "shop" in refused["error"]
    assert "--database" in refused["hint"]
    assert {each["source"] for each in listed} == {"shop", "crm"}
    assert of_crm["backup_id"] == lost["crm"]["backup_id"]


def test_all_of_them_are_drilled(new_machine: Build) -> None:
    """Without the configuration of the machine that is gone."""
    drills = new_machine(TWO).json("restore-drill", "--all", "--mutants", "0")["drills"]

    assert sorted(each["source"] for each in drills) == ["crm", "shop"]
    assert [each["passed"] for each in drills] == [True, True]


def test_an_unknown_name_is_refused(new_machine: Build) -> None:
    """Neither configured nor in a store."""
    refused = new_machine().json("backups", "--database", "shoo", code=2)

    assert "shoo" in refused["error"]


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_an_empty_store_is_no_success(new_machine: Build, arguments: list[str]) -> None:
    """A wrong prefix, say: a drill of nothing is no drill."""
    refused = new_machine("nothing").json("restore-drill", *arguments, code=2)

    assert "no backup set" in refused["error"]


def test_without_the_identity_it_is_said_whose_is_needed(
    new_machine: Build, keys: Path, lost: Any, server_of: MajorServer
) -> None:
    """Exit code 2 for drill and restore; `verify` reads every byte all the same."""
    machine = new_machine(identity="")
    backup_id = lost["shop"]["backup_id"]
    url = server_of(16).url("recovered")

    drill = machine.json("restore-drill", code=2)
    restore = machine.json("restore", "--backup", backup_id, "--to", url, code=2)
    verified = machine.json("verify", "--backup", backup_id)

    for refused in (drill, restore):
        assert line(keys / "identity.pub") in refused["error"]
        assert "identity_file" in refused["hint"]
    assert (verified["status"], verified["bytes"]) == ("ok", lost["shop"]["size_bytes"])


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("stranger", 0o600, "no identity in"),
        ("identity", 0o644, "may be read by others (mode 0644)"),
    ],
)
def test_an_identity_that_does_not_serve_is_named(
    name: str, mode: int, reason: str, new_machine: Build, keys: Path, tmp_path: Path
) -> None:
    """Exit code 2: it is the configuration that has to be mended."""
    path = tmp_path / "key"
    path.write_bytes((keys / name).read_bytes())
    path.chmod(mode)

    refused = new_machine(identity=path).json("restore-drill", code=2)

    assert reason in refused["error"]
    assert str(path) in refused["error"]


def test_a_set_that_is_not_as_it_was_signed_is_refused(
    new_machine: Build, bucket: Bucket, lost: Any, server_of: MajorServer
) -> None:
    """Exit code 20, by its id, as the newest, among all; never "there is none"."""
    objects = bucket.sets(ONE)
    (key,) = (key for key in objects if key.endswith("manifest.json"))
    altered = objects[key].replace(b'"rows": 500', b'"rows": 499')
    assert altered != objects[key]
    bucket.write("refused", objects | {key: altered})
    machine = new_machine("refused")
    backup_id = lost["shop"]["backup_id"]
    url = server_of(16).url("recovered")

    errors = {
        " ".join(arguments): machine.json(*arguments, code=20)["error"]
        for arguments in (
            ["verify"],
            ["restore-drill"],
            ["restore-drill", "--all"],
            ["restore-drill", "--backup", backup_id],
            ["restore", "--backup", backup_id, "--to", url],
        )
    }

    assert [name for name, each in errors.items() if backup_id not in each] == []


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_a_byte_that_the_server_lost_is_noticed(
    new_machine: Build, bucket: Bucket, lost: Any, server_of: MajorServer
) -> None:
    """By `verify`, drill and restore, each with its exit code."""
    objects = bucket.sets(ONE)
    (key,) = (key for key in objects if key.endswith("dump.pgdump.zst.age"))
    bucket.write("flipped", objects | {key: _flipped(objects[key])})
    machine = new_machine("flipped")
    backup_id = lost["shop"]["backup_id"]
    url = server_of(16).url("recovered")

    verified = machine.json("verify", code=20)
    drill = machine.json("restore-drill", code=50)
    restore = machine.json("restore", "--backup", backup_id, "--to", url, code=20)

    assert [each["key"] for each in verified["bad"]] == [key]
    assert [each["name"] for each in drill["checks"]] == ["stored objects"]
    assert key in restore["error"]


def test_an_object_that_the_server_lost_is_noticed(
    new_machine: Build, bucket: Bucket, lost: Any
) -> None:
    """It is not there, which is the store's fault."""
    objects = bucket.sets(ONE)
    (key,) = (key for key in objects if key.endswith("private.json.age"))
    del objects[key]
    bucket.write("missing", objects)

    verified = new_machine("missing").json("verify", code=10)

    assert verified["bad"] == [{"key": key, "reason": "missing"}]


def test_an_altered_copy_is_told_though_another_is_whole(
    new_machine: Build, bucket: Bucket, lost: Any, tmp_path: Path
) -> None:
    """Also where one set is named: `verify` speaks for every copy of it."""
    near = tmp_path / "near"
    for key, content in bucket.sets(ONE).items():
        path = near / key
        path.parent.mkdir(parents=True, exist_ok=True)
        altered = content.replace(b'"rows": 500', b'"rows": 499')
        path.write_bytes(altered if path.name == "manifest.json" else content)
    machine = new_machine()
    with (machine.folder / "opskit.toml").open("a") as file:
        file.write(f"[stores.near]\nurl = {json.dumps(near.as_uri())}\n")

    verified = machine.json("verify", "--backup", lost["shop"]["backup_id"], code=20)

    (bad,) = verified["bad"]
    assert bad["key"].endswith("/manifest.json")
    assert "not of this content" in bad["reason"]


def test_a_restore_that_fails_tells_no_row_to_the_store(
    new_machine: Build, bucket: Bucket, lost: Any, server_of: MajorServer
) -> None:
    """The server's words hold the row; the record of the run lies in the open."""
    backup_id = lost["crm"]["backup_id"]
    url = server_of(16).url("recovered")

    refused = new_machine(TWO).json(
        "restore", "--backup", backup_id, "--to", url, code=20
    )

    records = bucket.read(f"{TWO}/_ledger/")
    assert SECRET in refused["failures"][0]["error"]
    assert backup_id.encode() in b"".join(records)
    assert [each for each in records if SECRET.encode() in each] == []
