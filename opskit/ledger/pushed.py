"""Remembers beside a ledger how much of it each store was sent.

It saves asking the store. Without it nothing is lost: the store is asked again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from opskit import files
from opskit.errors import IntegrityError

_Table = dict[str, dict[str, dict[str, int | str]]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The first number not sent yet, and how the digest of the one before begins."""

    next_number: int = 0
    last: str = ""


def path_of(ledger: Path) -> Path:
    """Return where it lies."""
    return ledger.with_suffix(".copies.json")


def read(ledger: Path, *, ledger_id: str, store: str) -> Sent:
    """Return what a store was sent; nothing, if that is not known."""
    try:
        found = json.loads(path_of(ledger).read_bytes())[ledger_id][store]
        number, last = found["next_number"], found["last"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Sent()
    if not isinstance(number, int) or not isinstance(last, str):
        return Sent()
    return Sent(next_number=number, last=last)


def write(ledger: Path, sent: Sent, *, ledger_id: str, store: str) -> None:
    """Remember what a store was sent.

    Raises:
        LockHeld: another run has kept the file locked for long.
    """

    def change(table: _Table) -> _Table:
        of_ledger = table.setdefault(ledger_id, {})
        of_ledger[store] = {"next_number": sent.next_number, "last": sent.last}
        return table

    empty: _Table = {}
    try:
        files.update_json(path_of(ledger), change, default=empty)
    except (IntegrityError, AttributeError, TypeError):
        path_of(ledger).unlink(missing_ok=True)
        files.update_json(path_of(ledger), change, default=empty)
