"""Copies of a ledger's records in a store: their names, and what they must be like.

Pure; `opskit.ledger.sync` reads and writes them. A copy holds a record's very
line and the newline behind it, so that `cat` over a ledger's copies gives its file.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from opskit.errors import IntegrityError
from opskit.ledger import chain

FOLDER = "_ledger/"
_SHORT = 16
_NAME = re.compile(
    r"_ledger/(?P<ledger>[^/]+)/(?P<number>\d{8,})-(?P<short>[0-9a-f]{16})\.json"
)


@dataclass(frozen=True, kw_only=True)
class CopyName:
    """What the key of a copy says: whose, which, and how its line's SHA-256 begins."""

    ledger_id: str
    number: int
    short: str

    @property
    def key(self) -> str:
        """The key in a store."""
        return f"{FOLDER}{self.ledger_id}/{self.number:08d}-{self.short}.json"


@dataclass(frozen=True, kw_only=True)
class StoredCopy:
    """A copy as it was found; its line is None if it could not be read."""

    name: CopyName
    line: bytes | None

    @property
    def is_intact(self) -> bool:
        """Whether it is the record that its name says."""
        if self.line is None or short(self.line) != self.name.short:
            return False
        try:
            entry = chain.parse(self.line, what="it")
        except IntegrityError:
            return True  # no record here either: a torn line was copied as it was
        return entry.sequence == self.name.number


def ledger_id(hostname: str, state_dir: PurePath) -> str:
    """Return the name of a host's ledger: the host's, and a digest of where it lies.

    The same host and absolute folder give the same name on a machine made anew.
    """
    place = f"{hostname}{state_dir}".encode("utf-8", "surrogateescape")
    slug = re.sub(r"[^a-z0-9]+", "-", hostname.lower())[:40].strip("-")
    return f"{slug or 'host'}-{hashlib.sha256(place).hexdigest()[:8]}"


def short(line: bytes) -> str:
    """Return how the SHA-256 of a line begins."""
    return chain.digest(line)[:_SHORT]


def copy_name(ledger: str, number: int, line: bytes) -> CopyName:
    """Return the name for the copy of a record."""
    return CopyName(ledger_id=ledger, number=number, short=short(line))


def parse_key(key: str) -> CopyName | None:
    """Return what a key says, or None if it is not that of a copy."""
    found = _NAME.fullmatch(key)
    if found is None:
        return None
    return CopyName(
        ledger_id=found["ledger"], number=int(found["number"]), short=found["short"]
    )


def number_of(key: str) -> int | None:
    """Return the number of the record that a key is of."""
    name = parse_key(key)
    return None if name is None else name.number


def broken(copies: Iterable[StoredCopy]) -> list[str]:
    """Return which copies are not what their own names say."""
    return [
        f"record {each.name.number} cannot be read"
        if each.line is None
        else f"record {each.name.number} was changed in the store"
        for each in copies
        if not each.is_intact
    ]


def forks(copies: Iterable[StoredCopy]) -> list[str]:
    """Return the numbers that two different records carry."""
    found: dict[int, set[str]] = defaultdict(set)
    for each in copies:
        found[each.name.number].add(each.name.short)
    return [
        f"{len(shorts)} records carry the number {number} ({', '.join(sorted(shorts))})"
        for number, shorts in sorted(found.items())
        if len(shorts) > 1
    ]


def chain_faults(copies: Sequence[StoredCopy], *, where: str) -> list[str]:
    """Return what is wrong with a ledger that is known from its copies alone."""
    found = [*broken(copies), *forks(copies)]
    by_number = {each.name.number: each for each in copies}
    missing = sorted(set(range(max(by_number, default=-1) + 1)) - by_number.keys())
    found += [f"record {number} is missing in the store" for number in missing]
    if not found:
        found = chain.faults(ordered(copies), where=where)
    return found


def ordered(copies: Iterable[StoredCopy]) -> tuple[bytes, ...]:
    """Return the lines of intact copies in the order of their numbers, each once."""
    lines = {
        (each.name.number, each.name.short): each.line
        for each in copies
        if each.line is not None and each.is_intact
    }
    return tuple(line for _, line in sorted(lines.items()))


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: `2, 5 to 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)
