"""The record of every run: a file of JSON lines, each with the digest of the last."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, TypeAdapter

from opskit import files
from opskit.errors import IntegrityError
from opskit.log import masked

START = "0" * 64
_MARK = "begins_after"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One run: what was asked, how it ended, and the digest of the entry before.

    `time` is when the record was written. Version 0.1 recorded neither when a run
    started nor how many seconds it took.
    """

    sequence: int
    time: str
    run_id: str
    operation: str
    outcome: str
    details: dict[str, object]
    previous: str
    started_at: str | None = None
    seconds: FiniteFloat | None = None

    @property
    def source(self) -> str:
        """The source that the run was about, empty if it was about none or all."""
        return str(self.details.get("source", ""))

    def to_line(self) -> bytes:
        """Return the record as it is stored, without the newline at its end."""
        return json.dumps(vars(self), sort_keys=True).encode()


_FIELDS = {each.name for each in fields(LedgerEntry)}


def digest(line: bytes) -> str:
    """Return the SHA-256 of a line, as the next one holds it."""
    return hashlib.sha256(line).hexdigest()


def parse(line: bytes, *, what: str) -> LedgerEntry:
    """Read a line; fields of later versions are ignored.

    Raises:
        IntegrityError: it is no record; the message calls it `what`.
    """
    try:
        read = json.loads(line).items()
        return LedgerEntry(**{key: each for key, each in read if key in _FIELDS})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{what} is not a ledger record",
            hint="Compare the file with its copy; do not edit it by hand.",
        ) from error


def readable(lines: Iterable[bytes]) -> list[LedgerEntry]:
    """Return the lines that are records, each field of its type, with a zone's time."""
    record = TypeAdapter(LedgerEntry)
    entries = []
    for line in lines:
        with suppress(ValueError):
            entry = record.validate_json(line)
            if datetime.fromisoformat(entry.time).tzinfo is not None:
                entries.append(entry)
    return entries


def beginning(
    *, number: int, now: datetime, run_id: str, reasons: Sequence[str]
) -> LedgerEntry:
    """Return the record that stands first where those before it are lost."""
    return LedgerEntry(
        sequence=number,
        time=now.isoformat(),
        run_id=run_id,
        operation="ledger",
        outcome="failed",
        details={_MARK: number, "reasons": list(reasons)},
        previous=START,
    )


def first_number(lines: Sequence[bytes]) -> int:
    """Return the number of the first line: 0, but for one made by `beginning`."""
    if not lines:
        return 0
    try:
        entry = parse(lines[0], what="the first")
        mark = entry.details.get(_MARK) if entry.operation == "ledger" else None
    except (IntegrityError, AttributeError):
        return 0
    return mark if isinstance(mark, int) and mark == entry.sequence else 0


def faults(lines: Sequence[bytes], *, where: str, since: int = -1) -> list[str]:
    """Return what is wrong with the chain, one sentence a fault; empty when whole.

    Only what is wrong from the record `since` on.
    """
    problems = []
    first = first_number(lines)
    if first > max(since, 0):
        problems.append(f"the {first} records before record {first} are lost")
    previous = START
    for number, line in enumerate(lines, start=first):
        try:
            entry = parse(line, what=f"record {number} of {where}")
        except IntegrityError as error:
            if number >= since:
                problems.append(error.message)
        else:
            if entry.sequence != number >= since:
                problems.append(f"record {number} carries the number {entry.sequence}")
            if entry.previous != previous and number > since:
                problems.append(
                    f"record {number} does not follow the record before it: one of "
                    "the two was changed, removed or moved"
                )
        previous = digest(line)
    return problems


class Ledger:
    """The file; it only grows.

    `recover` is called with the time and the run's id, under the ledger's lock, before
    the first record is written into a file that is empty or missing; it returns the
    lines to begin with.
    """

    def __init__(
        self,
        path: Path,
        *,
        recover: Callable[[datetime, str], Sequence[bytes]] = lambda _now, _run: (),
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
            lines = self._recovered(now, run_id)
            entry = LedgerEntry(
                sequence=first_number(lines) + len(lines),
                time=now.isoformat(),
                run_id=run_id,
                operation=operation,
                outcome=outcome,
                details=masked(details),
                previous=digest(lines[-1]) if lines else START,
                started_at=None if started_at is None else started_at.isoformat(),
                seconds=None if seconds is None else round(seconds, 3),
            )
            self._write(entry.to_line())
        return entry

    def recover(self, *, now: datetime, run_id: str) -> None:
        """Write what `append` would begin with, if the file is empty or missing."""
        files.make_directories(self.path.parent)
        with files.locked(
            self.path.with_suffix(".lock"), what=f"the ledger {self.path}"
        ):
            self._recovered(now, run_id)

    def _recovered(self, now: datetime, run_id: str) -> list[bytes]:
        lines = self._content().splitlines()
        if not lines and (lines := [*self._recover(now, run_id)]):
            files.write_atomically(self.path, (line + b"\n" for line in lines))
        return lines

    def entries(self) -> list[LedgerEntry]:
        """Return every record, oldest first.

        Raises:
            IntegrityError: a line is not a record.
        """
        return [
            parse(line, what=f"record {number} of {self.path}")
            for number, line in enumerate(self._content().splitlines())
        ]

    def readable(self) -> tuple[list[LedgerEntry], list[str]]:
        """Return every finished record that can be read, and what `verify` returns."""
        lines = self.lines()
        return readable(lines), faults(lines, where=str(self.path))

    @property
    def state(self) -> tuple[int, int]:
        """The size and the time of the file, which differ once it has changed."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_size, status.st_mtime_ns)

    def verify(self, *, since: int = -1) -> list[str]:
        """Return what is wrong with the chain, as `faults` does."""
        lines = self._content().splitlines()
        return faults(lines, where=str(self.path), since=since)

    def lines(self) -> list[bytes]:
        """Return the finished lines: not one that a run has not written to its end."""
        return self._content().rpartition(b"\n")[0].splitlines()

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if self._content()[-1:] not in (b"", b"\n"):
                file.write(b"\n")  # so that a torn line does not swallow this record
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())


def sent_path(ledger: Path) -> Path:
    """Return the file that says how much of a ledger each store was sent."""
    return ledger.with_suffix(".copies.json")


def _note(ledger: Path, ledger_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return that file, and what it says of a ledger; a damaged one says nothing."""
    note, of_ledger = None, None
    with suppress(FileNotFoundError, ValueError):
        note = json.loads(sent_path(ledger).read_bytes())
    if isinstance(note, dict):
        of_ledger = note.get(ledger_id)
    return (
        note if isinstance(note, dict) else {},
        of_ledger if isinstance(of_ledger, dict) else {},
    )


def sent_names(ledger: Path) -> set[str]:
    """Return under which names the records of a ledger were copied to stores."""
    return set(_note(ledger, "")[0])


def read_sent(ledger: Path, ledger_id: str, store: str) -> int:
    """Return the number of the first record not sent yet; 0 if that is not known."""
    number = _note(ledger, ledger_id)[1].get(store)
    return number if isinstance(number, int) else 0


def write_sent(ledger: Path, ledger_id: str, store: str, number: int) -> None:
    path = sent_path(ledger)
    with files.locked(path.with_name(f"{path.name}.lock"), what=str(path)):
        note, of_ledger = _note(ledger, ledger_id)
        note[ledger_id] = of_ledger | {store: number}
        files.write_text(path, json.dumps(note, indent=2, sort_keys=True) + "\n")
