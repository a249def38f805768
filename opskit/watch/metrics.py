"""Metrics: a state as Prometheus reads it, over HTTP or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit import files
from opskit.checks import Health, worst
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.watch.fleet import STATES, FleetState
from opskit.watch.gathering import gather
from opskit.watch.health import checks
from opskit.watch.state import (
    Answer,
    SourceState,
    State,
    ended_at,
    last_runs,
    missed_runs,
    succeeded,
)

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# node_exporter reads the file as a user of its own.
_READABLE = 0o644
_TEXTS = {
    "build_info": "The version of opskit.",
    "health_status": "Health of everything: 0 healthy, 1 degraded, 2 unhealthy.",
    "state_timestamp_seconds": "When the state that these metrics show was gathered.",
    "ledger_intact": "Whether the chain of the ledger's records is whole.",
    "backup_last_success_timestamp_seconds": "When the newest set was finished.",
    "backup_last_run_timestamp_seconds": "When the last backup ended, in any way.",
    "backup_last_run_succeeded": "Whether the last backup reached every store.",
    "backup_duration_seconds": "How long the last backup took.",
    "backup_size_bytes": "Size of the newest set.",
    "backup_sudden_changes": "Sudden changes in the newest set, not confirmed.",
    "last_run_timestamp_seconds": "When the last run ended, in any way.",
    "last_run_succeeded": "Whether the last run did all that it should.",
    "sets": "Backup sets in the store.",
    "source_max_age_seconds": "How old the newest set may be.",
    "source_expected_interval_seconds": "The longest time between two due times.",
    "drill_last_success_timestamp_seconds": "When the newest drill that passed ended.",
    "drill_last_run_timestamp_seconds": "When the newest drill ended, in any way.",
    "drill_last_run_passed": "Whether the newest drill passed.",
    "drill_max_age_seconds": "How old the newest drill that passed may be.",
    "drill_rto_seconds": "How long the restore of the newest drill took.",
    "drill_rpo_seconds": "How old the data was that the newest drill restored.",
    "drill_phase_duration_seconds": "How long each phase of the newest drill took.",
    "source_reachable": "Whether the database or folder can be read.",
    "source_latency_seconds": "How long the database took to answer.",
    "source_clock_offset_seconds": "How far its clock is ahead of this host's.",
    "store_reachable": "Whether the store answered.",
    "store_latency_seconds": "How long the store took to answer.",
    "store_clock_offset_seconds": "How far its clock is ahead of this host's.",
    "store_unreadable_sets": "Backup sets whose manifest cannot be used.",
    "notification_last_succeeded": "Whether the last message was delivered.",
    "disk_free_bytes": "Free space where the folder lies.",
    "disk_size_bytes": "Size of the file system where the folder lies.",
    "source_proven_timestamp_seconds": "Of when the newest drilled set holds the data.",
    "fleet_queue_reachable": "Whether the database of the queue answered.",
    "fleet_workers": "Workers by their state; dead ones give no sign of life.",
    "fleet_label_workers": "Workers that do the jobs of sources with the label.",
    "fleet_jobs": "Jobs by label: those that wait, and those that run.",
    "fleet_jobs_failing": "Jobs whose last run failed.",
    "fleet_jobs_late": "Jobs that will end after they are due again.",
    "fleet_work_ends_timestamp_seconds": "When all that is due will be done.",
    "fleet_rule_failing": "Whether a rule of [discover] does not answer, or not well.",
    "fleet_source_gone": "Sources that their rule does not find any more.",
    "runs": "Runs on record.",
    "runs_missed": "Runs that never began.",
    "notifications": "Messages on record: those that failed, and the first after them.",
}
_Labels = dict[str, str]
_Sample = tuple[str, _Labels, float | None]


def render(state: State, health: Health) -> bytes:
    """Return the text that Prometheus scrapes; nothing in it has a timestamp."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(state, health))
    return generate_latest(registry)


class Textfile:
    """An observer that writes the same for node_exporter's textfile collector."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def started(self, run: Run, record: Record) -> None:
        """Do nothing: the file is about runs that ended."""

    def ended(self, run: Run, record: Record) -> None:
        """Write the file, atomically."""
        state = gather(run)
        content = render(state, worst(checks(state, run.settings)))
        files.write_atomically(self._path, [content], mode=_READABLE)


class _Collector:
    """Yields the metrics of one state."""

    def __init__(self, state: State, health: Health) -> None:
        self._state, self._health = state, health

    def collect(self) -> Iterator[Metric]:
        """Yield gauges of the state, then what the ledger counts."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = list(Health).index(self._health)
        gauges = [("health_status", {}, status), *_gauges(self._state)]
        yield from _families(GaugeMetricFamily, gauges)
        yield from _families(CounterMetricFamily, _counts(self._state))


def _families(kind: Any, samples: Iterable[_Sample]) -> Iterable[Metric]:
    """Return the metrics of a kind; samples without a value are left out."""
    families: dict[str, Any] = {}
    for name, labels, number in samples:
        if number is not None:
            if name not in families:
                text = _TEXTS[name]
                families[name] = kind(f"opskit_{name}", text, labels=[*labels])
            families[name].add_metric([*labels.values()], float(number))
    return families.values()


def _gauges(state: State) -> Iterator[_Sample]:
    yield "build_info", {"version": state.version}, 1
    yield "state_timestamp_seconds", {}, state.time.timestamp()
    yield "ledger_intact", {}, not state.ledger_faults
    for source in state.sources:
        labels = {"source": source.name}
        yield from _of_source(source, labels)
        if state.fleet is None:
            yield from _answered("source", source, labels)
        for store in state.stores:
            labels = {"source": source.name, "store": store.name}
            at = source.last_success.get(store.name)
            yield "backup_last_success_timestamp_seconds", labels, _timestamp(at)
            if store.reachable:
                held = [each for s in source.sets for each in s.stores]
                yield "sets", labels, sum(each.name == store.name for each in held)
    for (operation, name), run in sorted(last_runs(state).items()):
        labels = {"source": name, "operation": operation}
        yield "last_run_timestamp_seconds", labels, _timestamp(ended_at(run))
        yield "last_run_succeeded", labels, succeeded(run)
    for store in state.stores:
        labels = {"store": store.name}
        yield from _answered("store", store, labels)
        yield "store_unreadable_sets", labels, len(store.unreadable)
    disks = {each.name: each for each in state.disks}
    disks |= {each.disk.name: each.disk for each in state.stores if each.disk}
    for disk in disks.values():
        yield "disk_free_bytes", {"path": disk.name}, disk.free_bytes
        yield "disk_size_bytes", {"path": disk.name}, disk.total_bytes
    if state.fleet is not None:
        yield from _of_fleet(state.fleet)
    for receiver, entry in state.notified.items():
        yield "notification_last_succeeded", {"receiver": receiver}, succeeded(entry)


def _of_source(source: SourceState, labels: _Labels) -> Iterator[_Sample]:
    yield "backup_sudden_changes", labels, len(source.unconfirmed_changes)
    yield "source_max_age_seconds", labels, source.max_age.total_seconds()
    yield "source_expected_interval_seconds", labels, source.interval_seconds
    yield "drill_max_age_seconds", labels, source.drill_max_age.total_seconds()
    if (proven := source.last_proven) is not None:
        at = _timestamp(proven.snapshot_at)
        yield "source_proven_timestamp_seconds", labels, at
    for newest in source.sets[:1]:
        yield "backup_size_bytes", labels, newest.size_bytes
    for run in source.backups[-1:]:
        yield "backup_last_run_timestamp_seconds", labels, _timestamp(ended_at(run))
        yield "backup_last_run_succeeded", labels, succeeded(run)
        yield "backup_duration_seconds", labels, run.seconds
    for drill in source.drills[:1]:
        at = _timestamp(drill.finished_at)
        yield "drill_last_run_timestamp_seconds", labels, at
        yield "drill_last_run_passed", labels, drill.passed
    if (passed := source.last_passed) is not None:
        at = _timestamp(passed.finished_at)
        yield "drill_last_success_timestamp_seconds", labels, at
    if (measured := source.last_measured) is not None:
        yield "drill_rto_seconds", labels, measured.rto_seconds
        yield "drill_rpo_seconds", labels, measured.rpo_seconds
        for phase, seconds in measured.phases.items():
            yield "drill_phase_duration_seconds", labels | {"phase": phase}, seconds


def _of_fleet(fleet: FleetState) -> Iterator[_Sample]:
    yield "fleet_queue_reachable", {}, not fleet.error
    for gone in fleet.gone:
        yield "fleet_source_gone", {"source": gone.name, "rule": gone.rule}, 1
    for rule, fault in fleet.rules.items():
        yield "fleet_rule_failing", {"rule": rule}, bool(fault)
    if fleet.error:
        return
    states = Counter(each.state for each in fleet.workers)
    for name in STATES:
        yield "fleet_workers", {"state": name}, states[name]
    running = Counter(each.label for each in fleet.doing)
    for name, workers in fleet.serving.items():
        yield "fleet_label_workers", {"label": name}, workers
        yield "fleet_jobs", {"label": name, "state": "todo"}, fleet.todo.get(name, 0)
        yield "fleet_jobs", {"label": name, "state": "doing"}, running[name]
    yield "fleet_jobs_failing", {}, len(fleet.failing)
    yield "fleet_jobs_late", {}, len(fleet.late)
    yield "fleet_work_ends_timestamp_seconds", {}, _timestamp(fleet.ends_at)


def _answered(kind: str, answer: Answer, labels: _Labels) -> Iterator[_Sample]:
    yield f"{kind}_reachable", labels, answer.reachable
    yield f"{kind}_latency_seconds", labels, answer.latency_seconds
    yield f"{kind}_clock_offset_seconds", labels, answer.clock_offset_seconds


def _timestamp(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _counts(state: State) -> Iterator[_Sample]:
    """Yield what the ledger counts: it only ever grows."""
    runs: Counter[tuple[str, str, str]] = Counter()
    # From 0 on, so that the first one is an increase; "" is every source.
    missed = Counter({"": 0} | {each.name: 0 for each in state.sources})
    sent: Counter[tuple[str, str]] = Counter()
    for each in state.entries:
        if each.operation == "notify":
            sent[str(each.details.get("receiver", "")), each.outcome] += 1
            continue
        if each.source not in missed:  # whatever address somebody asked once
            continue
        runs[each.source, each.operation, each.outcome] += 1
        if each.outcome == "missed":
            missed[each.source] += missed_runs(each)
    for (source, operation, outcome), number in sorted(runs.items()):
        labels = {"source": source, "operation": operation, "outcome": outcome}
        yield "runs", labels, number
    for source, number in missed.items():
        yield "runs_missed", {"source": source}, number
    for (receiver, outcome), number in sorted(sent.items()):
        yield "notifications", {"receiver": receiver, "outcome": outcome}, number
