"""A ledger whose file is gone: rebuilt from its copies, or begun after them."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.errors import ConfigurationError, StoreError
from opskit.ledger import Ledger
from opskit.ledger.copies import LedgerReport, verify_with_copies
from opskit.operations.recording import RunLedger
from opskit.store import Store
from tests.faulty import FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.ledgers import (
    COUNT,
    NAME,
    NOW,
    Unreachable,
    append,
    copy,
    filled,
    ledger_of,
    replace_object,
)
from tests.unit.store_contract import keys


@pytest.fixture
def stores() -> list[MemoryStore]:
    """Two stores."""
    return [MemoryStore("a"), MemoryStore("b")]


@pytest.fixture
def path(tmp_path: Path, stores: list[MemoryStore]) -> Path:
    """Where the ledger was whose copies lie in both stores."""
    found = tmp_path / "ledger.jsonl"
    filled(found, stores)
    return found


def _verify(ledger: Ledger, stores: list[MemoryStore]) -> LedgerReport:
    return verify_with_copies(ledger, ledger_id=NAME, stores=stores)


def _damage(store: Store, number: int) -> None:
    (key,) = keys(store, f"_ledger/{NAME}/{number:08d}-")
    replace_object(store, key, b"{}\n")


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_the_chain_goes_on_where_the_file_was_lost(
    path: Path, stores: list[MemoryStore], how: str
) -> None:
    """The next record finds all the earlier ones in their place again."""
    before = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"")
    warnings: list[str] = []
    ledger = ledger_of(path, stores, warnings=warnings)
    entry = append(ledger, COUNT)
    copy(ledger, stores)

    assert entry.sequence == COUNT
    assert path.read_bytes().startswith(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert warnings == [f"the ledger {path} was rebuilt: {COUNT} records"]
    assert _verify(ledger, stores) == LedgerReport(faults=())
    assert [len(keys(each)) for each in stores] == [COUNT + 1] * 2


def test_a_file_that_was_overwritten_can_be_put_aside(
    path: Path, stores: list[MemoryStore]
) -> None:
    """What runs add to it meanwhile reaches no store, where it would stay."""
    path.write_bytes(b"\x00not a record\n" * COUNT)
    append(ledger_of(path, stores), 7)
    warned = copy(ledger_of(path, stores), stores)
    path.unlink()
    ledger = ledger_of(path, stores)
    append(ledger, COUNT)
    copy(ledger, stores)

    assert [each.split(": ")[1] for each in warned] == [
        f"record 0 of {path} is not a ledger record"
    ] * 2
    assert _verify(ledger, stores) == LedgerReport(faults=())


def test_a_new_machine_has_the_whole_ledger(
    path: Path, stores: list[MemoryStore], tmp_path: Path
) -> None:
    """Nothing local is needed: neither the file nor the note of what was sent."""
    ledger = ledger_of(tmp_path / "new machine" / "ledger.jsonl", stores)
    append(ledger, COUNT)

    assert [each.run_id for each in ledger.entries()] == [
        f"run{number}" for number in range(COUNT + 1)
    ]
    assert ledger.verify() == []


def test_a_file_that_is_there_is_not_rebuilt(
    path: Path, stores: list[MemoryStore]
) -> None:
    """Only a ledger without any record is taken from the store."""
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    assert append(ledger_of(path, stores), 9).sequence == 1


def test_the_first_record_of_all_has_nothing_before_it(
    tmp_path: Path, stores: list[MemoryStore]
) -> None:
    """Where there are no copies, a ledger begins; nobody is warned."""
    warnings: list[str] = []
    ledger = ledger_of(tmp_path / "ledger.jsonl", stores, warnings=warnings)

    assert append(ledger, 0).sequence == 0
    assert warnings == []
    assert _verify(ledger, stores).faults == ()


def test_what_one_store_lost_another_gives(
    path: Path, stores: list[MemoryStore]
) -> None:
    """Damage in both stores does not matter where no record is damaged in both."""
    before = path.read_bytes()
    _damage(stores[0], 1)
    _damage(stores[1], COUNT - 1)
    path.unlink()
    append(ledger_of(path, stores), COUNT)

    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize("number", range(COUNT))
def test_copies_that_are_not_whole_are_not_made_a_ledger(
    path: Path, stores: list[MemoryStore], number: int
) -> None:
    """The ledger begins after them, says so in a record, and stays at fault."""
    for store in stores:
        _damage(store, number)
    path.unlink()
    warnings: list[str] = []
    ledger = ledger_of(path, stores, warnings=warnings)
    entry = append(ledger, COUNT)
    later = copy(ledger, stores)
    marker = ledger.entries()[0]

    assert (marker.sequence, entry.sequence) == (COUNT, COUNT + 1)
    assert (marker.operation, marker.outcome) == ("ledger", "failed")
    assert warnings[0].startswith(
        f"the ledger {path} cannot be rebuilt: record {number}"
    )
    assert later == []
    assert len(keys(stores[0])) == COUNT + 2
    assert _verify(ledger, stores).faults == (
        f"the {COUNT} records before record {COUNT} are lost",
        f"store a: record {number} was changed in the store",
        f"store b: record {number} was changed in the store",
    )


def test_the_front_of_a_file_is_not_taken_for_a_new_beginning(path: Path) -> None:
    """Records cut off at the front are a fault, unless a record says why."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[2:]))

    assert "record 0 carries the number 2" in Ledger(path).verify()


def test_forked_copies_are_not_made_a_ledger(
    path: Path, stores: list[MemoryStore]
) -> None:
    """Of two records with one number nobody can say which one is true."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    ledger = ledger_of(path, stores)
    append(ledger, 77)
    copy(ledger, stores)
    path.unlink()
    warnings: list[str] = []
    entry = append(ledger_of(path, stores, warnings=warnings), COUNT)

    assert entry.sequence == COUNT + 1
    assert "2 records carry the number 5" in warnings[0]


def test_a_store_that_is_down_keeps_no_record_from_being_written(
    path: Path, stores: list[MemoryStore]
) -> None:
    """It is reported, and the other store is enough."""
    path.unlink()
    warnings: list[str] = []
    entry = append(
        ledger_of(path, [Unreachable("c"), *stores], warnings=warnings), COUNT
    )

    assert entry.sequence == COUNT
    assert warnings[0] == "the ledger's copies cannot be read: store c is down"


def test_ledgers_of_other_hosts_are_verified_too(
    path: Path, stores: list[MemoryStore], tmp_path: Path
) -> None:
    """From the store alone: a change, a hole and a fork in each are named."""
    for name in ("db-1", "db-2", "db-3", "db-4"):
        filled(tmp_path / name, stores, name=name)
    ledger = ledger_of(path, stores)
    whole = _verify(ledger, stores)
    (changed,) = keys(stores[0], "_ledger/db-1/00000002-")
    replace_object(stores[0], changed, b"{}")
    stores[1].delete(keys(stores[1], "_ledger/db-2/")[3])
    line = b'{"sequence": 1}'
    stores[0].put(f"_ledger/db-3/00000001-{'1' * 16}.json", [line])

    assert whole.faults == ()
    found = _verify(ledger, stores).faults
    assert found[0] == "store a, ledger db-1: record 2 was changed in the store"
    assert found[1] == "store b, ledger db-2: record 3 is missing in the store"
    assert any(
        each.startswith("store a, ledger db-3: 2 records carry the number 1")
        for each in found
    )
    assert not any("db-4" in each for each in found)


def test_another_host_whose_chain_does_not_hold_is_named(
    tmp_path: Path, stores: list[MemoryStore]
) -> None:
    """Records that are each intact, but of two ledgers, are no chain."""
    filled(tmp_path / "one", [stores[0]], name="db-1")
    other = ledger_of(tmp_path / "two", [])
    for number in range(COUNT):
        append(other, 100 + number)
    copy(other, [stores[1]], name="db-1")
    apart = _verify(Ledger(tmp_path / "none"), stores)
    for prefix in ("00000002-", "00000003-"):
        (key,) = keys(stores[0], f"_ledger/db-1/{prefix}")
        (foreign,) = keys(stores[1], f"_ledger/db-1/{prefix}")
        stores[0].delete(key)
        with stores[1].open(foreign) as file:
            stores[0].put(foreign, [file.read()])
    mixed = _verify(Ledger(tmp_path / "none"), stores[:1])

    assert apart.faults[0].startswith("ledger db-1: 2 records carry the number 0")
    assert [each.partition(" the record")[0] for each in mixed.faults] == [
        f"store a, ledger db-1: record {number} does not follow" for number in (2, 4)
    ]


def test_copies_that_are_all_damaged_keep_no_record_from_being_written(
    path: Path, stores: list[MemoryStore]
) -> None:
    """The ledger begins after them, as after some."""
    for store in stores:
        for number in range(COUNT):
            _damage(store, number)
    path.unlink()
    ledger = ledger_of(path, stores, warnings=[])

    assert append(ledger, COUNT).sequence == COUNT + 1


def test_a_number_far_ahead_makes_no_list_of_those_before_it(
    path: Path, stores: list[MemoryStore]
) -> None:
    """Whoever may write to a store may name any number there."""
    far = 10**15
    stores[0].put(f"_ledger/db-9/{far}-{'1' * 16}.json", [b"{}"])

    faults = _verify(ledger_of(path, stores), stores).faults

    expected = f"records 0 to {far - 1} are missing in the store"
    assert f"store a, ledger db-9: {expected}" in faults


def test_a_machine_for_one_job_reads_what_the_job_before_recorded(
    path: Path, stores: list[MemoryStore], tmp_path: Path
) -> None:
    """A named ledger is there before anything is added to it, on any machine."""
    run = RunLedger(
        folder=tmp_path / "another machine",
        stores=stores,
        clock=lambda: NOW,
        name=NAME,
    )

    assert len(run.entries()) == COUNT
    assert path.read_bytes().splitlines() == run.lines()


def test_a_named_ledger_whose_store_does_not_answer_is_not_begun_anew(
    tmp_path: Path,
) -> None:
    """Without the copies nobody knows what runs: no release goes by an empty record."""
    run = RunLedger(
        folder=tmp_path, stores=[Unreachable("a")], clock=lambda: NOW, name=NAME
    )

    with pytest.raises(StoreError):
        run.entries()
    assert not (tmp_path / "ledger.jsonl").exists()


def test_the_ledger_of_another_is_not_copied_under_a_name(
    path: Path, stores: list[MemoryStore]
) -> None:
    """Its records would stand among those of the machines that share the name."""
    run = RunLedger(
        folder=path.parent, stores=stores, clock=lambda: NOW, name="github-backup"
    )

    with pytest.raises(ConfigurationError, match=f"holds the ledger {NAME}"):
        run.entries()
    assert not [*stores[0].list("_ledger/github-backup/")]


@pytest.mark.parametrize("name", ["", "github-release"])
def test_a_step_is_on_record_where_the_next_run_looks(
    tmp_path: Path, name: str
) -> None:
    """On this host that is its file; of a named ledger, a store that took the copy."""

    def ledger(folder: str, *more: Store) -> RunLedger:
        stores = [FaultyStore(MemoryStore("a"), fail_put_at=1), *more]
        return RunLedger(
            folder=tmp_path / folder, stores=stores, clock=lambda: NOW, name=name
        )

    def note(of: RunLedger) -> bool:
        return of.note("r", "release-step", {}, failed=False)

    assert note(ledger("one store")) is (not name)
    kept = MemoryStore("b")
    assert note(ledger("two stores", kept))
    assert bool([*kept.list("_ledger/")]) is bool(name)
