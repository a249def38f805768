"""A ledger of a few records, and stores that hold its copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from opskit.errors import StoreError
from opskit.ledger import Ledger, LedgerEntry
from opskit.ledger.copies import connected, push
from opskit.store import ObjectInfo, Store
from tests.memory_store import MemoryStore

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
NAME = "web-0123abcd"
COUNT = 6


def append(ledger: Ledger, number: int) -> LedgerEntry:
    """Add a record that says which one it is."""
    return ledger.append(
        now=NOW,
        run_id=f"run{number}",
        operation="backup",
        outcome="ok",
        details={"number": number},
    )


def filled(path: Path, stores: Sequence[Store], *, name: str = NAME) -> Ledger:
    """Return a ledger with records, all of them copied."""
    ledger = ledger_of(path, stores, name=name)
    for number in range(COUNT):
        append(ledger, number)
    copy(ledger, stores, name=name)
    return ledger


def ledger_of(
    path: Path,
    stores: Sequence[Store],
    *,
    name: str = NAME,
    warnings: list[str] | None = None,
) -> Ledger:
    """Return the ledger as a run has it."""
    said = [] if warnings is None else warnings
    return connected(path, ledger_id=name, stores=stores, warn=said.append)


def copy(ledger: Ledger, stores: Iterable[Store], *, name: str = NAME) -> list[str]:
    """Copy what is not copied yet."""
    return push(ledger, ledger_id=name, stores=stores)


def replace_object(store: Store, key: str, content: bytes) -> None:
    """Put other bytes in the place of an object."""
    store.delete(key)
    store.put(key, [content])


class Unreachable(MemoryStore):
    """Answers nothing while it is down."""

    def __init__(self, name: str = "down", *, after_puts: int = 0) -> None:
        super().__init__(name)
        self.puts_left: int | None = after_puts

    def _check(self) -> None:
        if self.puts_left == 0:
            raise StoreError(f"store {self.name} is down")

    def put(self, key: str, chunks: Iterable[bytes]) -> ObjectInfo:
        """See `Store.put`."""
        self._check()
        if self.puts_left:
            self.puts_left -= 1
        return super().put(key, chunks)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        self._check()
        return super().list(prefix)
