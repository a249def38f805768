"""Health: what a state says of everything that is watched, as checks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from opskit.checks import Check, Health, count, duration, size, some
from opskit.config import Settings
from opskit.doctor.stores import compare_clocks, compare_space
from opskit.ledger import LedgerEntry
from opskit.operations.doctor import Examined, judge
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.operations.schedule import is_credible, overdue
from opskit.watch.alerts import least_seconds
from opskit.watch.fleet import checks as of_fleet
from opskit.watch.gathering import gather
from opskit.watch.state import (
    Answer,
    Room,
    SourceState,
    State,
    StoreState,
    ended_at,
    last_runs,
    succeeded,
)

_SLOW_SECONDS = 5.0
_LEAST_FREE_SHARE = 0.02
_LEAST_FREE_BYTES = 256 * 1024**2
# So many sources with the same fault are one.
_ALIKE = 3
_OF_SOURCE = (
    re.compile(r"(?:database|files) (?P<name>\S+): (?P<what>.+)"),
    re.compile(r"(?P<what>last \S+) (?P<name>\S+)"),
)
# Long enough to be seen after a weekend.
_MISSED_SHOWN = timedelta(days=3)
_STATE_SECONDS_MAX = 300.0


def status(run: Run) -> Outcome[Examined]:
    """Examine the health of everything that is watched, now."""
    with run.recorded("status") as record:
        judge(record, checks(gather(run), run.settings))
    return record.outcome


def checks(state: State, settings: Settings) -> list[Check]:
    """Return a check of everything that the state tells of."""
    return [_advised(each) for each in _checks(state, settings)]


def _checks(state: State, settings: Settings) -> Iterator[Check]:
    for source in state.sources:
        yield from _of_source(source, state, settings)
    needed = sum(s.sets[0].size_bytes for s in state.sources if s.sets)
    for store in state.stores:
        yield from _of_store(store, needed)
    if state.fleet is not None:
        yield from of_fleet(state.fleet)
    yield from _timetable(state, settings)
    yield from _last_runs(state)
    yield Check(
        name="ledger",
        passed=not state.ledger_faults,
        observed="; ".join(state.ledger_faults[:3])
        or f"{count(len(state.entries), 'record')}, the chain is whole",
        hint="Run `inv ledger --verify`: it compares the copies in the stores.",
    )
    for receiver, entry in sorted(state.notified.items()):
        yield Check(
            name=f"notification {receiver}",
            passed=succeeded(entry),
            observed=_ended(entry),
            hint="Correct its address, then run `inv doctor --notify`.",
            advisory=True,
        )
    for disk in state.disks:
        yield _room(f"disk {disk.name}", disk, _LEAST_FREE_BYTES, "Free some space.")
    if state.memory is not None:
        yield _room("memory", state.memory, 0, "See what uses it; drills need some.")


def freshness(state: State | None, now: datetime) -> Check:
    """Return whether a state that was gathered in the background is a recent one."""
    if state is not None and not is_credible(state.time, now=now):
        state = None  # the clock was set back
    fresh = _age(
        "scheduler",
        None if state is None else state.time,
        now,
        _STATE_SECONDS_MAX,
        "Look at the scheduler's log: a store or a database may not answer.",
    )
    return _advised(fresh)


def _advised(check: Check) -> Check:
    """Return a check that says what to do only if it did not pass."""
    return replace(check, hint="") if check.passed else check


def about(check: Check) -> tuple[str, str]:
    """Return what was examined, and of which source, empty if of none."""
    matches = (pattern.fullmatch(check.name) for pattern in _OF_SOURCE)
    match = next(filter(None, matches), None)
    return (match["what"], match["name"]) if match else (check.name, "")


def grouped(checks: Iterable[Check]) -> list[Check]:
    """Return checks of which those that many sources fail in one way are one."""
    alike: defaultdict[tuple[str, Health], list[tuple[str, Check]]] = defaultdict(list)
    for each in checks:
        what, source = about(each)
        alike[what, each.status].append((source, each))
    groups: list[Check] = []
    for (what, _), those in alike.items():
        same = [each for _, each in those]
        if len(those) > _ALIKE:
            name, names = f"{len(those)} sources: {what}", [name for name, _ in those]
            same = [replace(same[0], name=name, observed=some(names))]
        groups += same
    return groups


def label(source: SourceState) -> str:
    """Return what checks call a source."""
    return f"{'files' if source.kind == 'files' else 'database'} {source.name}"


def _of_source(
    source: SourceState, state: State, settings: Settings
) -> Iterator[Check]:
    name = label(source)
    if state.fleet is None:
        yield _answer(f"{name}: connection", source)
    if source.clock_offset_seconds is not None:
        clock = compare_clocks(f"{name}: clock", source.clock_offset_seconds)
        yield replace(clock, expected="at most 5 minutes", advisory=True)
    flag = "--files" if source.kind == "files" else "--database"
    again = f"Run `inv backup {flag} {source.name}` and see why it fails."
    if state.fleet is not None:
        again = "See what is wrong with its job: `inv fleet-status`. To have the "
        again += f"workers back it up now: `inv fleet-run --database {source.name}`."
    for store in state.stores:
        yield _age(
            f"{name}: newest set in {store.name}",
            source.last_success.get(store.name),
            state.time,
            source.max_age.total_seconds(),
            again,
        )
    yield _drill(source, state)
    for newest in source.sets[:1]:
        yield Check(
            name=f"{name}: proof",
            passed=newest.proof != "failed",
            observed=f"{newest.backup_id} is {newest.proof}",
            hint=f"Run `inv verify --backup {newest.backup_id}`; take a new backup.",
        )
        yield Check(
            name=f"{name}: sudden change",
            passed=not source.unconfirmed_changes,
            observed="; ".join(source.unconfirmed_changes[:3]) or "none",
            hint=f"Look at `inv backups --backup {newest.backup_id}`; if the change is "
            f"right, run `inv prune --confirm {newest.backup_id}`.",
            advisory=True,
        )
    yield from _too_fast(source)
    if settings.drill.rto is not None and source.last_measured is not None:
        measured = source.last_measured.rto_seconds or 0
        yield Check(
            name=f"{name}: time of a restore",
            passed=measured <= settings.drill.rto.total_seconds(),
            observed=duration(measured),
            expected=f"at most {duration(settings.drill.rto.total_seconds())}",
            hint="Give restores more jobs, or allow more with drill.rto.",
            advisory=True,
        )


def _answer(name: str, answer: Answer) -> Check:
    """Return whether something answers, and soon enough."""
    if not answer.reachable:
        return Check(name=name, passed=False, observed=answer.error, hint=answer.hint)
    if answer.latency_seconds is None:
        return Check(name=name, passed=True, observed="can be read")
    return Check(
        name=name,
        passed=answer.latency_seconds <= _SLOW_SECONDS,
        observed=f"answered in {answer.latency_seconds:.2f} s",
        expected=f"at most {duration(_SLOW_SECONDS)}",
        hint="Look at the load of the server and at the network.",
        advisory=True,
    )


def _age(
    name: str, at: datetime | None, now: datetime, limit_seconds: float, hint: str
) -> Check:
    age = None if at is None else max(0.0, (now - at).total_seconds())
    return Check(
        name=name,
        passed=age is not None and age <= limit_seconds,
        observed="none" if age is None else f"{duration(age)} old",
        expected=f"at most {duration(limit_seconds)}",
        hint=hint,
    )


def _drill(source: SourceState, state: State) -> Check:
    """Return whether a drill passed lately; that the newest one failed is worse."""
    passed = source.last_passed
    hint = "Run `inv restore-drill --all`, and let the scheduler do it every week."
    if state.fleet is not None:
        hint = "Have the workers drill: `inv fleet-run --drill`."
    check = _age(
        f"{label(source)}: newest drill that passed",
        None if passed is None else passed.finished_at,
        state.time,
        source.drill_max_age.total_seconds(),
        hint,
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


def _too_fast(source: SourceState) -> Iterator[Check]:
    """Compare how long the last backup took with how long they usually take."""
    seconds = [e.seconds for e in source.backups if e.outcome == "ok" and e.seconds]
    limit = least_seconds(seconds)
    if not limit:
        return
    yield Check(
        name=f"{label(source)}: duration",
        passed=seconds[-1] >= limit,
        observed=f"the last backup took {duration(seconds[-1])}",
        expected=f"at least {duration(limit)}",
        hint="Compare the last two sets with `inv backups --compare ID ID`.",
        advisory=True,
    )


def _of_store(store: StoreState, needed_bytes: int) -> Iterator[Check]:
    name = f"store {store.name}"
    yield _answer(name, store)
    if store.clock_offset_seconds is not None:
        yield compare_clocks(f"{name}: clock", store.clock_offset_seconds)
    if store.disk is not None:
        yield compare_space(
            f"{name}: room",
            store.disk.name,
            free_bytes=store.disk.free_bytes,
            needed_bytes=needed_bytes,
            hint="Free some space, keep fewer sets, or use a larger file system.",
        )
    for bad in store.unreadable[:1]:
        yield Check(
            name=f"{name}: manifests",
            passed=False,
            observed=f"{count(len(store.unreadable), 'set')} cannot be used, for "
            f"instance {bad.key}: {bad.reason}",
            hint="`inv verify` says which; copy these sets again from another store.",
            advisory=True,
        )


def _timetable(state: State, settings: Settings) -> Iterator[Check]:
    """Yield whether each job ran when it was due, if this host has a scheduler."""
    entries = [*state.others, *state.entries]
    for name, due in sorted(overdue(entries, settings, now=state.time).items()):
        yield Check(
            name=f"timetable: {name}",
            passed=due is None,
            observed="nothing is overdue"
            if due is None
            else f"due at {due:%Y-%m-%d %H:%M} UTC",
            hint="Look at the scheduler's log; if it does not run, start "
            "`inv scheduler`.",
            advisory=True,
        )


def _last_runs(state: State) -> Iterator[Check]:
    """Yield whether the last run of each kind succeeded, and what was missed."""
    for (operation, source), entry in sorted(last_runs(state).items()):
        yield Check(
            name=f"last {operation} {source}".rstrip(),
            passed=succeeded(entry),
            observed=_ended(entry),
            hint=f"Look for run {entry.run_id} in the logs, then run it again.",
            advisory=True,
        )
    since = state.time - _MISSED_SHOWN
    names = {"", *(each.name for each in state.sources)}
    missed = [
        f"{each.operation} {each.source}".rstrip() + f", {each.time[:16]}Z"
        for each in state.entries
        if each.outcome == "missed" and each.source in names and ended_at(each) > since
    ]
    yield Check(
        name="missed runs",
        passed=not missed,
        observed="; ".join(missed[:-4:-1]) or "none",
        expected=f"none in {_MISSED_SHOWN.days} days",
        hint="See when the scheduler ran, and whether jobs take longer than the time "
        "between them.",
        advisory=True,
    )


def _ended(entry: LedgerEntry) -> str:
    in_part = entry.outcome == "ok" and not succeeded(entry)
    because = f": {entry.details['error']}" if "error" in entry.details else ""
    return f"{'in part' if in_part else entry.outcome}, {entry.time[:16]}Z{because}"


def _room(name: str, room: Room, least_bytes: int, hint: str) -> Check:
    wanted = max(least_bytes, _LEAST_FREE_SHARE * room.total_bytes)
    return Check(
        name=name,
        passed=room.free_bytes >= wanted,
        observed=f"{size(room.free_bytes)} free",
        expected=f"at least {size(wanted)}",
        hint=hint,
        advisory=room.free_bytes >= least_bytes,
    )
