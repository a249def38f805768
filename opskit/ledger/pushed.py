"""Remembers beside a ledger how much of it each store was sent.

It saves asking the store. Without it nothing is lost: the store is asked again.
"""

from __future__ import annotations

import json
from pathlib import Path

from opskit import files
from opskit.errors import IntegrityError

_Table = dict[str, dict[str, int]]


def path_of(ledger: Path) -> Path:
    """Return where it lies."""
    return ledger.with_suffix(".copies.json")


def read(ledger: Path, *, ledger_id: str, store: str) -> int:
    """Return the number of the first record not sent yet; 0 if that is not known."""
    try:
        number = json.loads(path_of(ledger).read_bytes())[ledger_id][store]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    return number if isinstance(number, int) else 0


def write(ledger: Path, number: int, *, ledger_id: str, store: str) -> None:
    """Remember the number of the first record not sent yet.

    Raises:
        LockHeld: another run has kept the file locked for long.
    """

    def change(table: _Table) -> _Table:
        table.setdefault(ledger_id, {})[store] = number
        return table

    empty: _Table = {}
    try:
        files.update_json(path_of(ledger), change, default=empty)
    except (IntegrityError, AttributeError, TypeError):
        path_of(ledger).unlink(missing_ok=True)
        files.update_json(path_of(ledger), change, default=empty)
