"""A folder and a bucket side by side: one is down, one is damaged, one can be emptied."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.store import open_store
from tests import s3_servers
from tests.acceptance.services import Service, archive_in, equal, flip
from tests.receivers import away
from tests.s3_servers import S3Server


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state, and credentials for the bucket."""
    made = Service(folder=tmp_path / "service", environment=s3_servers.environment())
    made.fill(orders='{"open": 3}')
    return made


def with_bucket(
    service: Service, endpoint_url: str, place: str, more: str = ""
) -> None:
    """Configure a folder and a bucket; the bucket stands first in the file."""
    service.set_up(more, stores=["local"])
    path = service.folder / "opskit.toml"
    path.write_text(
        f"""\
[stores.offsite]
url = "s3://{place}"
endpoint_url = "{endpoint_url}"
region = "us-east-1"
attempts = 2
timeout = "5s"
"""
        + path.read_text()
    )


def test_a_bucket_that_is_down_leaves_the_set_in_the_folder(service: Service) -> None:
    """The backup ends with 10 and says where the set stands; it is restored from there."""
    with_bucket(service, away(), "plain/down")

    failed = service.json("backup", code=10)
    listed = service.json("backups")
    (made,) = failed["backups"]
    target = service.folder / "back"
    service.json("restore", "--backup", made["backup_id"], "--to", str(target))
    pruned = service.json("prune", code=10)

    assert "offsite" in failed["error"]
    assert made["stores"] == ["local"]
    assert [each["stores"] for each in listed["backups"]] == [["local"]]
    assert ["offsite" in each for each in listed["unreachable"]] == [True]
    assert equal(target, service.state)
    assert "offsite" in pruned["error"]
    details = service.json("ledger")["entries"][0]["details"]
    assert (details["stores"], details["failed_stores"]) == (["local"], ["offsite"])


def test_a_store_that_is_down_hides_no_sudden_change(service: Service) -> None:
    """What the other store holds is what a new set is compared with."""
    with_bucket(service, away(), "plain/down")
    service.fill(bulk="x" * 100_000)
    service.json("backup", code=10)
    service.fill(bulk="")

    (made,) = service.json("backup", code=10)["backups"]

    (change,) = made["sudden_changes"]
    assert "size fell from" in change


def test_the_nearest_copy_that_is_whole_is_restored(
    service: Service, seaweedfs: S3Server
) -> None:
    """The folder's, though the bucket stands first; damaged, the bucket's."""
    with_bucket(service, seaweedfs.endpoint_url, "plain/near")
    made = service.json("backup")["backups"][0]
    restore = ("restore", "--backup", made["backup_id"], "--to")
    targets = [service.folder / name for name in ("one", "two")]

    service.run(*restore, str(targets[0]))
    first = service.errors
    flip(archive_in(service.folder / "local"))
    service.run(*restore, str(targets[1]))
    second = service.errors
    drill = service.json("restore-drill", code=50)

    assert made["stores"] == ["local", "offsite"]
    assert "trying the next store" not in first
    assert "trying the next store" in second
    assert [equal(each, service.state) for each in targets] == [True, True]
    assert drill["passed"] is False
    assert service.proofs() == {made["backup_id"]: "failed"}


def test_what_the_bucket_has_lost_is_passed_over_too(
    service: Service, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder gone, the bucket alone gives it back; damaged too, nothing does."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)
    with_bucket(service, seaweedfs.endpoint_url, "plain/lost")
    made = service.back_up()
    target = service.folder / "back"
    bucket = open_store("offsite", seaweedfs.settings("plain", "lost"))
    (key,) = (e.key for e in bucket.list("state/") if "files.tar" in e.key)
    bucket.delete(key)
    flip(archive_in(service.folder / "local"))

    refused = service.json("restore", "--backup", made, "--to", str(target), code=20)
    verified = service.json("verify", code=20)

    assert key in refused["error"]
    assert not target.exists()
    assert [each["key"] for each in verified["bad"]] == [key, key]


def test_a_drill_that_can_destroy_what_is_in_a_folder_does_not_pass(
    service: Service,
) -> None:
    """Exit code 50 names the store and what was tried; nothing of it is left."""
    service.set_up('[drill]\ntry_to_destroy = ["local"]\nmutants = 0\n')
    service.back_up()

    drill = service.json("restore-drill", code=50)

    failed = [each["name"] for each in drill["checks"] if not each["passed"]]
    assert failed == [
        "store local: delete with the running credentials",
        "store local: overwrite with the running credentials",
    ]
    assert "store local: delete" in drill["error"]
    assert not [each for each in service.store_at().list() if "challenge" in each.key]


@pytest.mark.parametrize(("mode", "code"), [("compliance", 0), ("governance", 50)])
def test_a_locked_bucket_resists_as_far_as_its_lock_goes(
    service: Service, seaweedfs: S3Server, mode: str, code: int
) -> None:
    """Compliance keeps the bytes from everybody; an administrator lifts governance."""
    with_bucket(
        service,
        seaweedfs.endpoint_url,
        f"{s3_servers.LOCKED_BUCKET}/{mode}",
        '[drill]\ntry_to_destroy = ["offsite"]\nmutants = 0\n',
    )
    path = service.folder / "opskit.toml"
    lock = f'object_lock_days = 1\nobject_lock_mode = "{mode}"\n'
    path.write_text(path.read_text().replace("attempts", f"{lock}attempts"))
    service.back_up()

    drill = service.json("restore-drill", code=code)

    tried = {
        each["name"].removeprefix("store offsite: "): each["passed"]
        for each in drill["checks"]
        if each["name"].startswith("store offsite: ")
    }
    assert tried == {
        "delete with the running credentials": True,
        "overwrite with the running credentials": True,
        "delete of the version with the running credentials": True,
        "delete of the version in spite of governance with the running credentials": (
            mode == "compliance"
        ),
    }
    assert drill["passed"] is (code == 0)


def test_what_could_not_be_tried_is_said(service: Service) -> None:
    """The store to try is down: the drill's own finding stands, and it says so."""
    with_bucket(
        service,
        away(),
        "plain/down",
        '[drill]\ntry_to_destroy = ["offsite"]\n',
    )
    service.json("backup", code=10)

    drill = service.json("restore-drill")
    words = service.run("restore-drill")

    assert drill["passed"] is True
    assert [each["name"] for each in drill["not_checked"]] == [
        "destruction in store offsite"
    ]
    assert "NOT CHECKED destruction in store offsite: the set is not there" in words
