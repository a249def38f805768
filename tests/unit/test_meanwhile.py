"""Tables compared during the load: when each is due, and what counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from opskit.catalog.manifest import TableRecord
from opskit.checks import Check
from opskit.compare import contents
from opskit.compare.contents import Meanwhile, RestoredCopy
from opskit.errors import ServerFault
from opskit.postgres import content
from opskit.postgres.inventory import Inventory
from opskit.workspace import Limits
from tests.unit.entries import entry

ROOT = ("public", "log")


def _table(name: str, **fields: Any) -> TableRecord:
    values = {"schema": "public", "rows": 1, "digest": "0" * 32}
    return TableRecord.model_validate(values | {"name": name} | fields)


TABLES = (
    _table("a"),
    _table("p1", via_root=ROOT),
    _table("b"),
    _table("p2", via_root=ROOT),
    _table("never"),
)
ENTRIES = [
    entry(number, "TABLE DATA", table.name) for number, table in enumerate(TABLES, 1)
] + [entry(9, "INDEX", "a")]


class Reads:
    """Stands for the reading of tables: notes what was read, answers as it is told."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []
        self.differ: set[str] = set()
        self.lost: set[str] = set()
        self.changed: set[str] = set()
        self.runs_code = False
        self.read = threading.Semaphore(0)

    def check_tables(
        self, _connection: object, unit: Sequence[TableRecord], _alive: object
    ) -> tuple[Check, bool]:
        names = [each.name for each in unit]
        self.names.append(names)
        self.read.release()
        if self.lost.intersection(names):
            raise ServerFault("the connection was lost", hint="Look.")
        return Check(name=names[0], passed=not self.differ.intersection(names)), True

    def is_as_written(
        self,
        _connection: object,
        _schema: str,
        name: str,
        _columns: object,
        *,
        rows: int,
        by: str,
    ) -> bool:
        assert (rows, by) == (1, name)
        return name not in self.changed


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """What is read in place of tables."""
    made = Reads()
    monkeypatch.setattr(contents, "check_tables", made.check_tables)
    monkeypatch.setattr(content, "use_encoding", lambda *_: None)
    monkeypatch.setattr(content, "writer", lambda _connection, _schema, name: name)
    monkeypatch.setattr(content, "is_as_written", made.is_as_written)
    monkeypatch.setattr(content, "runs_own_code", lambda _connection: made.runs_code)
    return made


class Session:
    """Stands for a session, which a dropped copy ends."""

    lost = False

    def execute(self, _statement: str) -> None:
        if self.lost:
            raise ServerFault("the connection was lost", hint="Look.")


def _copy(jobs: int = 2, session: Session | None = None) -> RestoredCopy:
    @contextmanager
    def connect() -> Iterator[Session]:
        yield session or Session()

    manifest = SimpleNamespace(inventory=Inventory(encoding="UTF8"))
    limits = Limits(seconds=60, jobs=jobs)
    made = SimpleNamespace(
        tables=TABLES, limits=limits, manifest=manifest, connect=connect
    )
    return cast(RestoredCopy, made)


def test_a_table_is_read_once_its_rows_are_in(reads: Reads) -> None:
    """While the load goes on; an entry that is no data starts nothing."""
    with Meanwhile(_copy(), ENTRIES, alone=False) as meanwhile:
        for number in (9, 3, 3):
            meanwhile.loaded(number)
        assert reads.read.acquire(timeout=30)

        assert reads.names == [["b"]]
        assert list(meanwhile.settle()) == [("public", "b")]


def test_partitions_wait_for_each_other(reads: Reads) -> None:
    """Rows of one may have come to another: they are read when all are in."""
    with Meanwhile(_copy(), ENTRIES, alone=False) as meanwhile:
        meanwhile.loaded(4)
        meanwhile.loaded(1)
        meanwhile.loaded(2)

        assert set(meanwhile.settle()) == {("public", "a"), ROOT}

    assert sorted(reads.names) == [["a"], ["p1", "p2"]]


def test_only_what_is_equal_counts(reads: Reads) -> None:
    """What differs now is compared again when everything has been loaded."""
    reads.differ = {"a"}

    with Meanwhile(_copy(), ENTRIES, alone=False) as meanwhile:
        meanwhile.loaded(1)
        meanwhile.loaded(3)
        equal = meanwhile.settle()

    assert list(equal) == [("public", "b")]
    assert all(check.passed for check in equal.values())


def test_what_was_written_into_later_does_not_count(reads: Reads) -> None:
    """Of partitions that are taken together, one is enough."""
    reads.changed = {"b", "p2"}

    with Meanwhile(_copy(), ENTRIES, alone=False) as meanwhile:
        for number in (1, 2, 3, 4):
            meanwhile.loaded(number)
        for _ in TABLES[:-2]:
            assert reads.read.acquire(timeout=30)

        assert list(meanwhile.settle()) == [("public", "a")]


@pytest.mark.parametrize(
    ("alone", "runs_code", "definition", "still"),
    [
        (True, False, "", [("public", "a")]),
        (False, False, "", []),
        (True, True, "", []),
        (True, False, "CREATE VIEW v AS SELECT * FROM ts_stat('SELECT f()')", []),
        (True, False, "CHECK (query_to_xml('SELECT f()'::text) IS NULL)", []),
    ],
)
def test_a_table_is_looked_at_again_where_somebody_may_write(
    reads: Reads, alone: bool, runs_code: bool, definition: str, still: list[object]
) -> None:
    """Others, the database's functions, or a statement that is given as text."""
    reads.runs_code = runs_code
    reads.changed = {"a"}
    entries = [*ENTRIES, entry(10, "VIEW", "v", definition=definition)]

    with Meanwhile(_copy(), entries, alone=alone) as meanwhile:
        meanwhile.loaded(1)
        assert reads.read.acquire(timeout=30)

        assert list(meanwhile.settle()) == still


def test_what_is_read_after_the_load_is_not_looked_at_again(reads: Reads) -> None:
    """Nobody has written since."""
    reads.changed = {"a"}

    with Meanwhile(_copy(jobs=1), ENTRIES, alone=False) as meanwhile:
        meanwhile.settle()
        meanwhile.loaded(1)

        assert list(meanwhile.settle()) == [("public", "a")]


def test_nothing_counts_of_a_copy_that_was_dropped(reads: Reads) -> None:
    """Another try makes another one of the same name."""
    session = Session()

    with Meanwhile(_copy(session=session), ENTRIES, alone=True) as meanwhile:
        meanwhile.loaded(1)
        assert reads.read.acquire(timeout=30)
        session.lost = True

        assert dict(meanwhile.settle()) == {}


def test_a_lost_connection_ends_one_reader(reads: Reads) -> None:
    """It is no error here; what it would have read is left for later."""
    reads.lost = {"a"}

    with Meanwhile(_copy(jobs=1), ENTRIES, alone=False) as meanwhile:
        meanwhile.loaded(1)
        meanwhile.loaded(3)
        equal = meanwhile.settle()

    assert dict(equal) == {}
    assert reads.names == [["a"]]


def test_leaving_ends_the_readers(reads: Reads) -> None:
    """Also where nothing was announced, and where an error ends the load."""
    before = set(threading.enumerate())
    readers: set[threading.Thread] = set()

    def load() -> None:
        with Meanwhile(_copy(8), ENTRIES, alone=False):
            readers.update(set(threading.enumerate()) - before)
            raise ValueError("load")

    with pytest.raises(ValueError, match="load"):
        load()

    assert len(readers) == 4
    assert not readers & set(threading.enumerate())
    assert reads.names == []
