"""Copies of the ledger in the stores: push, compare, recover."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from opskit import files
from opskit.checks import count
from opskit.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.ledger import Ledger, Recovered, chain, copies
from opskit.ledger.copies import FOLDER, Copy, compare, ranges
from opskit.store import Store

_LINE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """The result of a verification; `unreachable` stores were not compared."""

    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unreachable: tuple[StoreError, ...] = ()


def connected(
    path: Path, *, ledger_id: str, stores: Sequence[Store], warn: Callable[[str], None]
) -> Ledger:
    """Return the ledger of a file; if the file is lost, its copies restore it.

    `warn` gets a message when the file was rebuilt, when it could not be, and for each
    store that could not be read. None of these keeps a record from being written.
    """

    def recover() -> Recovered:
        stored: list[Copy] = []
        for store in stores:
            try:
                stored += read_copies(store, ledger_id).get(ledger_id, [])
            except StoreError as error:
                warn(f"the ledger's copies cannot be read: {error.message}")
        recovered = recovered_from(stored)
        if recovered.lines:
            number = count(len(recovered.lines), "record")
            warn(f"the ledger {path} was rebuilt: {number}")
        elif recovered.reasons:
            warn(f"the ledger {path} cannot be rebuilt: {recovered.reasons[0]}")
        return recovered

    return Ledger(path, recover=recover)


def recovered_from(stored: Sequence[Copy]) -> Recovered:
    """Return what the copies of all stores together give back of a ledger."""
    if not stored:
        return Recovered()
    # What is damaged in one store may be whole in another.
    intact = {each.key: each for each in stored if each.is_intact}
    reasons = copies.chain_faults(list(intact.values()), where="the copies")
    last = max(each.number for each in stored)
    if not reasons and max(each.number for each in intact.values()) < last:
        reasons = copies.broken(stored)
    if reasons:
        return Recovered(next_number=last + 1, reasons=tuple(reasons))
    return Recovered(lines=copies.ordered(intact.values()))


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
    faults = ledger.verify()
    notes: list[str] = []
    unreachable: list[StoreError] = []
    others: dict[str, dict[str, list[Copy]]] = defaultdict(dict)
    for store in stores:
        # In this order, so that a record that a run adds now does not look lost.
        pushed = _read_sent(ledger.path, ledger_id, store.name)
        try:
            stored = read_copies(store)
        except StoreError as error:
            unreachable.append(error)
            continue
        own, waiting = compare(ledger.lines(), stored.pop(ledger_id, []), pushed=pushed)
        faults += [f"store {store.name}: {each}" for each in own]
        if waiting:
            notes.append(f"store {store.name}: not yet copied: {ranges(waiting)}")
        for name, of_another in stored.items():
            others[name][store.name] = of_another
    for name, by_store in sorted(others.items()):
        faults += _faults_of_another(name, by_store)
    return LedgerReport(
        faults=tuple(faults), notes=tuple(notes), unreachable=tuple(unreachable)
    )


def read_copies(store: Store, ledger_id: str = "") -> dict[str, list[Copy]]:
    """Return the copies in a store, by ledger, each in the order of its numbers.

    Raises:
        StoreError: the store cannot be read.
    """
    by_ledger: dict[str, list[Copy]] = defaultdict(list)
    prefix = f"{FOLDER}{ledger_id}/" if ledger_id else FOLDER
    for each in store.list(prefix):
        copy = copies.parse_key(each.key)
        if copy is not None:
            line = _read_line(store, each.key)
            by_ledger[copy.ledger_id].append(replace(copy, line=line))
    for several in by_ledger.values():
        several.sort(key=lambda each: (each.number, each.short))
    return dict(by_ledger)


def _faults_of_another(name: str, by_store: dict[str, list[Copy]]) -> list[str]:
    faults = [
        f"store {store}, ledger {name}: {each}"
        for store, stored in by_store.items()
        for each in copies.chain_faults(stored, where=name)
    ]
    every = [each for stored in by_store.values() for each in stored]
    return faults or [f"ledger {name}: {each}" for each in copies.forks(every)]


def _read_line(store: Store, key: str) -> bytes | None:
    try:
        with store.open(key) as file:
            return file.read(_LINE_BYTES_MAX).removesuffix(b"\n")
    except ObjectNotFound:
        return None  # listed a moment ago


def _push_to(store: Store, ledger: Ledger, ledger_id: str) -> list[str]:
    """Copy what a store lacks; return warnings."""
    sent = _read_sent(ledger.path, ledger_id, store.name)
    lines = ledger.lines()
    first = chain.first_number(lines)
    own = [
        Copy(ledger_id=ledger_id, number=number, short=copies.short(line), line=line)
        for number, line in enumerate(lines, start=first)
    ]
    before = own[: max(0, sent - first)]
    warnings = []
    keys: set[str] = set()
    done = len(before)
    if not (before and _holds(store, before[-1].key)):
        # Nothing was sent yet, or the file or the store was replaced.
        keys = {each.key for each in store.list(f"{FOLDER}{ledger_id}/")}
        done = 0
        there = {copy.number for key in keys if (copy := copies.parse_key(key))}
        if lacking := [each.number for each in before if each.number not in there]:
            warnings.append(
                f"store {store.name} lacked records that were copied there, "
                f"they were copied again: {ranges(lacking)}"
            )
    try:
        for each, line in zip(own[done:], lines[done:], strict=True):
            if each.key not in keys:
                # It exists if another run was quicker, or this one was killed.
                with suppress(ObjectExists):
                    store.put(each.key, [line + b"\n"])
            done += 1
    finally:
        if done and first + done != sent:
            _write_sent(ledger.path, ledger_id, store.name, first + done)
    return warnings


def _holds(store: Store, key: str) -> bool:
    try:
        store.stat(key)
    except ObjectNotFound:
        return False
    return True


_Table = dict[str, dict[str, int]]


def sent_path(ledger: Path) -> Path:
    """Return the file that says how much of a ledger each store was sent."""
    return ledger.with_suffix(".copies.json")


def _read_sent(ledger: Path, ledger_id: str, store: str) -> int:
    """Return the number of the first record not sent yet; 0 if that is not known."""
    try:
        number = json.loads(sent_path(ledger).read_bytes())[ledger_id][store]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    return number if isinstance(number, int) else 0


def _write_sent(ledger: Path, ledger_id: str, store: str, number: int) -> None:
    def change(table: _Table) -> _Table:
        table.setdefault(ledger_id, {})[store] = number
        return table

    path = sent_path(ledger)
    empty: _Table = {}
    try:
        files.update_json(path, change, default=empty)
    except (IntegrityError, AttributeError, TypeError):
        path.unlink(missing_ok=True)
        files.update_json(path, change, default=empty)
