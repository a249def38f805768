"""Append-only record of every run, each record chained to the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from opskit import files
from opskit.errors import IntegrityError, LockHeld
from opskit.ledger import chain
from opskit.ledger.chain import LedgerEntry
from opskit.log import masked

_LOCK_WAIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What the copies give back of a ledger whose file is gone.

    Either all of its lines, or the number to go on with and the reasons why its lines
    cannot be had; neither for a ledger that has just been begun.
    """

    lines: tuple[bytes, ...] = ()
    next_number: int = 0
    reasons: tuple[str, ...] = ()


class Ledger:
    """A file of JSON lines; each line holds the SHA-256 of the line before it.

    `recover` is asked, under the ledger's lock, before the first record is written
    into a file that is empty or gone.
    """

    def __init__(
        self, path: Path, *, recover: Callable[[], Recovered] | None = None
    ) -> None:
        self._path = path
        self._recover = recover

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def append(
        self,
        *,
        now: datetime,
        run_id: str,
        operation: str,
        outcome: str,
        details: dict[str, object],
        started_at: datetime | None = None,
        seconds: float | None = None,
    ) -> LedgerEntry:
        """Add one record durably, its secrets masked, and return it."""
        files.make_directories(self._path.parent)
        with self._locked():
            lines = self._lines()
            if not lines and self._recover is not None:
                lines = self._bring_back(self._recover(), now=now, run_id=run_id)
            entry = LedgerEntry(
                sequence=chain.first_number(lines) + len(lines),
                time=now.isoformat(),
                run_id=run_id,
                operation=operation,
                outcome=outcome,
                details=masked(details),
                previous=chain.digest(lines[-1]) if lines else chain.START,
                started_at=None if started_at is None else started_at.isoformat(),
                seconds=None if seconds is None else round(seconds, 3),
            )
            self._write(chain.to_line(entry))
        return entry

    def entries(self) -> list[LedgerEntry]:
        """Return every record, oldest first.

        Raises:
            IntegrityError: a line is not a record.
        """
        return [
            chain.parse(line, what=f"record {number} of {self._path}")
            for number, line in enumerate(self._lines())
        ]

    def verify(self) -> list[str]:
        """Return what is wrong with the chain, one line a fault; empty when whole."""
        return chain.faults(self._lines(), where=str(self._path))

    def lines(self) -> list[bytes]:
        """Return the finished lines: not one that a run has not written to its end."""
        try:
            finished, _, _ = self._path.read_bytes().rpartition(b"\n")
        except FileNotFoundError:
            return []
        return finished.splitlines()

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _bring_back(
        self, found: Recovered, *, now: datetime, run_id: str
    ) -> list[bytes]:
        if found.lines:
            files.write_atomically(
                self._path, (line + b"\n" for line in found.lines), mode=0o600
            )
        elif found.next_number:
            marker = chain.beginning(
                number=found.next_number,
                now=now,
                run_id=run_id,
                reasons=found.reasons,
            )
            self._write(chain.to_line(marker))
        return self._lines()

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if self._is_torn():
                file.write(b"\n")  # lest what a crash left swallow this record
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self._path.with_suffix(".lock"), timeout=_LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise LockHeld(
                f"the ledger {self._path} is locked for over "
                f"{_LOCK_WAIT_SECONDS:g} seconds",
                hint="See which process holds it; a record takes a moment only.",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _is_torn(self) -> bool:
        content = self._path.read_bytes()
        return bool(content) and not content.endswith(b"\n")


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
