"""Append-only record of every run, each record chained to the one before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from opskit import files
from opskit.errors import IntegrityError, LockHeld

_START = "0" * 64
_LOCK_WAIT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One run: what was asked, how it ended, and the digest of the entry before."""

    sequence: int
    time: str
    run_id: str
    operation: str
    outcome: str
    details: dict[str, object]
    previous: str


class Ledger:
    """A file of JSON lines; each line holds the SHA-256 of the line before it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(
        self,
        *,
        now: datetime,
        run_id: str,
        operation: str,
        outcome: str,
        details: dict[str, object],
    ) -> LedgerEntry:
        """Add one record durably and return it."""
        files.make_directories(self._path.parent)
        with self._locked():
            lines = self._lines()
            entry = LedgerEntry(
                sequence=len(lines),
                time=now.isoformat(),
                run_id=run_id,
                operation=operation,
                outcome=outcome,
                details=details,
                previous=_digest(lines[-1]) if lines else _START,
            )
            line = json.dumps(vars(entry), sort_keys=True) + "\n"
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
            )
            with os.fdopen(descriptor, "ab") as file:
                if self._is_torn():
                    file.write(b"\n")  # lest what a crash left swallow this record
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        return entry

    def entries(self) -> list[LedgerEntry]:
        """Return every record, oldest first.

        Raises:
            IntegrityError: a line is not a record.
        """
        return [self._parse(number, line) for number, line in enumerate(self._lines())]

    def verify(self) -> list[str]:
        """Return what is wrong with the chain, one line a fault; empty when whole."""
        faults = []
        previous = _START
        for number, line in enumerate(self._lines()):
            try:
                entry = self._parse(number, line)
            except IntegrityError as error:
                faults.append(error.message)
            else:
                if entry.sequence != number:
                    faults.append(
                        f"record {number} carries the number {entry.sequence}"
                    )
                if entry.previous != previous:
                    faults.append(
                        f"record {number} does not follow the record before it: one of "
                        "the two was changed, removed or moved"
                    )
            previous = _digest(line)
        return faults

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

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

    def _parse(self, number: int, line: bytes) -> LedgerEntry:
        try:
            return LedgerEntry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise IntegrityError(
                f"record {number} of {self._path} is not a ledger record",
                hint="Compare the file with its copy; do not edit it by hand.",
            ) from error


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
