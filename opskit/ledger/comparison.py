"""Copies of a ledger compared with each other and with its file; no store is asked."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from opskit.errors import IntegrityError
from opskit.ledger.ledger import digest, faults, first_number, parse

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
            entry = parse(self.line, what="it")
        except IntegrityError:
            return True  # no record here either: a torn line was copied as it was
        return entry.sequence == self.number


def short(line: bytes) -> str:
    return digest(line)[:_SHORT]


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
    problems = [*broken(copies), *forks(copies)]
    # No list of them: whoever may write to the store chooses how many there are.
    for before, number in pairwise([-1, *sorted({each.number for each in copies})]):
        if number == before + 2:
            problems.append(f"record {before + 1} is missing in the store")
        elif number > before + 2:
            problems.append(
                f"records {before + 1} to {number - 1} are missing in the store"
            )
    return problems or faults(ordered(copies), where=where)


def ordered(copies: Iterable[Copy]) -> list[bytes]:
    """Return the lines of intact copies in the order of their numbers, each once."""
    lines = {
        (each.number, each.short): each.line
        for each in copies
        if each.line is not None and each.is_intact
    }
    return [line for _, line in sorted(lines.items())]


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

    def lost_here(self) -> list[str]:
        """Return which records of the store are not in the file."""
        problems = []
        cut = []
        here = set(self.here)
        # The highest number in the store of a record that is here too.
        common = max((self.number_there.get(each, -1) for each in here), default=-1)
        for number, shorts in sorted(self.there.items()):
            if number < self.first or shorts & here:
                continue
            instead = self.here[number - self.first : number - self.first + 1]
            if instead and instead[0] not in self.number_there:
                problems.append(
                    f"record {number} was changed here: its copy is another"
                )
            elif number > common:
                cut.append(number)
            else:
                problems.append(f"record {number} was removed here: its copy is there")
        if cut:
            problems.append(
                f"the end was cut off here: the copies go on (record {ranges(cut)})"
            )
        return problems

    def out_of_place(self) -> list[str]:
        """Return which records of the file stand in another order than in the store."""
        problems = []
        highest = -1
        for each in self.here:
            number = self.number_there.get(each)
            if number is None:
                continue
            if number <= highest:
                problems.append(f"record {number} was moved or repeated here")
            highest = max(highest, number)
        return problems

    def not_there(self, sent: int) -> tuple[list[str], list[int]]:
        """Return the faults, and the numbers that simply have not been copied yet."""
        problems = []
        waiting = []
        here = set(self.here)
        last = max(self.there, default=-1)
        for number, each in enumerate(self.here, start=self.first):
            if each in self.number_there:
                continue
            others = self.there.get(number, set())
            if others & here:
                problems.append(f"record {number} was added here: no copy is of it")
            elif others:
                continue  # reported as changed, or as a fork
            elif number < max(sent, last):
                problems.append(
                    f"record {number} is missing there, though it was copied"
                )
            else:
                waiting.append(number)
        return problems, waiting


def compare(
    lines: Sequence[bytes], copies: Sequence[Copy], *, sent: int
) -> tuple[list[str], list[int]]:
    """Return how a file and its copies differ, and which records are not copied yet.

    `sent` is the number of the first record not sent. If both were written by this
    ledger alone, and nothing was altered since, there is no fault, however much was
    copied so far.
    """
    problems = [*broken(copies), *forks(copies)]
    if not lines:
        if copies:
            number = len({each.number for each in copies})
            problems.append(
                f"the whole ledger is gone here; {number} of its records are there"
            )
        return problems, []
    sides = _Sides(first=first_number(lines), here=[short(line) for line in lines])
    for each in copies:
        sides.there[each.number].add(each.short)
        sides.number_there[each.short] = each.number
    missing, waiting = sides.not_there(sent)
    return [*problems, *sides.lost_here(), *sides.out_of_place(), *missing], waiting
