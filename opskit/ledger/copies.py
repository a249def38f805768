"""Copies of a ledger's records in a store: their keys, and how they are compared.

Pure; `opskit.ledger.sync` reads and writes them. A copy holds the line of a record and
its newline, so that `cat` over a ledger's copies gives its file.
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
_KEY = re.compile(
    r"_ledger/(?P<ledger>[^/]+)/(?P<number>\d{8,})-(?P<short>[0-9a-f]{16})\.json"
)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The copy of a record; `short` is how the SHA-256 in its key begins.

    `line` is None if it could not be read, or was not read yet.
    """

    ledger_id: str
    number: int
    short: str
    line: bytes | None = None

    @property
    def key(self) -> str:
        """The key in a store."""
        return f"{FOLDER}{self.ledger_id}/{self.number:08d}-{self.short}.json"

    @property
    def is_intact(self) -> bool:
        """Whether its line is the record that its key names."""
        if self.line is None or short(self.line) != self.short:
            return False
        try:
            entry = chain.parse(self.line, what="it")
        except IntegrityError:
            return True  # no record here either: a torn line was copied as it was
        return entry.sequence == self.number


def ledger_id(hostname: str, state_dir: PurePath) -> str:
    """Return the name of a ledger: its host's, and a digest of host and folder.

    A rebuilt machine with the same name and folder gets the same one.
    """
    place = f"{hostname}{state_dir}".encode("utf-8", "surrogateescape")
    slug = re.sub(r"[^a-z0-9]+", "-", hostname.lower())[:40].strip("-")
    return f"{slug or 'host'}-{hashlib.sha256(place).hexdigest()[:8]}"


def short(line: bytes) -> str:
    """Return how the SHA-256 of a line begins."""
    return chain.digest(line)[:_SHORT]


def parse_key(key: str) -> Copy | None:
    """Return the copy that has this key, its line not read; None if it is no copy."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return Copy(
        ledger_id=match["ledger"], number=int(match["number"]), short=match["short"]
    )


def broken(copies: Iterable[Copy]) -> list[str]:
    """Return which copies are not what their own keys say."""
    return [
        f"record {each.number} "
        + ("cannot be read" if each.line is None else "was changed in the store")
        for each in copies
        if not each.is_intact
    ]


def forks(copies: Iterable[Copy]) -> list[str]:
    """Return the numbers that two different records carry."""
    shorts: dict[int, set[str]] = defaultdict(set)
    for each in copies:
        shorts[each.number].add(each.short)
    return [
        f"{len(several)} records carry the number {number} "
        f"({', '.join(sorted(several))})"
        for number, several in sorted(shorts.items())
        if len(several) > 1
    ]


def chain_faults(copies: Sequence[Copy], *, where: str) -> list[str]:
    """Return what is wrong with a ledger that is known from its copies alone."""
    numbers = {each.number for each in copies}
    missing = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
    faults = [*broken(copies), *forks(copies)]
    faults += [f"record {number} is missing in the store" for number in missing]
    return faults or chain.faults(ordered(copies), where=where)


def ordered(copies: Iterable[Copy]) -> tuple[bytes, ...]:
    """Return the lines of intact copies in the order of their numbers, each once."""
    lines = {
        (each.number, each.short): each.line
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


@dataclass
class _Sides:
    """Both sides by how the digests of their lines begin.

    Keys hold these, so a copy whose content was changed still says which record it was.
    """

    first: int
    here: list[str]
    there: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    number_there: dict[str, int] = field(default_factory=dict)

    @property
    def last_common(self) -> int:
        """The highest number in the store of a record that is here too."""
        return max((self.number_there.get(each, -1) for each in self.here), default=-1)

    def at(self, number: int) -> str | None:
        """Return the record that stands at a number here."""
        inside = self.first <= number < self.first + len(self.here)
        return self.here[number - self.first] if inside else None


def compare(
    lines: Sequence[bytes], copies: Sequence[Copy], *, pushed: int
) -> tuple[list[str], list[int]]:
    """Return how a file and its copies differ, and which records are not copied yet.

    `pushed` is the number of the first record not sent. If both were written by this
    ledger alone, and nothing was altered since, there is no fault, however much was
    copied so far.
    """
    faults = [*broken(copies), *forks(copies)]
    if not lines:
        if copies:
            count = len({each.number for each in copies})
            faults.append(
                f"the whole ledger is gone here; {count} of its records are there"
            )
        return faults, []
    sides = _Sides(
        first=chain.first_number(lines), here=[short(line) for line in lines]
    )
    for each in copies:
        sides.there[each.number].add(each.short)
        sides.number_there[each.short] = each.number
    missing, waiting = _not_there(sides, pushed)
    return [*faults, *_lost_here(sides), *_out_of_place(sides), *missing], waiting


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
            continue  # reported as changed, or as a fork
        elif number < max(pushed, last):
            faults.append(f"record {number} is missing there, though it was copied")
        else:
            waiting.append(number)
    return faults, waiting
