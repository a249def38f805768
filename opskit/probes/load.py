"""Load: what becomes of a service that is asked much, in bursts, for a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

from opskit.checks import Check, size
from opskit.config.section import format_duration
from opskit.config.smoke import Profile, SmokeSettings
from opskit.config.watch import SloSettings
from opskit.probes.generator import MEMORY, Generator, Load
from opskit.probes.probe import Inconclusive, Probe
from opskit.probes.sample import Shared, limits, shown
from opskit.probes.session import Session

# Of an objective: a generator that is later than that cannot judge it. Where it is,
# what fails must fail an objective that it can judge.
_LATE_MAX = 0.1


def probes(settings: SmokeSettings, slo: SloSettings) -> Iterator[Probe]:
    """Return the probes of one load, which they share."""
    asked = settings.load
    if not asked.requests:
        return
    longest = max((each.seconds for each in limits(slo)), default=1.0)

    def load(session: Session) -> Load:
        return Generator(settings, session.target, seconds_max=longest).run()

    make = partial(_probe, settings, Shared(load))
    if limits(slo):
        yield make(
            name="load.latency",
            judge=lambda load: _fast(load, slo),
            what="compares the 95th and 99th percentile with `slo.latency`. Each time "
            "counts from the moment when the request was due, not from when a "
            "connection was free, so that a service that stalls cannot hide the "
            "requests that waited.",
            why="A service is fast when it is asked alone; users come together.",
            remedy="See which resource is used up: processes, connections of the "
            "pool, locks, CPU. Shed early what cannot be answered in time.",
        )
    if slo.error_rate is not None:
        rate = slo.error_rate
        yield make(
            name="load.errors",
            judge=lambda load: load.sample.reliable(slo, rate),
            what="compares the share of answers with a status of 400 or more with "
            "`slo.error_rate`.",
            why="Races, exhausted pools and deadlocks show under load only.",
            remedy="Look for the statuses in the service's log. 503 means that it "
            "sheds: more processes, or a larger limit.",
        )
    if asked.streams or asked.sockets:
        yield make(
            name="load.subscribers",
            judge=lambda load: load.subscribers.check(),
            what="compares what each subscriber of event streams and WebSockets was "
            "sent with the objects that were created.",
            why="An event that is lost under load is a user who waits for ever.",
            remedy="Give each subscriber a buffer for a burst, read the events that "
            "it missed from the database, and close a connection that is too slow "
            "instead of dropping single events.",
        )
    if settings.observability.metrics:
        yield make(
            name="load.memory",
            judge=lambda load: _memory(load, asked.memory_growth),
            what=f"compares the metric {asked.memory_metric} after a quarter of the "
            "time and at the end.",
            why="A leak ends in a kill, at the busiest hour.",
            remedy="Take snapshots with `tracemalloc` under the same load. Typical "
            "reasons: caches without a limit, subscribers that are not removed, "
            "metrics with a label for each id.",
        )


def _probe(
    settings: SmokeSettings,
    loads: Shared[Load],
    *,
    name: str,
    judge: Callable[[Load], Check],
    what: str,
    why: str,
    remedy: str,
) -> Probe:
    asked = settings.load
    return Probe(
        name=name,
        ask=loads.judged(judge),
        what=f"Sends {asked.rate} requests a second for "
        f"{format_duration(asked.duration)}, with {asked.spike} more at once every "
        f"{format_duration(asked.spike_every)}, while subscribers listen, and {what} "
        "The probes of this family share one load; what fails is judged again after "
        "another.",
        why=why,
        remedy=remedy,
        profile=Profile.STRICT,
        alone=True,
    )


def _fast(load: Load, slo: SloSettings) -> Check:
    check = load.sample.fast(slo)
    late = sorted(load.late)[math.ceil(len(load.late) * 0.99) - 1]
    if check.failed and not load.sample.is_slow(slo, seconds_min=late / _LATE_MAX):
        raise Inconclusive(
            f"this machine is too busy: it sent requests {shown(late)} late "
            f"({check.observed})"
        )
    return check


def _memory(load: Load, growth_max: int) -> Check:
    if len(load.memory) < 2:
        raise Inconclusive("the metrics do not hold the memory")
    before, after = (dict(each) for each in load.memory)
    first, last = before.pop(MEMORY), after.pop(MEMORY)
    if before != after:
        raise Inconclusive("the metrics are of several processes, or of a new one")
    return Check(
        name="",
        passed=last - first <= growth_max,
        expected=f"at most {size(growth_max)} more",
        observed=f"{size(max(last - first, 0))} more, {size(last)} in the end",
    )
