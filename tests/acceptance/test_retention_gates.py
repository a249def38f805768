"""What keeps `./inv prune` from deleting: sudden changes, drills, locks, rights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opskit.store import open_store
from tests import s3_servers
from tests.acceptance.conftest import Project
from tests.acceptance.services import KEEP_ONE, Service
from tests.s3_servers import S3Server
from tests.support import execute
from tests.unit import stock

WRITER = s3_servers.environment(s3_servers.WRITER_KEY, s3_servers.WRITER_SECRET)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state and one store; only the newest set is kept."""
    made = Service(folder=tmp_path / "service")
    made.set_up(KEEP_ONE)
    made.fill(orders='{"open": 3}')
    return made


def ids(documents: list[dict[str, Any]]) -> list[str]:
    """Return the sets that a list of a document names."""
    return [each["backup_id"] for each in documents]


def test_a_table_that_is_gone_stops_pruning_until_it_is_confirmed(
    project: Project,
) -> None:
    """Told by the backup, held by prune with 41, let go by `--confirm`."""
    project.configure(KEEP_ONE)
    (first,) = project.json("backup")["backups"]
    execute(project.url, "DROP TABLE other.orders")
    (second,) = project.json("backup")["backups"]
    execute(project.url, "DROP TABLE other.empty")
    words = project.run("backup")
    newest, *_ = ids(project.json("backups")["backups"])

    dry = project.json("prune", "--dry-run", code=41)
    refused = project.json("prune", code=41)
    listed = ids(project.json("backups")["backups"])
    project.json("prune", "--confirm", newest)
    still = project.json("prune", code=41)
    confirmed = project.json("prune", "--confirm", second["backup_id"])
    done = project.json("prune")

    gone = "table other.orders is gone (it held 100 rows)"
    assert (first["sudden_changes"], second["sudden_changes"]) == ([], [gone])
    assert "SUDDEN CHANGE: table other.empty is gone (it held 0 rows)" in words
    assert f"inv prune --confirm {newest}`" in words
    assert dry["refused"] == refused["refused"]
    assert newest in refused["refused"]
    assert "other.empty is gone" in refused["error"]
    assert f"inv prune --confirm {newest}" in refused["error"]
    assert refused["delete"] == []
    assert ids(refused["keep"]) == [newest, second["backup_id"], first["backup_id"]]
    assert listed == ids(refused["keep"])
    assert gone in still["error"]
    assert confirmed == {
        "status": "ok",
        "run_id": confirmed["run_id"],
        "backup_id": second["backup_id"],
        "confirmed": [gone],
    }
    assert sorted(ids(done["delete"])) == sorted(
        [first["backup_id"], second["backup_id"]]
    )
    assert ids(project.json("backups")["backups"]) == [newest]
    assert [
        (e["operation"], e["outcome"], e["details"].get("code"))
        for e in project.json("ledger", "--verify")["entries"][3:]
    ] == [
        ("prune", "failed", 41),
        ("confirm", "ok", None),
        ("prune", "failed", 41),
        ("confirm", "ok", None),
        ("prune", "ok", None),
    ]  # fmt: skip


def test_a_table_that_may_go_is_no_sudden_change(project: Project) -> None:
    """`ignore_drop` names tables that come and go."""
    project.configure(KEEP_ONE + 'ignore_drop = ["other.*"]\n')
    project.run("backup")
    execute(project.url, "DROP TABLE other.orders")
    (second,) = project.json("backup")["backups"]

    done = project.json("prune")

    assert second["sudden_changes"] == []
    assert len(done["delete"]) == 1


def test_a_confirmation_of_nothing_is_refused(service: Service) -> None:
    """Exit code 2: of a set without change, of none, or together with --dry-run."""
    made = service.back_up()

    calm = service.json("prune", "--confirm", made, code=2)
    unknown = service.json("prune", "--confirm", "state-x", code=2)
    both = service.json("prune", "--confirm", made, "--dry-run", code=2)

    assert "holds no sudden change" in calm["error"]
    assert "no store holds a backup set state-x" in unknown["error"]
    assert "cannot be given together" in both["error"]
    assert [e["operation"] for e in service.json("ledger")["entries"]] == ["backup"]


def test_where_keys_are_trusted_a_confirmation_must_be_signed(
    service: Service, tmp_path: Path
) -> None:
    """One that nobody signed does not count, and none is made that would not."""
    public = stock.ssh_key(tmp_path / "signing")
    trusted = f'trusted_keys = ["{public}"]\n'
    signing = f'{KEEP_ONE}[signing]\nkey_file = "{tmp_path / "signing"}"\n{trusted}'
    service.set_up(signing)
    service.fill(bulk="x" * 100_000)
    service.back_up()
    service.fill(bulk="")
    made = service.back_up()
    (folder,) = (service.folder / "local").glob(f"state/*/{made}")
    (folder / "confirmed").mkdir()
    (folder / "confirmed" / "20260101T000000Z-abcdef.json").write_text("{}")

    unsigned = service.json("prune", code=41)
    service.set_up(f"{KEEP_ONE}[signing]\n{trusted}")
    without_key = service.json("prune", "--confirm", made, code=2)
    service.set_up(signing)
    service.json("prune", "--confirm", made)
    done = service.json("prune")

    assert "size fell from" in unsigned["error"]
    assert "the confirmation would not be signed" in without_key["error"]
    assert "key_file" in without_key["hint"]
    assert len(done["delete"]) == 1


def test_sets_stay_until_a_newer_one_has_passed_a_drill(service: Service) -> None:
    """`require_drill`: backups alone push nothing out."""
    service.set_up(KEEP_ONE + "require_drill = true\n")
    now = datetime.now(UTC)
    made = service.back_up_at(now - timedelta(hours=number) for number in (3, 2, 1))

    undrilled = service.json("prune")
    service.run("restore-drill", "--backup", made[1])
    drilled = service.json("prune")
    service.run("restore-drill")
    newest = service.json("prune")

    reasons = {each["backup_id"]: each["reasons"] for each in undrilled["keep"]}
    assert undrilled["delete"] == []
    assert reasons[made[0]] == ["no newer set has passed a drill"]
    assert ids(drilled["delete"]) == [made[0]]
    assert ids(newest["delete"]) == [made[1]]
    assert service.proofs() == {made[2]: "drilled"}


def bucket(server: S3Server, place: str, more: str = "") -> str:
    """Return the configuration of a store in a bucket."""
    return f"""\
[stores.offsite]
url = "s3://{place}"
endpoint_url = "{server.endpoint_url}"
region = "us-east-1"
{more}
"""


def test_a_locked_set_stays_until_its_lock_ends(
    service: Service, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan says until when; a set whose days are over goes."""
    for name, value in s3_servers.environment().items():
        monkeypatch.setenv(name, value)
    service.environment = s3_servers.environment()
    place = f"{s3_servers.LOCKED_BUCKET}/gates"
    service.set_up(
        bucket(seaweedfs, place, "object_lock_days = 2") + KEEP_ONE, stores=[]
    )
    settings = seaweedfs.settings(s3_servers.LOCKED_BUCKET, "gates", object_lock_days=2)
    times = [datetime.now(UTC) - timedelta(days=days) for days in (3, 1.5, 0.1)]
    made = service.back_up_at(times, [open_store("offsite", settings)])

    dry = service.json("prune", "--dry-run")
    done = service.json("prune")

    reasons = {each["backup_id"]: each["reasons"] for each in dry["keep"]}
    until = times[1] + timedelta(days=2)
    assert reasons[made[1]] == [f"object lock until {until:%Y-%m-%d}"]
    assert dry | {"run_id": ""} == done | {"run_id": ""}
    assert ids(done["delete"]) == [made[0]]
    assert list(service.proofs()) == [made[2], made[1]]


def test_without_the_right_to_delete_all_but_prune_works(
    service: Service, seaweedfs: S3Server
) -> None:
    """Exit code 10 names the right that lacks; other credentials prune."""
    place = bucket(seaweedfs, f"{s3_servers.BUCKET}/writer")
    service.environment = WRITER
    service.set_up(place + KEEP_ONE)
    service.fill(bulk="x" * 100_000)
    first = service.json("backup")["backups"][0]
    (service.folder / "local").rename(service.folder / "emptied")
    service.set_up(place + KEEP_ONE)
    copied = service.json("copy", "--from", "offsite", "--to", "local")
    service.fill(bulk="")
    service.set_up(place + KEEP_ONE, stores=[])
    second = service.json("backup")["backups"][0]
    drilled = service.json("restore-drill")
    verified = service.json("verify")
    service.json("prune", "--confirm", second["backup_id"])

    refused = service.json("prune", code=10)
    listed = service.proofs()
    service.environment = s3_servers.environment()
    done = service.json("prune")
    ledger = service.json("ledger", "--verify")
    service.environment |= {"OPSKIT_STATE_DIR": "of another host"}
    another = service.json("backup")

    assert (first["stores"], second["stores"]) == (["local", "offsite"], ["offsite"])
    assert [each["copied"] for each in copied["sets"]] == [True]
    assert (drilled["passed"], verified["status"]) == (True, "ok")
    assert "s3:DeleteObject" in refused["error"] + refused["hint"]
    assert listed == {
        second["backup_id"]: "drilled",
        first["backup_id"]: "verified",
    }
    assert ids(done["delete"]) == [first["backup_id"]]
    assert (ledger["status"], another["status"]) == ("ok", "ok")
