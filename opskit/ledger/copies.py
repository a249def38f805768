"""Copies of the ledger's records in the stores: written, read, used to recover.

A copy holds the line of a record and its newline, so that `cat` over a ledger's copies
gives its file.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePath

from opskit.checks import count
from opskit.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    OpskitError,
    StoreError,
)
from opskit.ledger.comparison import (
    FOLDER,
    Copy,
    broken,
    chain_faults,
    compare,
    forks,
    ordered,
    parse_key,
    ranges,
    short,
)
from opskit.ledger.ledger import (
    Ledger,
    LedgerEntry,
    beginning,
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

_READERS = 8
_LINE_BYTES_MAX = 16 * 1024 * 1024


def ledger_id(hostname: str, state_dir: PurePath) -> str:
    """Return the name of a ledger: its host's, and a digest of host and folder.

    A rebuilt machine with the same name and folder gets the same one.
    """
    place = f"{hostname}{state_dir}".encode("utf-8", "surrogateescape")
    slug = re.sub(r"[^a-z0-9]+", "-", hostname.lower())[:40].strip("-")
    return f"{slug or 'host'}-{hashlib.sha256(place).hexdigest()[:8]}"


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
    unread: list[StoreError] | None = None,
) -> Ledger:
    """Return the ledger of a file; if the file is lost, its copies restore it.

    `warn` gets a message when the file was rebuilt, when it could not be, and for each
    store that could not be read. None of these keeps a record from being written.
    A ledger that moves from machine to machine is expected to be rebuilt: `unread`
    gets the errors of the stores that could not be read.
    """

    def recover(now: datetime, run_id: str) -> list[bytes]:
        stored: list[Copy] = []
        for store in stores:
            try:
                stored += read_copies(store, ledger_id).get(ledger_id, [])
            except StoreError as error:
                if unread is not None:
                    unread.append(error)
                warn(f"the ledger's copies cannot be read: {error.message}")
        if not stored:
            return []
        # What is damaged in one store may be whole in another.
        intact = {each.key: each for each in stored if each.is_intact}
        reasons = chain_faults(list(intact.values()), where="the copies")
        last = max(each.number for each in stored)
        newest = max((each.number for each in intact.values()), default=-1)
        if not reasons and newest < last:
            reasons = broken(stored)
        if not reasons:
            lines = ordered(intact.values())
            if unread is None:
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
        own, waiting = compare(ledger.lines(), stored.pop(ledger_id, []), sent=sent)
        problems += [f"store {store.name}: {each}" for each in own]
        if waiting:
            notes.append(f"store {store.name}: not yet copied: {ranges(waiting)}")
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
    copies = [copy for each in store.list(prefix) if (copy := parse_key(each.key))]
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
        and (copy := parse_key(each.key)) is not None
        and copy.ledger_id != ledger_id
    ]
    with Pool(_READERS, thread_name_prefix="ledger") as pool:
        lines = [*pool.map(lambda key: _read_line(store, key), keys)]
    return readable([each for each in lines if each is not None])


def _faults_of_another(name: str, by_store: dict[str, list[Copy]]) -> list[str]:
    problems = [
        f"store {store}, ledger {name}: {each}"
        for store, stored in by_store.items()
        for each in chain_faults(stored, where=name)
    ]
    every = [each for stored in by_store.values() for each in stored]
    return problems or [f"ledger {name}: {each}" for each in forks(every)]


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
        Copy(ledger_id=ledger_id, number=number, short=short(line))
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
        there = {copy.number for key in keys if (copy := parse_key(key))}
        lacking = [each.number for each in before if each.number not in there]
        again = "they were copied again"
        if lacking and faults(lines, where="the file"):
            # Another store may have the right ones, to make the file again from.
            done, again = len(before), "this damaged ledger cannot replace them"
        if lacking:
            warnings.append(
                f"store {store.name} lacked records that were copied there, "
                f"{again}: {ranges(lacking)}"
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
