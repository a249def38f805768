"""Copies of a ledger's records in a store: their names, and what they must be like.

Pure; `opskit.ledger.sync` reads and writes them. A copy holds a record's very
line and the newline behind it, so that `cat` over a ledger's copies gives its file.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Faults, and what is merely worth knowing, one sentence each."""

    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Sides:
    """Both sides by the beginnings of the digests of their lines.

    Names of copies hold these, so that a copy whose content was changed still tells
    which record it was.
    """

    first: int
    here: list[str]
    there: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    number_there: dict[str, int] = field(default_factory=dict)

    @property
    def last_common(self) -> int:
        """The highest number in the store of a record that is here too."""
        known = [self.number_there.get(each, -1) for each in self.here]
        return max(known, default=-1)

    def at(self, number: int) -> str | None:
        """Return the record that stands at a number here."""
        inside = self.first <= number < self.first + len(self.here)
        return self.here[number - self.first] if inside else None


def compare(
    lines: Sequence[bytes], stored: Sequence[StoredCopy], *, pushed: int
) -> Comparison:
    """Return how a file and its copies differ; `pushed` is the first number not sent.

    Where both were written by this ledger alone, and nothing was altered since, there
    is no fault, whatever was copied so far.
    """
    faults = [*broken(stored), *forks(stored)]
    if not lines:
        if stored:
            count = len({each.name.number for each in stored})
            faults.append(
                f"the whole ledger is gone here; {count} of its records are there"
            )
        return Comparison(faults=tuple(faults))
    sides = _Sides(
        first=chain.first_number(lines), here=[short(line) for line in lines]
    )
    for each in stored:
        sides.there[each.name.number].add(each.name.short)
        sides.number_there[each.name.short] = each.name.number
    faults += _lost_here(sides)
    faults += _out_of_place(sides)
    missing, waiting = _not_there(sides, pushed)
    faults += missing
    notes = []
    if waiting:
        notes.append(f"not yet copied: {ranges(waiting)}")
    return Comparison(faults=tuple(faults), notes=tuple(notes))


def _lost_here(sides: _Sides) -> list[str]:
    faults = []
    cut = []
    here = set(sides.here)
    for number, shorts in sorted(sides.there.items()):
        if number < sides.first or shorts & here:
            continue
        instead = sides.at(number)
        if instead is not None and instead not in sides.number_there:
            faults.append(f"record {number} was changed here: its copy is another")
        elif number > sides.last_common:
            cut.append(number)
        else:
            faults.append(f"record {number} was removed here: its copy is there")
    if cut:
        faults.append(
            f"the end was cut off here: the copies go on (record {ranges(cut)})"
        )
    return faults


def _out_of_place(sides: _Sides) -> list[str]:
    faults = []
    highest = -1
    for each in sides.here:
        number = sides.number_there.get(each)
        if number is None:
            continue
        if number <= highest:
            faults.append(f"record {number} was moved or repeated here")
        highest = max(highest, number)
    return faults


def _not_there(sides: _Sides, pushed: int) -> tuple[list[str], list[int]]:
    """Return the faults, and the numbers that simply have not been copied yet."""
    faults = []
    waiting = []
    here = set(sides.here)
    last = max(sides.there, default=-1)
    for number, each in enumerate(sides.here, start=sides.first):
        if each in sides.number_there:
            continue
        others = sides.there.get(number, set())
        if others & here:
            faults.append(f"record {number} was added here: no copy is of it")
        elif others:
            continue  # told as changed, or as a fork
        elif number < max(pushed, last):
            faults.append(f"record {number} is missing there, though it was copied")
        else:
            waiting.append(number)
    return faults, waiting
