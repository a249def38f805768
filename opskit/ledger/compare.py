"""Compares the lines of a ledger's file with the copies in one store: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from opskit.ledger import chain, copies
from opskit.ledger.copies import StoredCopy


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
    faults = [*copies.broken(stored), *copies.forks(stored)]
    if not lines:
        if stored:
            count = len({each.name.number for each in stored})
            faults.append(
                f"the whole ledger is gone here; {count} of its records are there"
            )
        return Comparison(faults=tuple(faults))
    sides = _Sides(
        first=chain.first_number(lines), here=[copies.short(line) for line in lines]
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
        notes.append(f"not yet copied: {copies.ranges(waiting)}")
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
            f"the end was cut off here: the copies go on (record {copies.ranges(cut)})"
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
