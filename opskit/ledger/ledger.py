"""Append-only record of every run, each record chained to the one before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opskit import files
from opskit.ledger import chain
from opskit.ledger.chain import LedgerEntry
from opskit.log import masked


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What the copies give back of a ledger whose file is gone.

    Either all of its lines, or the next number and the reasons why the lines cannot be
    recovered; neither if the ledger is new.
    """

    lines: tuple[bytes, ...] = ()
    next_number: int = 0
    reasons: tuple[str, ...] = ()


class Ledger:
    """A file of JSON lines; each line holds the SHA-256 of the line before it.

    `recover` is called, under the ledger's lock, before the first record is written
    into a file that is empty or missing.
    """

    def __init__(
        self, path: Path, *, recover: Callable[[], Recovered] | None = None
    ) -> None:
        self.path = path
        self._recover = recover

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
        files.make_directories(self.path.parent)
        lock = self.path.with_suffix(".lock")
        with files.locked(lock, what=f"the ledger {self.path}"):
            lines = self._content().splitlines()
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
            chain.parse(line, what=f"record {number} of {self.path}")
            for number, line in enumerate(self._content().splitlines())
        ]

    def readable(self) -> tuple[list[LedgerEntry], list[str]]:
        """Return every finished record that can be read, and what `verify` returns."""
        lines = self.lines()
        return chain.readable(lines), chain.faults(lines, where=str(self.path))

    @property
    def state(self) -> tuple[int, int]:
        """What is another when the file has changed: its size and its time."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_size, status.st_mtime_ns)

    def verify(self) -> list[str]:
        """Return what is wrong with the chain, one line a fault; empty when whole."""
        return chain.faults(self._content().splitlines(), where=str(self.path))

    def lines(self) -> list[bytes]:
        """Return the finished lines: not one that a run has not written to its end."""
        return self._content().rpartition(b"\n")[0].splitlines()

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _bring_back(
        self, recovered: Recovered, *, now: datetime, run_id: str
    ) -> list[bytes]:
        if recovered.lines:
            files.write_atomically(
                self.path, (line + b"\n" for line in recovered.lines), mode=0o600
            )
        elif recovered.next_number:
            marker = chain.beginning(
                number=recovered.next_number,
                now=now,
                run_id=run_id,
                reasons=recovered.reasons,
            )
            self._write(chain.to_line(marker))
        return self._content().splitlines()

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if self._content()[-1:] not in (b"", b"\n"):
                file.write(b"\n")  # so that a torn line does not swallow this record
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
