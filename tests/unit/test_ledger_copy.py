"""Copies of the ledger: pushed once, caught up with, and compared with the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from opskit.catalog import catalog, sets
from opskit.ledger import Ledger, comparison, copies
from opskit.ledger.copies import (
    LedgerReport,
    read_copies,
    verify_with_copies,
)
from opskit.ledger.ledger import sent_path
from opskit.store import ObjectInfo, Store
from tests.faulty import Crash, FaultyStore
from tests.memory_store import MemoryStore
from tests.unit.ledgers import (
    COUNT,
    NAME,
    Unreachable,
    append,
    copy,
    filled,
    ledger_of,
    replace_object,
)
from tests.unit.store_contract import keys, read

FOLDER = f"_ledger/{NAME}/"
NUMBERS = range(COUNT)


@pytest.fixture
def store() -> MemoryStore:
    """A store that holds the copies."""
    return MemoryStore("a")


@pytest.fixture
def ledger(tmp_path: Path, store: MemoryStore) -> Ledger:
    """A ledger with a few records, all of them copied."""
    return filled(tmp_path / "ledger.jsonl", [store])


def _lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def _verify(ledger: Ledger, *stores: Store) -> LedgerReport:
    return verify_with_copies(ledger, ledger_id=NAME, stores=stores)


def _of_store(report: LedgerReport) -> list[str]:
    """Return the faults that the copies show, without the store's name."""
    begin = "store a: "
    return [e.removeprefix(begin) for e in report.faults if e.startswith(begin)]


def _key(store: Store, number: int) -> str:
    (found,) = keys(store, f"{FOLDER}{number:08d}-")
    return found


def test_the_copies_in_a_row_are_the_file(ledger: Ledger, store: MemoryStore) -> None:
    """Stock tools rebuild the file: `cat` over the copies in the order of their keys."""
    found = keys(store)

    assert b"".join(read(store, key) for key in found) == ledger.path.read_bytes()
    assert [PurePosixPath(key).name for key in found] == [
        f"{n:08d}-{hashlib.sha256(line[:-1]).hexdigest()[:16]}.json"
        for n, line in enumerate(_lines(ledger))
    ]
    assert _verify(ledger, store) == LedgerReport(faults=())


def test_copies_are_no_backup_sets(store: MemoryStore, ledger: Ledger) -> None:
    """The catalog passes over the folder of the ledgers."""
    found = catalog.read([store])

    assert (found.sets, found.unreadable) == ((), ())
    assert sets.places_of(store.list()) == []


def test_the_name_is_made_of_host_and_folder() -> None:
    """The same host and folder give one name, each other another, all fit for keys."""
    name = copies.ledger_id("Web 1.example", PurePosixPath("/var/lib/opskit"))
    digest = hashlib.sha256(b"Web 1.example/var/lib/opskit").hexdigest()

    assert name == f"web-1-example-{digest[:8]}"
    assert copies.ledger_id("Web 1.example", PurePosixPath("/srv")) != name
    assert copies.ledger_id("Web 2.example", PurePosixPath("/var/lib/opskit")) != name
    assert copies.ledger_id("...", PurePosixPath("/")).startswith("host-")


def test_only_what_is_new_is_copied(tmp_path: Path, store: MemoryStore) -> None:
    """A run puts its own record and asks the store nothing but for the last one."""
    ledger = filled(tmp_path / "ledger.jsonl", [store])
    counting = _Counting(store)
    append(ledger, COUNT)
    copy(ledger, [counting])

    assert (counting.puts, counting.lists) == (1, 0)
    assert len(keys(store)) == COUNT + 1


class _Counting(FaultyStore):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.lists = 0

    def list(self, prefix: str = ""):
        self.lists += 1
        return super().list(prefix)


def test_a_store_that_was_down_is_caught_up_with(tmp_path: Path) -> None:
    """A failure is reported, costs the other store nothing, and the next run makes it up."""
    down, up = Unreachable("down"), MemoryStore("up")
    ledger = ledger_of(tmp_path / "ledger.jsonl", [])
    append(ledger, 0)
    first = copy(ledger, [down, up])
    waiting = _verify(ledger, up)
    append(ledger, 1)
    down.puts_left = None
    second = copy(ledger, [down, up])

    assert first == ["the ledger was not copied to store down: store down is down"]
    assert waiting.faults == ()
    assert second == []
    assert keys(down) == keys(up)
    assert len(keys(up)) == 2


def test_what_was_not_copied_yet_is_a_note(tmp_path: Path) -> None:
    """Records that wait for a store are noted, but nothing is wrong with them."""
    store = Unreachable("a", after_puts=COUNT - 2)
    ledger = filled(tmp_path / "ledger.jsonl", [store])
    store.puts_left = None
    report = _verify(ledger, store)

    assert report.faults == ()
    assert report.notes == (f"store a: not yet copied: {COUNT - 2} to {COUNT - 1}",)


@pytest.mark.parametrize("crash_at", range(1, COUNT + 1))
def test_a_killed_run_is_caught_up_with(
    tmp_path: Path, store: MemoryStore, crash_at: int
) -> None:
    """Wherever copying dies, and whether it noted it or not, the next run goes on."""
    ledger = ledger_of(tmp_path / "ledger.jsonl", [])
    for number in NUMBERS:
        append(ledger, number)
    with pytest.raises(Crash):
        copy(ledger, [FaultyStore(store, crash_at=crash_at)])
    half = _verify(ledger, store)
    sent_path(ledger.path).unlink(missing_ok=True)
    done = copy(ledger, [store])

    assert half.faults == ()
    assert done == []
    assert len(keys(store)) == COUNT
    assert _verify(ledger, store) == LedgerReport(faults=())


def test_another_store_of_the_same_name_gets_everything(
    ledger: Ledger, store: MemoryStore
) -> None:
    """Where the last copy is gone, the store is asked and gets what it lacks."""
    fresh = MemoryStore("a")
    warnings = copy(ledger, [fresh])

    assert keys(fresh) == keys(store)
    assert warnings == [
        "store a lacked records that were copied there, they were copied again: 0 to 5"
    ]


def test_a_changed_record_does_not_replace_a_lost_copy(
    ledger: Ledger, store: MemoryStore
) -> None:
    """Where a store was emptied, the copies elsewhere still make the file again."""
    copy(ledger, [MemoryStore("b")])
    emptied = MemoryStore("b")
    right = _lines(ledger)
    ledger.path.write_bytes(b"".join(right).replace(b'"ok"', b'"no"', 1))
    append(ledger, COUNT)
    warnings = copy(ledger, [store, emptied])
    ledger.path.unlink()
    again = ledger_of(ledger.path, [store, emptied])
    append(again, COUNT + 1)

    assert warnings == [
        "store b lacked records that were copied there, this damaged ledger cannot "
        "replace them: 0 to 5"
    ]
    assert right == _lines(again)[:COUNT]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"web-0123abcd": 1}'])
def test_a_broken_note_of_what_was_sent_does_no_harm(
    ledger: Ledger, store: MemoryStore, content: bytes
) -> None:
    """The store is asked instead, and the note is written anew."""
    sent_path(ledger.path).write_bytes(content)
    append(ledger, COUNT)
    warnings = copy(ledger, [store])

    assert warnings == []
    assert len(keys(store)) == COUNT + 1
    found = json.loads(sent_path(ledger.path).read_bytes())
    assert found == {NAME: {"a": COUNT + 1}}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_record_changed_here_is_named(
    ledger: Ledger, store: MemoryStore, number: int
) -> None:
    """The copy tells which of two records was changed, also of the very last."""
    lines = _lines(ledger)
    lines[number] = lines[number].replace(b'"ok"', b'"no"')
    ledger.path.write_bytes(b"".join(lines))

    assert _of_store(_verify(ledger, store)) == [
        f"record {number} was changed here: its copy is another"
    ]


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_a_record_removed_here_is_named(
    ledger: Ledger, store: MemoryStore, number: int
) -> None:
    """A record that is missing in the middle is the only fault between the two."""
    lines = _lines(ledger)
    del lines[number]
    ledger.path.write_bytes(b"".join(lines))

    assert _of_store(_verify(ledger, store)) == [
        f"record {number} was removed here: its copy is there"
    ]


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_records_moved_here_are_named(
    ledger: Ledger, store: MemoryStore, number: int
) -> None:
    """Two records in each other's place are known by the one that comes late."""
    lines = _lines(ledger)
    lines[number : number + 2] = lines[number + 1], lines[number]
    ledger.path.write_bytes(b"".join(lines))

    assert _of_store(_verify(ledger, store)) == [
        f"record {number} was moved or repeated here"
    ]


@pytest.mark.parametrize("left", range(1, COUNT))
def test_a_ledger_cut_at_its_end_is_found(
    ledger: Ledger, store: MemoryStore, left: int
) -> None:
    """What the chain alone cannot tell: the store holds more than the file."""
    ledger.path.write_bytes(b"".join(_lines(ledger)[:left]))
    report = _verify(ledger, store)

    assert ledger.verify() == []
    assert len(report.faults) == 1
    assert report.faults[0] == (
        "store a: the end was cut off here: the copies go on "
        f"(record {comparison.ranges(range(left, COUNT))})"
    )


def test_a_ledger_made_anew_with_a_whole_chain_is_found(
    ledger: Ledger, store: MemoryStore, tmp_path: Path
) -> None:
    """Whoever rewrites the file from a record on, digests and all, is found there."""
    forged = ledger_of(tmp_path / "forged.jsonl", [])
    for number in NUMBERS:
        append(forged, number if number < 3 else 100 + number)
    ledger.path.write_bytes(forged.path.read_bytes())

    assert ledger.verify() == []
    assert _of_store(_verify(ledger, store)) == [
        f"record {number} was changed here: its copy is another" for number in (3, 4, 5)
    ]


def test_a_file_that_is_gone_is_found(ledger: Ledger, store: MemoryStore) -> None:
    """Before the next run has rebuilt it, a missing file is a fault."""
    ledger.path.unlink()

    assert _verify(ledger, store).faults == (
        f"store a: the whole ledger is gone here; {COUNT} of its records are there",
    )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("change", ["content", "cut"])
def test_a_record_changed_in_the_store_is_named(
    ledger: Ledger, store: MemoryStore, number: int, change: str
) -> None:
    """A copy that is not what its own name says is reported, and nothing else."""
    key = _key(store, number)
    content = read(store, key)
    other = content.replace(b'"ok"', b'"no"') if change == "content" else content[:-9]
    replace_object(store, key, other)

    assert _verify(ledger, store).faults == (
        f"store a: record {number} was changed in the store",
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_a_copy_that_is_missing_is_named(
    ledger: Ledger, store: MemoryStore, number: int
) -> None:
    """A record that was copied and is not there any more is no record that waits."""
    store.delete(_key(store, number))

    assert _verify(ledger, store).faults == (
        f"store a: record {number} is missing there, though it was copied",
    )


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_a_hole_among_the_copies_is_a_fault_of_its_own(
    ledger: Ledger, store: MemoryStore, number: int
) -> None:
    """Copies are made in their order: a later one tells that an earlier one was there."""
    sent_path(ledger.path).unlink()
    store.delete(_key(store, number))

    assert _verify(ledger, store).faults == (
        f"store a: record {number} is missing there, though it was copied",
    )


def test_a_copy_under_another_number_is_named(
    ledger: Ledger, store: MemoryStore
) -> None:
    """A record that was filed elsewhere in the store is not the one of that number."""
    key = _key(store, COUNT - 1)
    content = read(store, key)
    store.delete(key)
    store.put(key.replace("00000005-", "00000009-"), [content])

    assert "store a: record 9 was changed in the store" in _verify(ledger, store).faults


def test_two_runs_that_copy_at_once_do_not_disturb_each_other(
    ledger: Ledger, store: MemoryStore
) -> None:
    """What another run has just put is as good as one's own."""

    class Overtaken(FaultyStore):
        def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
            content = b"".join(chunks)
            store.put(key, [content])
            return super().put(key, [content])

    append(ledger, COUNT)

    assert copy(ledger, [Overtaken(store)]) == []
    assert _verify(ledger, store) == LedgerReport(faults=())


def test_a_ledger_that_was_cut_and_went_on_is_a_fork(
    ledger: Ledger, store: MemoryStore
) -> None:
    """New records after a cut are copied too, beside those whose numbers they carry."""
    ledger.path.write_bytes(b"".join(_lines(ledger)[:4]))
    append(ledger, 77)
    warnings = copy(ledger, [store])
    found = _of_store(_verify(ledger, store))

    assert warnings == []
    assert len(keys(store)) == COUNT + 1
    assert [each.partition(" (")[0] for each in found] == [
        "2 records carry the number 4",
        "the end was cut off here: the copies go on",
    ]


def test_a_record_added_here_is_named(ledger: Ledger, store: MemoryStore) -> None:
    """A record put between two others has no copy."""
    lines = _lines(ledger)
    lines.insert(2, lines[2].replace(b'"ok"', b'"no"'))
    ledger.path.write_bytes(b"".join(lines))

    assert _of_store(_verify(ledger, store)) == [
        "record 2 was added here: no copy is of it"
    ]


def test_a_store_that_is_down_is_reported_apart(
    ledger: Ledger, store: MemoryStore
) -> None:
    """What could not be compared is no fault of the ledger, and not silently left out."""
    report = _verify(ledger, Unreachable("down"), store)

    assert report.faults == ()
    assert [each.message for each in report.unreachable] == ["store down is down"]


def test_keys_of_others_in_the_folder_are_passed_over(
    ledger: Ledger, store: MemoryStore
) -> None:
    """What does not bear the name of a copy is nothing of ours."""
    for key in (
        "_ledger/x",
        f"{FOLDER}notes.txt",
        f"{FOLDER}a/00000000-{'0' * 16}.json",
    ):
        store.put(key, [b"foreign"])

    assert _verify(ledger, store) == LedgerReport(faults=())
    assert [len(found) for found in read_copies(store).values()] == [COUNT]


def test_a_run_that_appends_meanwhile_makes_no_fault(
    ledger: Ledger, store: MemoryStore
) -> None:
    """A record that comes while the store is read is neither lost nor missing."""

    class Meanwhile(FaultyStore):
        def open(self, key: str, start: int = 0):
            append(ledger, 50)
            copy(ledger, [store])
            return super().open(key, start)

    assert _verify(ledger, Meanwhile(store)).faults == ()
