"""Health: what a state says of everything that is watched, as checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from statistics import median

from opskit.checks import Check, count, duration, size
from opskit.config import Settings
from opskit.doctor.stores import compare_clocks, compare_space
from opskit.ledger import LedgerEntry
from opskit.operations.doctor import Examined, judge
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.watch.state import (
    Answer,
    DiskState,
    MemoryState,
    SourceState,
    State,
    StoreState,
    gather,
    succeeded,
)

_SLOW_SECONDS = 5.0
_LEAST_FREE_SHARE = 0.02
_LEAST_FREE_BYTES = 256 * 1024**2
# A backup is suspiciously fast if it took less than this share of the usual time.
_FAST_SHARE = 0.1
_USUAL_RUNS_MIN, _USUAL_RUNS_MAX = 5, 30
_USUAL_SECONDS_MIN = 10.0  # what is shorter varies with the load of the machine
_SCHEDULED = ("backup", "restore-drill", "verify", "prune", "report")
_STATE_SECONDS_MAX = 300.0


def status(run: Run) -> Outcome[Examined]:
    """Examine the health of everything that is watched, now."""
    with run.recorded("status") as record:
        judge(record, checks(gather(run), run.settings))
    return record.outcome


def checks(state: State, settings: Settings) -> list[Check]:
    """Return a check of everything that the state tells of."""
    examined: list[Check] = []
    for source in state.sources:
        examined += _of_source(source, state)
        if settings.drill.rto is not None:
            examined += _restore_time(source, settings.drill.rto.total_seconds())
    needed = sum(s.sets[0].size_bytes for s in state.sources if s.sets)
    for store in state.stores:
        examined += _of_store(store, needed)
    examined += _last_runs(state)
    examined.append(_ledger(state))
    examined += _notifications(state.notified)
    examined += map(_disk, state.disks)
    if state.memory is not None:
        examined.append(_memory(state.memory))
    return examined


def freshness(state: State | None, now: datetime) -> Check:
    """Return whether a state that was gathered in the background is a recent one."""
    age = None if state is None else (now - state.time).total_seconds()
    return Check(
        name="scheduler",
        passed=age is not None and age <= _STATE_SECONDS_MAX,
        expected=f"at most {duration(_STATE_SECONDS_MAX)}",
        observed="nothing was gathered yet"
        if age is None
        else f"gathered {duration(max(age, 0))} ago",
        hint="Look at the scheduler's log: a store or a database may not answer.",
    )


def label(source: SourceState) -> str:
    """Return what checks call a source."""
    return f"{'files' if source.kind == 'files' else 'database'} {source.name}"


def _of_source(source: SourceState, state: State) -> Iterator[Check]:
    name = label(source)
    yield _answer(f"{name}: connection", source)
    if source.clock_offset_seconds is not None:
        clock = compare_clocks(f"{name}: clock", source.clock_offset_seconds)
        yield replace(clock, expected="at most 5 minutes", advisory=True)
    for store in state.stores:
        at = source.last_success.get(store.name)
        yield _age(
            f"{name}: newest set in {store.name}",
            at,
            state.time,
            source.max_age.total_seconds(),
            f"Run `inv backup {_flag(source)}` and see why it fails.",
        )
    yield _drill(source, state.time)
    yield from _newest_set(source)
    yield from _too_fast(source)


def _flag(source: SourceState) -> str:
    flag = "--files" if source.kind == "files" else "--database"
    return f"{flag} {source.name}"


def _answer(name: str, answer: Answer) -> Check:
    """Return whether something answers, and soon."""
    if not answer.reachable:
        return Check(name=name, passed=False, observed=answer.error, hint=answer.hint)
    if answer.latency_seconds is None:
        return Check(name=name, passed=True, observed="can be read")
    passed = answer.latency_seconds <= _SLOW_SECONDS
    return Check(
        name=name,
        passed=passed,
        advisory=True,
        expected=f"at most {duration(_SLOW_SECONDS)}",
        observed=f"answered in {answer.latency_seconds:.2f} s",
        hint="" if passed else "Look at the load of the server and at the network.",
    )


def _age(
    name: str, at: datetime | None, now: datetime, limit_seconds: float, hint: str
) -> Check:
    age = None if at is None else (now - at).total_seconds()
    passed = age is not None and age <= limit_seconds
    return Check(
        name=name,
        passed=passed,
        expected=f"at most {duration(limit_seconds)}",
        observed="none" if age is None else f"{duration(max(age, 0))} old",
        hint="" if passed else hint,
    )


def _drill(source: SourceState, now: datetime) -> Check:
    """Return whether a set was proved lately; that it was disproved is worse."""
    last = source.last_passed
    check = _age(
        f"{label(source)}: newest drill that passed",
        last.finished_at if last else None,
        now,
        source.drill_max_age.total_seconds(),
        "Run `inv restore-drill --all`, and let the scheduler do it every week.",
    )
    newest = next(iter(source.drills), None)
    if newest is None or newest.passed:
        return replace(check, advisory=True)
    return replace(
        check,
        passed=False,
        observed=f"{check.observed}; the drill of {newest.backup_id} did not pass",
        hint="Read the report of the drill, and take a new backup.",
    )


def _newest_set(source: SourceState) -> Iterator[Check]:
    name = label(source)
    for newest in source.sets[:1]:
        backup_id = newest.backup_id
        failed = newest.proof == "failed"
        yield Check(
            name=f"{name}: proof",
            passed=not failed,
            observed=f"{backup_id} is {newest.proof}",
            hint=f"Run `inv verify --backup {backup_id}`, and take a new backup."
            if failed
            else "",
        )
        changes = source.unconfirmed_changes
        yield Check(
            name=f"{name}: sudden change",
            passed=not changes,
            advisory=True,
            observed="; ".join(changes[:3]) or "none",
            hint=f"Look at `inv backups --backup {backup_id}`; if the change is right, "
            f"run `inv prune --confirm {backup_id}`."
            if changes
            else "",
        )


def _too_fast(source: SourceState) -> Iterator[Check]:
    """Compare how long the last backup took with how long they usually take."""
    seconds = [
        each.seconds
        for each in source.runs_of("backup")
        if each.outcome == "ok" and each.seconds is not None
    ]
    usual = seconds[-_USUAL_RUNS_MAX - 1 : -1]
    if len(usual) < _USUAL_RUNS_MIN or median(usual) < _USUAL_SECONDS_MIN:
        return
    limit = _FAST_SHARE * median(usual)
    passed = seconds[-1] >= limit
    yield Check(
        name=f"{label(source)}: duration",
        passed=passed,
        advisory=True,
        expected=f"at least {duration(limit)}",
        observed=f"the last backup took {duration(seconds[-1])}",
        hint=""
        if passed
        else "Compare the last two sets with `inv backups --compare ID ID`.",
    )


def _restore_time(source: SourceState, limit_seconds: float) -> Iterator[Check]:
    if source.last_measured is None:
        return
    measured = source.last_measured.rto_seconds or 0
    passed = measured <= limit_seconds
    yield Check(
        name=f"{label(source)}: time of a restore",
        passed=passed,
        advisory=True,
        expected=f"at most {duration(limit_seconds)}",
        observed=duration(measured),
        hint="" if passed else "Give restores more jobs, or allow more with drill.rto.",
    )


def _of_store(store: StoreState, needed_bytes: int) -> Iterator[Check]:
    name = f"store {store.name}"
    yield _answer(name, store)
    if store.clock_offset_seconds is not None:
        yield compare_clocks(f"{name}: clock", store.clock_offset_seconds)
    if store.disk is not None:
        yield compare_space(
            f"{name}: room",
            store.disk.path,
            free_bytes=store.disk.free_bytes,
            needed_bytes=needed_bytes,
            hint="Free some space, keep fewer sets, or use a larger file system.",
        )
    if store.unreadable:
        bad = store.unreadable[0]
        yield Check(
            name=f"{name}: manifests",
            passed=False,
            advisory=True,
            observed=f"{count(len(store.unreadable), 'set')} cannot be used, for "
            f"instance {bad.key}: {bad.reason}",
            hint="`inv verify` says which; copy these sets again from another store.",
        )


def _last_runs(state: State) -> Iterator[Check]:
    """Yield whether the last run of each kind succeeded in full."""
    names = {"", *(each.name for each in state.sources)}
    last: dict[tuple[str, str], LedgerEntry] = {}
    for each in state.entries:
        source = str(each.details.get("source", ""))
        if each.operation in _SCHEDULED and source in names:
            last[each.operation, source] = each
    for (operation, source), entry in sorted(last.items()):
        what = f"{operation} {source}".rstrip()
        passed = succeeded(entry)
        outcome = "in part" if entry.outcome == "ok" and not passed else entry.outcome
        reason = str(entry.details.get("error", ""))
        yield Check(
            name=f"last {what}",
            passed=passed,
            advisory=True,
            observed=f"{outcome}, {entry.time[:16]}Z{reason and f': {reason}'}",
            hint=""
            if passed
            else f"Look for run {entry.run_id} in the logs, then run it again.",
        )


def _ledger(state: State) -> Check:
    faults = state.ledger_faults
    return Check(
        name="ledger",
        passed=not faults,
        observed="; ".join(faults[:3])
        or f"{count(len(state.entries), 'record')}, the chain is whole",
        hint="Run `inv ledger --verify`: it compares the copies in the stores."
        if faults
        else "",
    )


def _notifications(notified: Mapping[str, LedgerEntry]) -> Iterator[Check]:
    for receiver, entry in sorted(notified.items()):
        passed = entry.outcome == "ok"
        because = f": {entry.details['error']}" if "error" in entry.details else ""
        yield Check(
            name=f"notification {receiver}",
            passed=passed,
            advisory=True,
            observed=f"{entry.outcome}, {entry.time[:16]}Z{because}",
            hint=""
            if passed
            else "Correct its address, then run `inv doctor --notify`.",
        )


def _disk(disk: DiskState) -> Check:
    wanted = max(_LEAST_FREE_BYTES, _LEAST_FREE_SHARE * disk.total_bytes)
    passed = disk.free_bytes >= wanted
    return Check(
        name=f"disk {disk.path}",
        passed=passed,
        advisory=disk.free_bytes >= _LEAST_FREE_BYTES,
        expected=f"at least {size(wanted)}",
        observed=f"{size(disk.free_bytes)} free",
        hint="" if passed else "Free some space.",
    )


def _memory(memory: MemoryState) -> Check:
    wanted = _LEAST_FREE_SHARE * memory.total_bytes
    passed = memory.available_bytes >= wanted
    return Check(
        name="memory",
        passed=passed,
        advisory=True,
        expected=f"at least {size(wanted)}",
        observed=f"{size(memory.available_bytes)} available",
        hint="" if passed else "See what uses it; drills need some for their server.",
    )
