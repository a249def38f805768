"""`./inv copy`: one store is brought up to date with another, and verified there."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opskit import locks
from tests.acceptance.services import Service, archive_in, equal, flip
from tests.unit import stock

COPY = ("copy", "--from", "local", "--to", "offsite")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A folder of state, a store with its sets, and an empty one."""
    made = Service(folder=tmp_path / "service")
    made.set_up(stores=["local", "offsite"])
    made.fill(orders='{"open": 3}', users='{"known": 12}')
    return made


@pytest.fixture
def filled(service: Service) -> list[str]:
    """Three sets in the first store, oldest first."""
    now = datetime.now(UTC)
    return service.back_up_at(now - timedelta(hours=number) for number in (3, 2, 1))


def stores_of(service: Service) -> dict[str, list[str]]:
    """Return where each set lies."""
    return {e["backup_id"]: e["stores"] for e in service.json("backups")["backups"]}


def test_a_new_store_is_brought_up_to_date(service: Service, filled: list[str]) -> None:
    """Every set, oldest first, verified there; the second time there is nothing to do."""
    first = service.json(*COPY)
    again = service.json(*COPY)
    words = service.run(*COPY)

    sizes = {
        e["backup_id"]: e["size_bytes"] for e in service.json("backups")["backups"]
    }
    assert first == {
        "status": "ok",
        "run_id": first["run_id"],
        "from": "local",
        "to": "offsite",
        "sets": [
            {"backup_id": each, "copied": True, "added": 0, "bytes": sizes[each]}
            for each in filled
        ],
        "bad": [],
    }
    assert [each["copied"] for each in again["sets"]] == [False] * 3
    assert [each["added"] for each in again["sets"]] == [0] * 3
    assert [line.split(": ")[0] for line in words.splitlines()] == ["there already"] * 3
    assert stores_of(service) == {each: ["local", "offsite"] for each in filled[::-1]}
    service.set_up(stores=["offsite"])
    assert service.proofs() == dict.fromkeys(filled[::-1], "verified")
    target = service.folder / "back"
    service.run("restore", "--backup", filled[0], "--to", str(target))
    assert equal(target, service.state)


def test_one_set_alone_can_be_copied(service: Service, filled: list[str]) -> None:
    """The others stay where they are."""
    words = service.run(*COPY, "--backup", filled[1])

    assert words.startswith(f"copied {filled[1]}: ")
    assert stores_of(service) == {
        filled[2]: ["local"],
        filled[1]: ["local", "offsite"],
        filled[0]: ["local"],
    }


def test_what_is_proved_goes_along(service: Service, tmp_path: Path) -> None:
    """Evidence and its signatures: the copy is drilled too, where keys are trusted."""
    public = stock.ssh_key(tmp_path / "signing")
    signing = f"""\
[signing]
key_file = "{tmp_path / "signing"}"
trusted_keys = ["{public}"]
"""
    service.set_up(signing)
    made = service.back_up()
    service.set_up(signing, stores=["local", "offsite"])
    service.run(*COPY)
    service.run("restore-drill", "--backup", made)

    later = service.json(*COPY)
    service.set_up(signing, stores=["offsite"])

    # The drill's word, its signature and its report.
    assert (later["sets"][0]["copied"], later["sets"][0]["added"]) == (False, 3)
    assert service.proofs() == {made: "drilled"}


def test_a_copy_that_is_killed_is_made_good_by_the_next(service: Service) -> None:
    """SIGKILL between two objects: nothing is listed, and the next run completes it."""
    (service.state / "bulk").write_bytes(bytes(range(256)) * 4096)
    service.set_up()
    made = service.back_up()
    slow = f"""\
[stores.offsite]
url = "{(service.folder / "offsite").as_uri()}"
bandwidth_limit = 300
"""
    service.set_up(slow)
    process = service.start(*COPY)
    while not [*service.store_at("offsite").list("state/")]:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    half = [each.key for each in service.store_at("offsite").list("state/")]
    service.set_up(stores=["local", "offsite"])

    listed = stores_of(service)
    done = service.json(*COPY)

    assert [key.rpartition("/")[2] for key in half] == ["files.tar.zst"]
    assert listed == {made: ["local"]}
    assert [each["copied"] for each in done["sets"]] == [True]
    assert stores_of(service) == {made: ["local", "offsite"]}
    assert not list(service.store_at("offsite").unfinished())


def test_a_damaged_set_keeps_no_other_from_being_copied(
    service: Service, filled: list[str]
) -> None:
    """Exit code 20 names it; nothing that is damaged is listed in the target."""
    flip(archive_in(service.folder / "local", filled[1]))

    failed = service.json(*COPY, code=20)

    assert [each["backup_id"] for each in failed["sets"]] == [filled[0], filled[2]]
    (bad,) = failed["bad"]
    assert filled[1] in bad["key"]
    assert "files.tar.zst" in bad["reason"]
    assert filled[1] in failed["error"]
    assert stores_of(service)[filled[1]] == ["local"]
    assert not [e for e in service.store_at("offsite").list() if filled[1] in e.key]
    assert [entry["outcome"] for entry in service.json("ledger")["entries"]] == [
        "failed"
    ]


def test_a_set_whose_manifest_cannot_be_used_is_named(
    service: Service, filled: list[str]
) -> None:
    """Alone or among all; the others are copied."""
    (path,) = (service.folder / "local").glob(f"state/*/{filled[1]}/manifest.json")
    path.write_bytes(path.read_bytes()[:-20])

    alone = service.json(*COPY, "--backup", filled[1], code=20)
    among = service.json(*COPY, code=20)

    assert filled[1] in alone["error"]
    assert [each["key"].split("/")[2] for each in among["bad"]] == [filled[1]]
    assert [each["backup_id"] for each in among["sets"]] == [filled[0], filled[2]]


def test_what_was_copied_before_it_broke_off_is_told(service: Service) -> None:
    """Another run holds the second source: the first one's set is there already."""
    service.set_up(
        f"[files.other]\npath = {json.dumps(str(service.state))}\n",
        stores=["local", "offsite"],
    )
    made = [e["backup_id"] for e in service.json("backup")["backups"]]
    (service.folder / "offsite").rename(service.folder / "old")
    (service.folder / "offsite").mkdir()

    with locks.exclusive(
        service.folder / ".opskit" / "locks",
        "source-other",
        operation="backup other",
        run_id="abc123",
        now=datetime.now(UTC),
    ):
        refused = service.json(*COPY, code=11)

    assert "backup other" in refused["error"]
    assert [each["backup_id"] for each in refused["sets"]] == made[:1]
    assert refused["bad"] == []
    assert stores_of(service) == {made[1]: ["local"], made[0]: ["local", "offsite"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "local", "--to", "ofsite"], "ofsite is not a configured store"),
        (["--from", "lokal", "--to", "offsite"], "lokal is not a configured store"),
        (["--from", "local", "--to", "local"], "both local"),
        (["--from", "local"], "--to is needed"),
        (["--to", "local"], "--from is needed"),
        (["--from", "offsite", "--to", "local"], "offsite holds no backup set"),
        (
            ["--from", "local", "--to", "offsite", "--backup", "state-x"],
            "no store holds a backup set state-x",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused(
    service: Service, filled: list[str], arguments: list[str], words: str
) -> None:
    """Exit code 2: a name that is not known, or nothing to copy."""
    refused = service.json("copy", *arguments, code=2)

    assert words in refused["error"]
    assert [*service.store_at("offsite").list()] == []


def test_a_manifest_that_was_altered_in_the_target_is_told(
    service: Service, filled: list[str]
) -> None:
    """Exit code 20; the set there is left as it is."""
    service.run(*COPY)
    (path,) = (service.folder / "offsite").glob(f"state/*/{filled[1]}/manifest.json")
    altered = json.loads(path.read_text()) | {"tool_version": "0.0"}
    path.write_text(json.dumps(altered))

    failed = service.json(*COPY, code=20)

    assert [filled[1] in each["key"] for each in failed["bad"]] == [True]
    assert "another manifest" in failed["bad"][0]["reason"]
    assert len(failed["sets"]) == 2
    assert json.loads(path.read_text()) == altered


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_damage_in_the_target_is_repaired(
    service: Service, filled: list[str], damage: str
) -> None:
    """A set that is listed there is read; what is damaged or missing is put anew."""
    service.run(*COPY)
    archive = archive_in(service.folder / "offsite", filled[2])
    if damage == "flipped":
        flip(archive)
    else:
        archive.unlink()

    service.json(
        "verify", "--backup", filled[2], code=20 if damage == "flipped" else 10
    )
    found = service.proofs()[filled[2]]
    repaired = service.json(*COPY)
    words = service.run(*COPY)
    service.set_up(stores=["offsite"])

    assert found == "failed"
    assert [each.get("repaired") for each in repaired["sets"]] == [None, None, 1]
    assert "repaired" not in words
    assert service.proofs()[filled[2]] == "verified"
    assert service.json("verify")["status"] == "ok"


def test_damage_in_both_stores_is_reported(service: Service, filled: list[str]) -> None:
    """Exit code 20 names it, nothing is changed, and the other sets are copied."""
    service.run(*COPY, "--backup", filled[2])
    for store in ("local", "offsite"):
        flip(archive_in(service.folder / store, filled[2]))

    failed = service.json(*COPY, code=20)

    (bad,) = failed["bad"]
    assert filled[2] in bad["key"]
    assert "store local" in bad["reason"]
    assert [each["backup_id"] for each in failed["sets"]] == filled[:2]
    assert stores_of(service)[filled[2]] == ["local", "offsite"]
