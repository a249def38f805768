"""Copies of the ledger's records in the stores: written, compared, used to recover.

A copy holds the line of a record and its newline, so that `cat` over a ledger's copies
gives its file.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path, PurePath

from opskit.checks import count
from opskit.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.ledger.ledger import (
    Ledger,
    LedgerEntry,
    beginning,
    digest,
    faults,
    first_number,
    parse,
    read_sent,
    readable,
    write_sent,
)
from opskit.store import Store
from opskit.store.base import holds
from opskit.threads import Pool

FOLDER = "_ledger/"
_SHORT = 16
_READERS = 8
_LINE_BYTES_MAX = 16 * 1024 * 1024
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
        if self.line is None or _short(self.line) != self.short:
            return False
        try:
            entry = parse(self.line, what="it")
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


def _short(line: bytes) -> str:
    return digest(line)[:_SHORT]


def _parse_key(key: str) -> Copy | None:
    """Return the copy that has this key, its line not read; None if it is no copy."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return Copy(
        ledger_id=match["ledger"], number=int(match["number"]), short=match["short"]
    )


def _broken(copies: Iterable[Copy]) -> list[str]:
    """Return which copies are not what their own keys say."""
    return [
        f"record {each.number} "
        + ("cannot be read" if each.line is None else "was changed in the store")
        for each in copies
        if not each.is_intact
    ]


def _forks(copies: Iterable[Copy]) -> list[str]:
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


def _chain_faults(copies: Sequence[Copy], *, where: str) -> list[str]:
    """Return what is wrong with a ledger that is known from its copies alone."""
    problems = [*_broken(copies), *_forks(copies)]
    # No list of them: whoever may write to the store chooses how many there are.
    for before, number in pairwise([-1, *sorted({each.number for each in copies})]):
        if number == before + 2:
            problems.append(f"record {before + 1} is missing in the store")
        elif number > before + 2:
            problems.append(
                f"records {before + 1} to {number - 1} are missing in the store"
            )
    return problems or faults(_ordered(copies), where=where)


def _ordered(copies: Iterable[Copy]) -> list[bytes]:
    """Return the lines of intact copies in the order of their numbers, each once."""
    lines = {
        (each.number, each.short): each.line
        for each in copies
        if each.line is not None and each.is_intact
    }
    return [line for _, line in sorted(lines.items())]


def _ranges(numbers: Iterable[int]) -> str:
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
                f"the end was cut off here: the copies go on (record {_ranges(cut)})"
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


def _compare(
    lines: Sequence[bytes], copies: Sequence[Copy], *, sent: int
) -> tuple[list[str], list[int]]:
    """Return how a file and its copies differ, and which records are not copied yet.

    `sent` is the number of the first record not sent. If both were written by this
    ledger alone, and nothing was altered since, there is no fault, however much was
    copied so far.
    """
    problems = [*_broken(copies), *_forks(copies)]
    if not lines:
        if copies:
            number = len({each.number for each in copies})
            problems.append(
                f"the whole ledger is gone here; {number} of its records are there"
            )
        return problems, []
    sides = _Sides(first=first_number(lines), here=[_short(line) for line in lines])
    for each in copies:
        sides.there[each.number].add(each.short)
        sides.number_there[each.short] = each.number
    missing, waiting = sides.not_there(sent)
    return [*problems, *sides.lost_here(), *sides.out_of_place(), *missing], waiting


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """The result of a verification; `unreachable` stores were not compared."""

    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unreachable: tuple[StoreError, ...] = ()


def connected(
    path: Path,
    *,
    ledger_id: str,
    stores: Sequence[Store],
    warn: Callable[[str], None],
    has_moved: bool = False,
) -> Ledger:
    """Return the ledger of a file; if the file is lost, its copies restore it.

    `warn` gets a message when the file was rebuilt, when it could not be, and for each
    store that could not be read. None of these keeps a record from being written, but
    for a ledger that `has_moved` from machine to machine: its copies are the ledger,
    and if none was read and a store failed, that store's error is raised.
    """

    def recover(now: datetime, run_id: str) -> list[bytes]:
        stored: list[Copy] = []
        failed: list[StoreError] = []
        for store in stores:
            try:
                stored += read_copies(store, ledger_id).get(ledger_id, [])
            except StoreError as error:
                failed.append(error)
                warn(f"the ledger's copies cannot be read: {error.message}")
        if not stored:
            if has_moved and failed:
                raise failed[0]
            return []
        # What is damaged in one store may be whole in another.
        intact = {each.key: each for each in stored if each.is_intact}
        reasons = _chain_faults(list(intact.values()), where="the copies")
        last = max(each.number for each in stored)
        newest = max((each.number for each in intact.values()), default=-1)
        if not reasons and newest < last:
            reasons = _broken(stored)
        if not reasons:
            lines = _ordered(intact.values())
            if not has_moved:
                warn(f"the ledger {path} was rebuilt: {count(len(lines), 'record')}")
            return lines
        warn(f"the ledger {path} cannot be rebuilt: {reasons[0]}")
        mark = beginning(number=last + 1, now=now, run_id=run_id, reasons=reasons)
        return [mark.to_line()]

    return Ledger(path, recover=recover)


def push(ledger: Ledger, *, ledger_id: str, stores: Iterable[Store]) -> list[str]:
    """Copy to each store what it lacks; return warnings, and raise no failure.

    What could not be copied is tried again by the next call.
    """
    warnings: list[str] = []
    for store in stores:
        try:
            warnings += _push_to(store, ledger, ledger_id)
        except (OpskitError, OSError) as error:
            warnings.append(f"the ledger was not copied to store {store.name}: {error}")
    return warnings


def verify_with_copies(
    ledger: Ledger, *, ledger_id: str, stores: Iterable[Store]
) -> LedgerReport:
    """Check the file's chain, its copies in each store, and other hosts' ledgers.

    Without a file, as on a new machine, the chains of the copies alone are checked.
    """
    problems = ledger.verify()
    notes: list[str] = []
    unreachable: list[StoreError] = []
    others: dict[str, dict[str, list[Copy]]] = defaultdict(dict)
    for store in stores:
        # In this order, so that a record that a run adds now does not look lost.
        sent = read_sent(ledger.path, ledger_id, store.name)
        try:
            stored = read_copies(store)
        except StoreError as error:
            unreachable.append(error)
            continue
        own, waiting = _compare(ledger.lines(), stored.pop(ledger_id, []), sent=sent)
        problems += [f"store {store.name}: {each}" for each in own]
        if waiting:
            notes.append(f"store {store.name}: not yet copied: {_ranges(waiting)}")
        for name, of_another in stored.items():
            others[name][store.name] = of_another
    for name, by_store in sorted(others.items()):
        problems += _faults_of_another(name, by_store)
    return LedgerReport(
        faults=tuple(problems), notes=tuple(notes), unreachable=tuple(unreachable)
    )


def read_copies(store: Store, ledger_id: str = "") -> dict[str, list[Copy]]:
    """Return the copies in a store, by ledger, each in the order of its numbers.

    Raises:
        StoreError: the store cannot be read.
    """
    by_ledger: dict[str, list[Copy]] = defaultdict(list)
    prefix = f"{FOLDER}{ledger_id}/" if ledger_id else FOLDER
    copies = [copy for each in store.list(prefix) if (copy := _parse_key(each.key))]
    with Pool(_READERS, thread_name_prefix="ledger") as pool:
        lines = pool.map(lambda copy: _read_line(store, copy.key), copies)
        for copy, line in zip(copies, lines, strict=True):
            by_ledger[copy.ledger_id].append(replace(copy, line=line))
    for several in by_ledger.values():
        several.sort(key=lambda each: (each.number, each.short))
    return dict(by_ledger)


def records_of_others(
    store: Store, ledger_id: str, *, since: datetime
) -> list[LedgerEntry]:
    """Return the records that other ledgers have copied to a store since a time.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = [
        each.key
        for each in store.list(FOLDER)
        if each.modified_at >= since
        and (copy := _parse_key(each.key)) is not None
        and copy.ledger_id != ledger_id
    ]
    with Pool(_READERS, thread_name_prefix="ledger") as pool:
        lines = [*pool.map(lambda key: _read_line(store, key), keys)]
    return readable([each for each in lines if each is not None])


def _faults_of_another(name: str, by_store: dict[str, list[Copy]]) -> list[str]:
    problems = [
        f"store {store}, ledger {name}: {each}"
        for store, stored in by_store.items()
        for each in _chain_faults(stored, where=name)
    ]
    every = [each for stored in by_store.values() for each in stored]
    return problems or [f"ledger {name}: {each}" for each in _forks(every)]


def _read_line(store: Store, key: str) -> bytes | None:
    try:
        with store.open(key) as file:
            return file.read(_LINE_BYTES_MAX).removesuffix(b"\n")
    except ObjectNotFound:
        return None  # listed a moment ago


def _push_to(store: Store, ledger: Ledger, ledger_id: str) -> list[str]:
    """Copy what a store lacks; return warnings."""
    sent = read_sent(ledger.path, ledger_id, store.name)
    lines = ledger.lines()
    first = first_number(lines)
    own = [
        Copy(ledger_id=ledger_id, number=number, short=_short(line))
        for number, line in enumerate(lines, start=first)
    ]
    before = own[: max(0, sent - first)]
    warnings = []
    keys: set[str] = set()
    done = len(before)
    if not (before and holds(store, before[-1].key)):
        # Nothing was sent yet, or the file or the store was replaced.
        keys = {each.key for each in store.list(f"{FOLDER}{ledger_id}/")}
        done = 0
        there = {copy.number for key in keys if (copy := _parse_key(key))}
        lacking = [each.number for each in before if each.number not in there]
        again = "they were copied again"
        if lacking and faults(lines, where="the file"):
            # Another store may have the right ones, to make the file again from.
            done, again = len(before), "this damaged ledger cannot replace them"
        if lacking:
            warnings.append(
                f"store {store.name} lacked records that were copied there, "
                f"{again}: {_ranges(lacking)}"
            )
    try:
        for each, line in zip(own[done:], lines[done:], strict=True):
            # In a store it would stay, and keep the ledger from being rebuilt.
            record = parse(line, what=f"record {each.number} of {ledger.path}")
            if record.sequence != each.number:
                raise IntegrityError(f"the ledger {ledger.path} is not whole")
            if each.key not in keys:
                # It exists if another run was quicker, or this one was killed.
                with suppress(ObjectExists):
                    store.put(each.key, [line + b"\n"])
            done += 1
    finally:
        if done and first + done != sent:
            write_sent(ledger.path, ledger_id, store.name, first + done)
    return warnings


def lost_here(ledger: Ledger, *, ledger_id: str, stores: Iterable[Store]) -> list[str]:
    """Return the fault that copied records are gone here, without asking a store."""
    lines = ledger.lines()
    end = first_number(lines) + len(lines)
    sent = [read_sent(ledger.path, ledger_id, each.name) for each in stores]
    lost = max(sent, default=0) - end
    return [f"the end is gone here: {count(lost, 'record')}"] if lost > 0 else []
