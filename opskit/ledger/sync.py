"""Copies of the ledger in the stores: pushed, compared, and the way back from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.checks import count
from opskit.errors import (
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.ledger import Ledger, Recovered, chain, copies
from opskit.ledger import ledger as ledger_ledger
from opskit.ledger.copies import FOLDER, StoredCopy, compare
from opskit.store import Store

_LINE_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What became of an attempt to copy: stores that failed, and what was noticed."""

    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LedgerReport:
    """What a verification found; `unreachable` stores were not compared."""

    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unreachable: tuple[StoreError, ...] = ()


def connected(
    path: Path,
    *,
    ledger_id: str,
    stores: Sequence[Store],
    told: Callable[[str], None],
) -> Ledger:
    """Return the ledger of a file; if it is lost, its copies bring it back.

    `told` gets a warning when the file was rebuilt, when it could not be, and for each
    store that could not be asked. None of these keeps a record from being written.
    """

    def recover() -> Recovered:
        found: list[StoredCopy] = []
        for store in stores:
            try:
                found += read_copies(store, ledger_id).get(ledger_id, [])
            except StoreError as error:
                told(f"the ledger's copies cannot be read: {error.message}")
        recovered = recovered_from(found)
        if recovered.lines:
            told(
                f"the ledger {path} was rebuilt: "
                f"{count(len(recovered.lines), 'record')}"
            )
        elif recovered.reasons:
            told(f"the ledger {path} cannot be rebuilt: {recovered.reasons[0]}")
        return recovered

    return Ledger(path, recover=recover)


def recovered_from(found: Sequence[StoredCopy]) -> Recovered:
    """Return what copies, of all stores together, give back of a ledger."""
    if not found:
        return Recovered()
    # What is damaged in one store may be whole in another.
    intact = {each.name.key: each for each in found if each.is_intact}
    reasons = copies.chain_faults(list(intact.values()), where="the copies")
    last = max(each.name.number for each in found)
    if not reasons and max(each.name.number for each in intact.values()) < last:
        reasons = copies.broken(found)
    if reasons:
        return Recovered(next_number=last + 1, reasons=tuple(reasons))
    return Recovered(lines=copies.ordered(intact.values()))


def push(ledger: Ledger, *, ledger_id: str, stores: Iterable[Store]) -> Pushed:
    """Copy to each store what it does not hold yet; failures are told, never raised.

    What could not be copied is tried again by the next call.
    """
    failures = []
    notes: list[str] = []
    for store in stores:
        try:
            notes += _push_to(store, ledger, ledger_id)
        except (OpskitError, OSError) as error:
            failures.append(f"the ledger was not copied to store {store.name}: {error}")
    return Pushed(failures=tuple(failures), notes=tuple(notes))


def verify_with_copies(
    ledger: Ledger, *, ledger_id: str, stores: Iterable[Store]
) -> LedgerReport:
    """Check the file's chain, its copies in each store, and other hosts' ledgers.

    With nothing here, on a new machine, the copies' own chains are all there is.
    """
    faults = list(ledger.verify())
    notes: list[str] = []
    unreachable: list[StoreError] = []
    others: dict[str, dict[str, list[StoredCopy]]] = defaultdict(dict)
    for store in stores:
        # In this order, lest what a run adds at this moment looks lost.
        sent = ledger_ledger.read(ledger.path, ledger_id=ledger_id, store=store.name)
        try:
            stored = read_copies(store)
        except StoreError as error:
            unreachable.append(error)
            continue
        lines = ledger.lines()
        own = compare(lines, stored.pop(ledger_id, []), pushed=sent)
        faults += [f"store {store.name}: {each}" for each in own.faults]
        notes += [f"store {store.name}: {each}" for each in own.notes]
        for name, found in stored.items():
            others[name][store.name] = found
    for name, by_store in sorted(others.items()):
        faults += _faults_of_another(name, by_store)
    return LedgerReport(
        faults=tuple(faults), notes=tuple(notes), unreachable=tuple(unreachable)
    )


def read_copies(store: Store, ledger_id: str = "") -> dict[str, list[StoredCopy]]:
    """Return the copies in a store, by ledger, each in the order of its numbers.

    Raises:
        StoreError: the store cannot be read.
    """
    found: dict[str, list[StoredCopy]] = defaultdict(list)
    prefix = f"{FOLDER}{ledger_id}/" if ledger_id else FOLDER
    for each in store.list(prefix):
        name = copies.parse_key(each.key)
        if name is not None:
            line = _read_line(store, each.key)
            found[name.ledger_id].append(StoredCopy(name=name, line=line))
    for several in found.values():
        several.sort(key=lambda each: (each.name.number, each.name.short))
    return dict(found)


def _faults_of_another(name: str, by_store: dict[str, list[StoredCopy]]) -> list[str]:
    faults = []
    for store, found in by_store.items():
        place = f"store {store}, ledger {name}"
        faults += [
            f"{place}: {each}" for each in copies.chain_faults(found, where=name)
        ]
    if not faults:
        every = [each for found in by_store.values() for each in found]
        faults = [f"ledger {name}: {each}" for each in copies.forks(every)]
    return faults


def _read_line(store: Store, key: str) -> bytes | None:
    try:
        with store.open(key) as file:
            return file.read(_LINE_BYTES_MAX).removesuffix(b"\n")
    except ObjectNotFound:
        return None  # listed a moment ago


def _push_to(store: Store, ledger: Ledger, ledger_id: str) -> list[str]:
    """Copy what a store lacks; return what was noticed."""
    sent = ledger_ledger.read(ledger.path, ledger_id=ledger_id, store=store.name)
    lines = ledger.lines()
    first = chain.first_number(lines)
    names = [
        copies.copy_name(ledger_id, number, line)
        for number, line in enumerate(lines, start=first)
    ]
    before = names[: max(0, sent - first)]
    notes = []
    held: set[str] = set()
    done = len(before)
    if not (before and _holds(store, before[-1].key)):
        # Nothing was sent yet, or the file or the store is not what it was.
        held = {each.key for each in store.list(f"{FOLDER}{ledger_id}/")}
        done = 0
        there = {copies.number_of(key) for key in held}
        if lacking := [each.number for each in before if each.number not in there]:
            notes.append(
                f"store {store.name} lacked records that were copied there, "
                f"they were copied again: {copies.ranges(lacking)}"
            )
    try:
        for name, line in zip(names[done:], lines[done:], strict=True):
            if name.key not in held:
                _put(store, name.key, line)
            done += 1
    finally:
        if done and first + done != sent:
            ledger_ledger.write(
                ledger.path, first + done, ledger_id=ledger_id, store=store.name
            )
    return notes


def _put(store: Store, key: str, line: bytes) -> None:
    try:
        store.put(key, [line + b"\n"])
    except ObjectExists:
        return  # another run was quicker, or this one was killed before it noted it


def _holds(store: Store, key: str) -> bool:
    try:
        store.stat(key)
    except ObjectNotFound:
        return False
    return True
