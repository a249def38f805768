"""Ledger: a record that was changed, removed or moved is found."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from opskit import files
from opskit.errors import IntegrityError, OpskitError
from opskit.ledger import Ledger, LedgerEntry
from tests.unit import processes

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
COUNT = 5
WRITTEN_BY_0_1 = Path(__file__).parents[1] / "fixtures/written_by_0_1/ledger.jsonl"
# Nothing follows the last record: only a copy of the file can tell of its loss.
FOLLOWED = range(COUNT - 1)
_APPEND = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from opskit.ledger import Ledger
for number in range(20):
    Ledger(Path(sys.argv[1])).append(
        now=datetime.now(UTC), run_id=sys.argv[2], operation="backup", outcome="ok",
        details={"number": number})
"""


def _append(ledger: Ledger, number: int) -> LedgerEntry:
    return ledger.append(
        now=NOW,
        run_id=f"run{number}",
        operation="backup",
        outcome="ok",
        details={"source": "shöp\r\n\u2028", "number": number},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a ledger with a few records."""
    found = tmp_path / "state" / "ledger.jsonl"
    for number in range(COUNT):
        _append(Ledger(found), number)
    return found


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_records_come_back_as_they_were_written(path: Path) -> None:
    """Entries are read oldest first, each as `append` has returned it."""
    last = _append(Ledger(path), COUNT)
    entries = Ledger(path).entries()

    assert [each.sequence for each in entries] == list(range(COUNT + 1))
    assert [each.run_id for each in entries] == [f"run{n}" for n in range(COUNT + 1)]
    assert entries[-1] == last
    assert last.time == "2026-03-10T12:00:00+00:00"
    assert last.details == {"source": "shöp\r\n\u2028", "number": COUNT}


def test_a_whole_ledger_has_no_faults(path: Path) -> None:
    """A ledger that nobody touched is whole, and so is one that does not exist."""
    assert Ledger(path).verify() == []
    assert Ledger(path.with_name("none")).verify() == []
    assert Ledger(path.with_name("none")).entries() == []


def test_each_record_holds_the_digest_of_the_one_before(path: Path) -> None:
    """The chain can be checked with stock tools: SHA-256 of the line before it."""
    lines = path.read_bytes().split(b"\n")[:-1]
    digests = ["0" * 64, *(hashlib.sha256(line).hexdigest() for line in lines)]

    assert [json.loads(line)["previous"] for line in lines] == digests[:-1]


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """Nobody else may read what was run."""
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_records_of_version_0_1_stay_readable_and_chained(tmp_path: Path) -> None:
    """They lack the start and the duration; those that follow them have both."""
    path = tmp_path / "ledger.jsonl"
    shutil.copy(WRITTEN_BY_0_1, path)
    before = Ledger(path).entries()
    Ledger(path).append(
        now=NOW,
        run_id="new",
        operation="backup",
        outcome="ok",
        details={},
        started_at=NOW - timedelta(seconds=7.25),
        seconds=7.25,
    )
    *old, new = Ledger(path).entries()

    assert old == before
    assert old
    assert {(each.started_at, each.seconds) for each in old} == {(None, None)}
    assert (new.started_at, new.seconds) == ("2026-03-10T11:59:52.750000+00:00", 7.25)
    assert Ledger(path).verify() == []
    path.write_bytes(path.read_bytes().replace(b'"passed": true', b'"passed": null', 1))
    assert Ledger(path).verify() != []


def test_fields_of_a_later_version_are_passed_over(path: Path) -> None:
    """A record that says more than is known today is a record all the same."""
    lines = _lines(path)
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"mood": "fine"}).encode() + b"\n"
    path.write_bytes(b"".join(lines))

    assert Ledger(path).entries()[-1].run_id == f"run{COUNT - 1}"
    assert Ledger(path).verify() == []


@pytest.mark.parametrize("number", FOLLOWED)
def test_a_changed_record_is_found(path: Path, number: int) -> None:
    """Another outcome in a record is found at the record that follows it."""
    lines = _lines(path)
    lines[number] = lines[number].replace(b'"ok"', b'"no"')
    path.write_bytes(b"".join(lines))
    faults = Ledger(path).verify()

    assert len(faults) == 1
    assert faults[0].startswith(f"record {number + 1} does not follow")


@pytest.mark.parametrize("number", FOLLOWED)
def test_a_removed_record_is_found(path: Path, number: int) -> None:
    """Without one of its records the chain does not hold."""
    lines = _lines(path)
    del lines[number]
    path.write_bytes(b"".join(lines))
    faults = Ledger(path).verify()

    assert f"record {number} carries the number {number + 1}" in faults
    assert any(each.startswith(f"record {number} does not follow") for each in faults)


@pytest.mark.parametrize("number", FOLLOWED)
def test_swapped_records_are_found(path: Path, number: int) -> None:
    """Two records in each other's place are found."""
    lines = _lines(path)
    lines[number : number + 2] = lines[number + 1], lines[number]
    path.write_bytes(b"".join(lines))

    assert Ledger(path).verify()


@pytest.mark.parametrize("number", range(COUNT + 1))
def test_an_inserted_record_is_found(path: Path, number: int) -> None:
    """A copy of a record at any place is found."""
    lines = _lines(path)
    lines.insert(number, lines[0])
    path.write_bytes(b"".join(lines))

    assert Ledger(path).verify()


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"not json\n", b"\xff\n", b"1\n"])
def test_what_is_no_record_is_found(path: Path, line: bytes) -> None:
    """A line that is no record is reported by `verify` and refused by `entries`."""
    path.write_bytes(b"".join([*_lines(path)[:2], line]))

    assert "record 2 of" in Ledger(path).verify()[0]
    with pytest.raises(IntegrityError, match="is not a ledger record"):
        Ledger(path).entries()


def test_processes_that_append_at_once_keep_the_chain(tmp_path: Path) -> None:
    """Records of runs at the same time take turns: none is lost, the chain holds."""
    path = tmp_path / "ledger.jsonl"
    running = [processes.start(_APPEND, path, f"run{number}") for number in range(4)]
    for process in running:
        process.communicate(timeout=60)

    assert [process.returncode for process in running] == [0] * 4
    assert len(Ledger(path).entries()) == 80
    assert Ledger(path).verify() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", "NaN"),
        ("seconds", "Infinity"),
        ("seconds", '"x"'),
        ("details", "[]"),
        ("time", '"2026-01-01"'),
    ],
)
def test_records_whose_fields_are_of_another_type_are_not_read(
    path: Path, field: str, value: str
) -> None:
    """Whoever shows records need not expect such values."""
    ledger = Ledger(path)
    odd = json.dumps(json.loads(_lines(path)[0]) | {field: "@"}).replace('"@"', value)
    path.write_bytes(path.read_bytes() + odd.encode() + b"\n")

    assert len(ledger.readable()[0]) == COUNT


def test_a_torn_record_does_not_swallow_the_next(path: Path) -> None:
    """After a crash in the middle of a record, the next run's is a line of its own."""
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    _append(Ledger(path), COUNT)

    assert json.loads(path.read_bytes().splitlines()[-1])["run_id"] == f"run{COUNT}"


def test_names_that_are_no_text_are_recorded(path: Path) -> None:
    """An error that names a table of a SQL_ASCII database is recorded like any other."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    Ledger(path).append(
        now=NOW, run_id="a", operation="backup", outcome="failed", details={"e": name}
    )

    assert Ledger(path).entries()[-1].details == {"e": name}
    assert Ledger(path).verify() == []


def test_a_lock_that_stays_taken_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for another process is bounded and ends in an error of our own."""
    monkeypatch.setattr(files, "LOCK_WAIT_SECONDS", 0.05)

    with FileLock(path.with_suffix(".lock")), pytest.raises(OpskitError):
        _append(Ledger(path), COUNT)
