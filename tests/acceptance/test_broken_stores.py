"""Stores in which something is broken, foreign or hostile, and `./inv` beside them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.services import KEEP_ONE, Service, archive_in

NOW = datetime.now(UTC)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state and one store; only the newest set is kept."""
    made = Service(folder=tmp_path / "service")
    made.set_up(KEEP_ONE)
    made.fill(orders='{"open": 3}')
    return made


@pytest.fixture
def filled(service: Service) -> list[str]:
    """Three sets, oldest first."""
    return service.back_up_at(NOW - timedelta(hours=number) for number in (3, 2, 1))


def deface(path: Path, way: str) -> None:
    """Put in the place of a file what cannot be read as one."""
    content = path.read_bytes()
    path.unlink()
    if way == "pipe":
        os.mkfifo(path)
    elif way == "link":
        elsewhere = path.parents[5] / "elsewhere"
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)
    else:
        path.symlink_to("/proc/self/mem")  # its first byte is an EIO


@pytest.mark.parametrize("way", ["pipe", "link", "bad block"])
def test_an_object_that_cannot_be_read_is_a_finding_about_its_set(
    service: Service, filled: list[str], way: str
) -> None:
    """The others are read, it fails its proof, and prune keeps a readable one."""
    archive = archive_in(service.folder / "local", filled[2])
    deface(archive, way)

    verified = service.json("verify", code=20)
    proofs = service.proofs()
    pruned = service.json("prune")

    (bad,) = verified["bad"]
    assert bad["key"].endswith(f"{filled[2]}/files.tar.zst")
    assert bad["reason"].startswith("unreadable: ")
    assert proofs == {
        filled[2]: "failed",
        filled[1]: "verified",
        filled[0]: "verified",
    }
    assert filled[1] in [each["backup_id"] for each in pruned["keep"]]
    assert filled[1] in service.proofs()


@pytest.mark.parametrize("way", ["pipe", "link", "bad block"])
def test_a_manifest_that_cannot_be_read_hides_no_other_set(
    service: Service, filled: list[str], way: str
) -> None:
    """Nothing hangs; the set counts for nothing, and is not deleted."""
    archive = archive_in(service.folder / "local", filled[2])
    deface(archive.with_name("manifest.json"), way)

    listed = service.json("backups")
    verified = service.json("verify", code=20)
    drilled = service.json("restore-drill", "--backup", filled[1])
    pruned = service.json("prune")

    assert [each["backup_id"] for each in listed["backups"]] == filled[1::-1]
    assert [filled[2] in each["key"] for each in listed["unreadable"]] == [True]
    assert [filled[2] in each["key"] for each in verified["bad"]] == [True]
    assert drilled["passed"]
    assert [each["backup_id"] for each in pruned["keep"]] == [filled[1]]
    assert [each["backup_id"] for each in pruned["delete"]] == [filled[0]]
    assert archive.exists()


def test_a_source_that_fails_keeps_no_other_from_being_pruned(
    service: Service,
) -> None:
    """The document tells what was deleted all the same, with the code of the worst."""
    service.set_up(
        KEEP_ONE + f"[files.a]\npath = {json.dumps(str(service.state))}\n"
        f"[files.z]\npath = {json.dumps(str(service.state))}\n"
    )
    for _ in range(2):
        service.run("backup")
    sets = service.json("backups")["backups"]
    old = {each["source"]: each["backup_id"] for each in sets}  # the older ones
    claim = service.folder / "local/_locks/state/another/000000.json"
    claim.parent.mkdir(parents=True)
    claim.write_text("{}")

    pruned = service.json("prune", code=11)
    again = service.json("prune", code=11)
    os.utime(claim, (4_000_000_000, 4_000_000_000))
    at_last = service.json("prune")

    deleted = [each["backup_id"] for each in pruned["delete"]]
    assert sorted(deleted) == sorted([old["a"], old["z"]])
    assert [each["source"] for each in pruned["failed"]] == ["state"]
    assert again["delete"] == []
    assert [each["backup_id"] for each in at_last["delete"]] == [old["state"]]
    assert not claim.exists()


def test_what_killed_runs_left_is_swept(service: Service, filled: list[str]) -> None:
    """Temporary files in sets, among claims and reports, and in the state folder."""
    store, state = service.folder / "local", service.folder / ".opskit"
    old = [
        archive_in(store, filled[2]).with_name(".evidence.json.abcdefgh"),
        store / "_locks/state/run/.000001.json.abcdefgh",
        store / "_ledger/host/.00000001-0123456789abcdef.json.abcdefgh",
        store / "_reports/host/.2026-12-01-month-abc123.md.abcdefgh",
        state / "reports/.report.md.abcdefgh",
        state / ".ledger.jsonl.abcdefgh",
    ]
    young = state / ".state.json.abcdefgh"
    foreign = state / ".profile"
    for path in [*old, young, foreign]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    for path in [*old, foreign]:
        os.utime(path, (0, 0))
    service.run("prune")

    assert [path for path in old if path.exists()] == []
    assert young.exists()
    assert foreign.exists()


def test_a_manifest_that_lies_deletes_nothing(
    service: Service, filled: list[str]
) -> None:
    """It is no set; a newer one that is refused does not take an older one's place."""
    path = archive_in(service.folder / "local", filled[2]).with_name("manifest.json")
    told = json.loads(path.read_text())
    for change in (
        {"format_version": True},
        {"format_version": "1"},
        {"dump_bytes": 2**70},
        {"dump_bytes": -1},
        {"objects": [told["objects"][0] | {"key": "state/../../etc/passwd"}]},
    ):
        path.write_text(json.dumps(told | change))
        assert filled[2] not in service.proofs(), change
    pruned = service.json("prune")

    assert [each["backup_id"] for each in pruned["keep"]] == [filled[1]]
    assert path.exists()
