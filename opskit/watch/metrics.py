"""Metrics: a state as Prometheus reads it, over HTTP or from a file."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from opskit import files
from opskit.checks import Health, worst
from opskit.operations.outcome import Record
from opskit.operations.run import Run
from opskit.watch.health import checks
from opskit.watch.state import (
    Answer,
    SourceState,
    State,
    ended_at,
    gather,
    missed_runs,
    succeeded,
)

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# node_exporter reads the file as a user of its own.
_READABLE = 0o644
_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600, 86_400)
_Samples = Iterable[tuple[tuple[str, ...], float | None]]
_TEXTS = {
    "build_info": "The version of opskit.",
    "health_status": "Health of all that is watched: "
    "0 healthy, 1 degraded, 2 unhealthy.",
    "state_timestamp_seconds": "When the state that these metrics show was gathered.",
    "ledger_intact": "Whether the chain of the ledger's records is whole.",
    "backup_last_success_timestamp_seconds": "When the newest set was finished.",
    "backup_last_run_timestamp_seconds": "When the last backup ended, in any way.",
    "backup_last_run_succeeded": "Whether the last backup reached every store.",
    "backup_duration_seconds": "How long the last backup took.",
    "backup_size_bytes": "Size of the newest set.",
    "backup_sudden_changes": "Sudden changes in the newest set, not confirmed.",
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
    "memory_available_bytes": "Memory that is available.",
    "memory_size_bytes": "Memory of this host.",
}


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
        """Yield every metric: gauges of the state, then what the ledger counts."""
        state = self._state
        yield _gauge("build_info", "version", [((state.version,), 1)])
        for name, number in (
            ("health_status", list(Health).index(self._health)),
            ("state_timestamp_seconds", state.time.timestamp()),
            ("ledger_intact", not state.ledger_faults),
        ):
            yield _gauge(name, "", [((), number)])
        yield from self._by_source()
        yield from self._by_store()
        yield from self._of_host()
        yield from _counted(state)

    def _by_source(self) -> Iterator[Metric]:
        known = {each.name: _figures(each) for each in self._state.sources}
        for name in dict.fromkeys(name for each in known.values() for name in each):
            samples = [((source,), each.get(name)) for source, each in known.items()]
            yield _gauge(name, "source", samples)
        yield _gauge(
            "drill_phase_duration_seconds",
            "source phase",
            [
                ((each.name, phase), seconds)
                for each in self._state.sources
                if each.last_measured
                for phase, seconds in each.last_measured.phases.items()
            ],
        )

    def _by_store(self) -> Iterator[Metric]:
        sources, stores = self._state.sources, self._state.stores
        for name in _answered("store", Answer()):
            samples = [((e.name,), _answered("store", e)[name]) for e in stores]
            yield _gauge(name, "store", samples)
        yield _gauge(
            "store_unreadable_sets",
            "store",
            [((each.name,), len(each.unreadable)) for each in stores],
        )
        yield _gauge(
            "backup_last_success_timestamp_seconds",
            "source store",
            [
                ((source.name, store), at.timestamp())
                for source in sources
                for store, at in source.last_success.items()
            ],
        )
        yield _gauge(
            "sets",
            "source store",
            [
                ((source.name, store.name), _sets_in(source, store.name))
                for source in sources
                for store in stores
                if store.reachable
            ],
        )

    def _of_host(self) -> Iterator[Metric]:
        disks = {each.path: each for each in self._state.disks}
        disks |= {e.disk.path: e.disk for e in self._state.stores if e.disk}
        for name, of_disk in (("free", "free_bytes"), ("size", "total_bytes")):
            samples = [((path,), getattr(e, of_disk)) for path, e in disks.items()]
            yield _gauge(f"disk_{name}_bytes", "path", samples)
        if (memory := self._state.memory) is not None:
            yield _gauge("memory_available_bytes", "", [((), memory.available_bytes)])
            yield _gauge("memory_size_bytes", "", [((), memory.total_bytes)])


def _figures(source: SourceState) -> dict[str, float | None]:
    """Return the value of each gauge that there is one of for each source."""
    figures: dict[str, float | None] = {
        "backup_sudden_changes": len(source.unconfirmed_changes),
        "source_max_age_seconds": source.max_age.total_seconds(),
        "source_expected_interval_seconds": source.interval_seconds,
        "drill_max_age_seconds": source.drill_max_age.total_seconds(),
        **_answered("source", source),
    }
    if source.sets:
        figures["backup_size_bytes"] = source.sets[0].size_bytes
    if (run := source.last_run) is not None:
        figures |= {
            "backup_last_run_timestamp_seconds": ended_at(run).timestamp(),
            "backup_last_run_succeeded": succeeded(run),
            "backup_duration_seconds": run.seconds,
        }
    for drill in source.drills[:1]:
        figures["drill_last_run_timestamp_seconds"] = drill.finished_at.timestamp()
        figures["drill_last_run_passed"] = drill.passed
    if (last := source.last_passed) is not None:
        figures["drill_last_success_timestamp_seconds"] = last.finished_at.timestamp()
    if (measured := source.last_measured) is not None:
        figures["drill_rto_seconds"] = measured.rto_seconds
        figures["drill_rpo_seconds"] = measured.rpo_seconds
    return figures


def _answered(kind: str, answer: Answer) -> dict[str, float | None]:
    return {
        f"{kind}_reachable": answer.reachable,
        f"{kind}_latency_seconds": answer.latency_seconds,
        f"{kind}_clock_offset_seconds": answer.clock_offset_seconds,
    }


def _sets_in(source: SourceState, store: str) -> int:
    return sum(store in (s.name for s in each.stores) for each in source.sets)


def _counted(state: State) -> Iterator[Metric]:
    """Yield what the ledger counts: it only ever grows."""
    from prometheus_client.core import HistogramMetricFamily

    missed: Counter[tuple[str, ...]] = Counter()
    missed.update({(each.name,): 0 for each in state.sources})
    runs: Counter[tuple[str, ...]] = Counter()
    sent: Counter[tuple[str, ...]] = Counter()
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in state.entries:
        source = str(each.details.get("source", ""))
        if each.operation == "notify":
            receiver = str(each.details.get("receiver", ""))
            sent[receiver, each.outcome] += 1
            continue
        runs[source, each.operation, each.outcome] += 1
        if each.outcome == "missed":
            missed[(source,)] += missed_runs(each)
        elif each.seconds is not None:
            seconds[source, each.operation].append(each.seconds)
    yield _counter("runs_missed", "Runs that never began.", "source", missed)
    yield _counter("runs", "Runs on record.", "source operation outcome", runs)
    yield _counter(
        "notifications",
        "Messages on record: those that failed, and the first after them.",
        "receiver outcome",
        sent,
    )
    delivered = [
        ((name,), each.outcome == "ok") for name, each in state.notified.items()
    ]
    yield _gauge("notification_last_succeeded", "receiver", delivered)
    took = HistogramMetricFamily(
        "opskit_run_duration_seconds",
        "How long runs took.",
        labels=["source", "operation"],
    )
    for labels, values in sorted(seconds.items()):
        took.add_metric(labels, _buckets(values), sum(values))
    yield took


def _gauge(name: str, labels: str, samples: _Samples) -> Metric:
    """Return a gauge with the samples that have a value."""
    from prometheus_client.core import GaugeMetricFamily

    gauge = GaugeMetricFamily(f"opskit_{name}", _TEXTS[name], labels=labels.split())
    for values, number in samples:
        if number is not None:
            gauge.add_metric(values, float(number))
    return gauge


def _counter(
    name: str, text: str, labels: str, numbers: Counter[tuple[str, ...]]
) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    counter = CounterMetricFamily(f"opskit_{name}", text, labels=labels.split())
    for values, number in sorted(numbers.items()):
        counter.add_metric(values, number)
    return counter


def _buckets(values: list[float]) -> list[tuple[str, float]]:
    """Return how many of the values are at most the bound of each bucket."""
    numbers = Counter(bisect_left(_BUCKETS, each) for each in values)
    at_most = accumulate(numbers[index] for index in range(len(_BUCKETS) + 1))
    bounds = [*(str(float(each)) for each in _BUCKETS), "+Inf"]
    return list(zip(bounds, at_most, strict=True))
