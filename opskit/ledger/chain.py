"""The chain: each record is a line of JSON that holds the SHA-256 of the line before.

Pure; lines are without the newline at their end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import datetime

from opskit.errors import IntegrityError

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
    seconds: float | None = None


_FIELDS = {each.name for each in fields(LedgerEntry)}


def digest(line: bytes) -> str:
    """Return the SHA-256 of a line, as the next one holds it."""
    return hashlib.sha256(line).hexdigest()


def to_line(entry: LedgerEntry) -> bytes:
    """Return a record as it is stored."""
    return json.dumps(vars(entry), sort_keys=True).encode()


def parse(line: bytes, *, what: str) -> LedgerEntry:
    """Read a line; fields of later versions are passed over.

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
    """Return the lines that are records, with a time and details."""
    entries = []
    for line in lines:
        with suppress(IntegrityError, ValueError, TypeError):
            entry = parse(line, what="it")
            if datetime.fromisoformat(entry.time).tzinfo and isinstance(
                entry.details, dict
            ):
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


def faults(lines: Sequence[bytes], *, where: str) -> list[str]:
    """Return what is wrong with the chain, one sentence a fault; empty when whole."""
    problems = []
    first = first_number(lines)
    if first:
        problems.append(f"the {first} records before record {first} are lost")
    previous = START
    for number, line in enumerate(lines, start=first):
        try:
            entry = parse(line, what=f"record {number} of {where}")
        except IntegrityError as error:
            problems.append(error.message)
        else:
            if entry.sequence != number:
                problems.append(f"record {number} carries the number {entry.sequence}")
            if entry.previous != previous:
                problems.append(
                    f"record {number} does not follow the record before it: one of "
                    "the two was changed, removed or moved"
                )
        previous = digest(line)
    return problems
