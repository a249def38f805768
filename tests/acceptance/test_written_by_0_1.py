"""The sets that version 0.1 wrote are listed, verified, drilled and restored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from opskit.postgres import database
from opskit.postgres.connect import connect
from tests.acceptance.conftest import Project
from tests.acceptance.services import flip
from tests.conftest import MajorServer
from tests.support import value

WRITTEN = Path(__file__).parents[1] / "fixtures" / "written_by_0_1"
DATABASES = ["both", "encrypted", "plain", "signed", "streamed"]
FOLDERS = ["encrypted-folder", "folder"]
ENCRYPTED = {"both", "encrypted", "encrypted-folder", "streamed"}
SIGNED = {"both", "signed"}
LARGE_OBJECT = "SELECT encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata"
ORDERS = "SELECT md5(string_agg(o::text, ';' ORDER BY id)) FROM public.orders o"


@pytest.fixture
def old(tmp_path: Path, server_of: MajorServer) -> Project:
    """A copy of the store and the ledger, and a configuration with the identity."""
    made = Project(folder=tmp_path / "service", url=server_of(16).url())
    shutil.copytree(WRITTEN / "store", made.store)
    (made.folder / ".opskit").mkdir()
    shutil.copy(WRITTEN / "ledger.jsonl", made.folder / ".opskit")
    identity = made.folder / "identity"
    shutil.copy(WRITTEN / "keys" / "identity", identity)
    identity.chmod(0o600)
    made.configure(f"[encryption]\nidentity_file = {json.dumps(str(identity))}")
    return made


@pytest.fixture
def target(server_of: MajorServer) -> Iterator[str]:
    """The name of a database that is dropped after the test."""
    yield "from 0.1"
    with connect(server_of(16).url(), purpose="test") as connection:
        database.drop(connection, "from 0.1")


def _backup_id(old: Project, source: str) -> str:
    (path,) = old.store.glob(f"{source}/*/*/manifest.json")
    return path.parent.name


def test_all_are_listed_with_their_proof(old: Project) -> None:
    """The evidence of 0.1 counts; each shows what is in it."""
    listed = {each["source"]: each for each in old.json("backups")["backups"]}

    assert sorted(listed) == sorted(DATABASES + FOLDERS)
    assert {each["proof"] for each in listed.values()} == {"drilled"}
    for source, each in listed.items():
        shown = old.json("backups", "--backup", each["backup_id"])
        assert shown["encrypted"] is (source in ENCRYPTED)
        assert (shown["tables"], shown["rows"]) == (
            (3, 80) if source in DATABASES else (0, 0)
        )
        assert [drill["passed"] for drill in shown["drills"]] == [True]


def test_signatures_are_checked(old: Project) -> None:
    """Where the key is trusted, the signed sets and their evidence count, no others."""
    key = (WRITTEN / "keys" / "signing.pub").read_text().strip()
    old.configure(f"[signing]\ntrusted_keys = [{json.dumps(key)}]")

    listed = {e["source"]: e["proof"] for e in old.json("backups")["backups"]}

    assert listed == dict.fromkeys(SIGNED, "drilled")


def test_every_byte_is_verified_without_an_identity(old: Project) -> None:
    """The digests of the stored bytes are all that is needed."""
    old.configure()

    verified = old.json("verify")
    (dump,) = old.store.glob("encrypted/*/*/dump.pgdump.zst.age")
    flip(dump)
    damaged = old.json("verify", code=20)

    stored = sum(
        len(json.loads(path.read_bytes())["objects"])
        for path in old.store.glob("*/*/*/manifest.json")
    )
    assert (verified["status"], verified["objects"]) == ("ok", stored)
    assert [each["key"] for each in damaged["bad"]] == [
        dump.relative_to(old.store).as_posix()
    ]


@pytest.mark.parametrize("source", DATABASES)
def test_a_database_is_drilled_and_restored(
    source: str, old: Project, server_of: MajorServer, target: str
) -> None:
    """Compared with the digests that 0.1 took, sealed or not."""
    backup_id = _backup_id(old, source)

    drill = old.json("restore-drill", "--backup", backup_id, "--mutants", "2")
    restored = old.json(
        "restore", "--backup", backup_id, "--to", server_of(16).url(target)
    )

    assert [e["name"] for e in drill["checks"] if not e["passed"]] == []
    assert {"table public.orders", "large objects", "definitions", "mutants"} <= {
        each["name"] for each in drill["checks"]
    }
    assert (drill["tables"], drill["rows"]) == (3, 80)
    assert (restored["tables"], restored["rows"]) == (3, 80)
    copy = server_of(16).url(target)
    assert value(copy, LARGE_OBJECT) == "00ff10"
    assert value(copy, "SELECT sum(total) FROM public.large") == 915
    assert value(copy, ORDERS) == "1c909d4f4752b360a572dc51e508c9e2"


@pytest.mark.parametrize("source", FOLDERS)
def test_a_folder_is_drilled_and_restored(source: str, old: Project) -> None:
    """Compared entry by entry with what 0.1 recorded."""
    backup_id, target = _backup_id(old, source), old.folder / "restored"

    drill = old.json("restore-drill", "--backup", backup_id, "--mutants", "2")
    old.json("restore", "--backup", backup_id, "--to", str(target))

    assert (drill["passed"], drill["files"]) == (True, 7)
    assert (target / "latest").read_text() == "Dear customer,\n"
    assert (target / "letters" / "linked.txt").samefile(target / "latest")
    assert (target / "queue.db").read_bytes() == bytes(range(256)) * 4
    assert (target / "holes.bin").stat().st_size == 300_003


def test_the_ledger_goes_on(old: Project) -> None:
    """Its chain is whole, its copies are its lines, and new records follow."""
    ledger = old.folder / ".opskit" / "ledger.jsonl"
    before = ledger.read_bytes()
    copies = sorted(old.store.glob("_ledger/*/*.json"))

    old.json("verify")
    verified = old.json("ledger", "--verify")

    assert b"".join(each.read_bytes() for each in copies) == before
    assert ledger.read_bytes().startswith(before)
    operations = [each["operation"] for each in verified["entries"]]
    assert operations[:3] == ["backup", "verify", "restore-drill"]
    assert operations[len(before.splitlines()) :] == ["verify"]
