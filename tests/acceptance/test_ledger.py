"""The ledger as a user sees it: one record a run, its copies, and what it notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.services import KEEP_ONE, Service

STORES = ["local", "offsite"]


@dataclass
class Recorded(Service):
    """A service with a ledger."""

    @property
    def ledger(self) -> Path:
        """The file."""
        return self.folder / ".opskit" / "ledger.jsonl"

    @property
    def lines(self) -> list[bytes]:
        """The records, as they stand in the file."""
        return self.ledger.read_bytes().splitlines(keepends=True)

    def copies(self, store: str) -> list[Path]:
        """Return the copies in a store, in the order of the records."""
        return sorted((self.folder / store).glob("_ledger/*/*.json"))

    def operations(self, *arguments: str) -> list[str]:
        """Return what was run, in order."""
        entries = self.json("ledger", *arguments)["entries"]
        return [str(each["operation"]) for each in entries]

    def faults(self) -> list[str]:
        """Verify a ledger that is not whole, and return what is told."""
        document = self.json("ledger", "--verify", code=20)
        assert document["faults"][0] in document["error"]
        return [str(each) for each in document["faults"]]


def make(folder: Path) -> Recorded:
    """Return a service of which one run of each kind is on record."""
    made = Recorded(folder=folder)
    made.set_up(KEEP_ONE, stores=STORES)
    made.fill(orders='{"open": 3}')
    backup_id = made.back_up()
    made.run("verify")
    made.run("restore-drill")
    made.run("restore", "--backup", backup_id, "--to", str(folder / "back"))
    made.run("prune")
    made.run("copy", "--from", "local", "--to", "offsite")
    return made


ALL = ["backup", "verify", "restore-drill", "restore", "prune", "copy"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, Path]:
    """A service with records, and a copy of all its folders."""
    folder = tmp_path_factory.mktemp("ledger")
    made = make(folder / "service")
    shutil.copytree(made.folder, folder / "as it was", copy_function=shutil.copy2)
    return made, folder / "as it was"


@pytest.fixture
def service(prepared: tuple[Recorded, Path]) -> Iterator[Recorded]:
    """A service with a ledger that is whole; what is done to it is undone."""
    made, as_it_was = prepared
    yield made
    shutil.rmtree(made.folder)
    shutil.copytree(as_it_was, made.folder, copy_function=shutil.copy2)


def test_each_run_has_one_record_and_each_record_its_copies(service: Recorded) -> None:
    """Backup, verify, drill, restore, prune, copy; looking at the ledger is no run."""
    assert service.operations("--verify") == ALL
    assert service.operations() == ALL
    for store in STORES:
        stored = [each.read_bytes() for each in service.copies(store)]
        assert stored == service.lines
    words = service.run("ledger", "--verify")
    assert "6 records, the chain is whole and equal to its copies" in words


def test_a_run_that_failed_is_on_record_with_its_code(service: Recorded) -> None:
    """And its record is copied as well."""
    target = service.folder / "back"
    (listed,) = service.json("backups")["backups"]
    service.json(
        "restore", "--backup", listed["backup_id"], "--to", str(target), code=2
    )

    last = service.json("ledger", "--verify")["entries"][-1]

    assert (last["operation"], last["outcome"]) == ("restore", "failed")
    assert last["details"]["code"] == 2
    assert len(service.copies("offsite")) == 7


def _edited(line: bytes, **changes: Any) -> bytes:
    return json.dumps(json.loads(line) | changes, sort_keys=True).encode() + b"\n"


def _changed(service: Recorded) -> None:
    lines = service.lines
    lines[2] = _edited(lines[2], outcome="failed")
    service.ledger.write_bytes(b"".join(lines))


def _last_changed(service: Recorded) -> None:
    lines = service.lines
    lines[-1] = _edited(lines[-1], outcome="failed")
    service.ledger.write_bytes(b"".join(lines))


def _removed(service: Recorded) -> None:
    lines = service.lines
    service.ledger.write_bytes(b"".join(lines[:2] + lines[3:]))


def _reordered(service: Recorded) -> None:
    lines = service.lines
    lines[2], lines[3] = lines[3], lines[2]
    service.ledger.write_bytes(b"".join(lines))


def _cut(service: Recorded) -> None:
    service.ledger.write_bytes(b"".join(service.lines[:-1]))


def _torn(service: Recorded) -> None:
    service.ledger.write_bytes(service.ledger.read_bytes()[:-30])


def _gone(service: Recorded) -> None:
    service.ledger.unlink()


def _third(service: Recorded) -> Path:
    # By its number: which of two ledgers comes first depends on the folder's name.
    (path,) = [
        each for each in service.copies("offsite") if each.name.startswith("00000003-")
    ]
    return path


def _copy_changed(service: Recorded) -> None:
    path = _third(service)
    path.chmod(0o600)
    path.write_bytes(_edited(path.read_bytes(), outcome="failed"))


def _copy_removed(service: Recorded) -> None:
    _third(service).unlink()


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_changed, "record 2 was changed here: its copy is another"),
        (_last_changed, "record 5 was changed here: its copy is another"),
        (_removed, "record 2 was removed here: its copy is there"),
        (_reordered, "record 2 was moved or repeated here"),
        (_cut, "the end was cut off here: the copies go on (record 5)"),
        (_torn, "the end was cut off here: the copies go on (record 5)"),
        (_gone, "the whole ledger is gone here; 6 of its records are there"),
        (_copy_changed, "store offsite: record 3 was changed in the store"),
        (_copy_removed, "record 3 is missing there, though it was copied"),
    ],
)
def test_what_was_done_to_the_ledger_is_told(
    service: Recorded, tamper: Callable[[Recorded], None], words: str
) -> None:
    """Exit code 20, and which record it was."""
    tamper(service)

    assert [each for each in service.faults() if words in each], service.faults()


def test_a_ledger_that_was_lost_is_rebuilt_by_the_next_run(service: Recorded) -> None:
    """With the whole state folder gone, out of the copies, and it is told."""
    before = service.lines
    shutil.rmtree(service.folder / ".opskit")

    service.run("verify")
    told = service.errors

    assert service.lines[:6] == before
    assert "was rebuilt: 6 records" in told
    assert service.operations("--verify") == [*ALL, "verify"]


def test_a_store_that_was_away_gets_its_copies_later(service: Recorded) -> None:
    """The run meanwhile is on record; the next run copies both records."""
    away = service.folder / "away"
    (service.folder / "offsite").rename(away)
    service.json("backup", code=10)
    alone = [each.name for each in service.copies("local")]
    unsure = service.json("ledger", "--verify", code=10)
    away.rename(service.folder / "offsite")
    behind = service.json("ledger", "--verify")
    without = len(service.copies("offsite"))
    service.run("verify")

    assert (len(alone), without) == (7, 6)
    assert "offsite" in unsure["error"]
    assert len(behind["entries"]) == 7
    assert [each.name for each in service.copies("offsite")] == [
        each.name for each in service.copies("local")
    ]
    assert service.operations("--verify") == [*ALL, "backup", "verify"]


def test_a_new_machine_begins_its_own_and_looks_at_the_old_one(
    service: Recorded, tmp_path: Path
) -> None:
    """Another state folder, the same store: both chains are verified there."""
    machine = Recorded(folder=tmp_path / "new")
    machine.folder.mkdir()
    (machine.folder / "opskit.toml").write_text(
        f'[stores.offsite]\nurl = "{(service.folder / "offsite").as_uri()}"\n'
    )

    first = machine.operations("--verify")
    machine.run("verify")
    own = machine.operations("--verify")
    _copy_changed(service)
    noticed = machine.faults()

    assert (first, own) == ([], ["verify"])
    assert len(service.copies("offsite")) == 7
    assert "record 3" in noticed[0]
