"""Latency: how fast and how reliably the service answers a number of requests."""

from __future__ import annotations

import time
from collections.abc import Iterator

from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.probes.probe import Probe
from opskit.probes.sample import TOO_MANY, Sample, Shared, limits
from opskit.probes.session import Answer, Session
from opskit.threads import together

_SECONDS_MAX = 30.0
# An attempt after a failed one asks twice as many, so that luck does not pass it.
_DOUBLED_MAX = 2


def probes(settings: SmokeSettings, slo: SloSettings) -> Iterator[Probe]:
    """Return the probes of the objectives that are set."""
    asked = settings.latency
    what = f"Sends {asked.requests} GET requests over {asked.connections} connections, "
    again = (
        "The probes of this family share the answers. An attempt after a failed one "
        "sends twice as many, up to four times. Requests that a rate limit refuses or "
        "that have no answer are left out; with many of them it is inconclusive."
    )
    samples = Shared(_Meter(settings, slo).sample)
    if limits(slo):
        yield Probe(
            name="latency.percentiles",
            ask=samples.judged(lambda sample: sample.fast(slo)),
            what=what + "measures the time of each whole answer, without the making of "
            "the connection, and compares the 95th and 99th percentile (nearest rank: "
            "of 200 answers, 10 and 2 may be slower) with `slo.latency`. " + again,
            why="Users leave a service that is slow, and an answer that became slow "
            "with a release shows here first. The figures include the network and the "
            "load of this machine, so a failure is advice unless "
            "`smoke.latency.gating` is set.",
            remedy="Look at the service's own histogram of the same time: if that is "
            "fast, the network or this machine is slow. Otherwise profile "
            "`smoke.latency.path`, look for queries without an index, and for work "
            "that belongs in the background. If the objective is wrong, change "
            "`slo.latency`.",
            advisory=not asked.gating,
            alone=True,
        )
    if slo.error_rate is not None:
        rate = slo.error_rate
        yield Probe(
            name="latency.errors",
            ask=samples.judged(lambda sample: sample.reliable(slo, rate)),
            what=what + "and compares the share of answers with a status of 400 or "
            "more with `slo.error_rate`. " + again,
            why="A fault that meets one request in fifty passes every probe that asks "
            "once or twice. How busy the machines are does not matter here.",
            remedy="Look for the statuses in the service's log. Typical reasons: one "
            "of several processes that did not start well, a connection pool with dead "
            "connections (let it check them: `ConnectionPool(check=...)`), a race. "
            "401, 403 and 404 mean that `smoke.latency.path` or `.key` is wrong.",
            alone=True,
        )


class _Meter:
    """Takes one sample after the other."""

    def __init__(self, settings: SmokeSettings, slo: SloSettings) -> None:
        self._asked, self._slo = settings.latency, slo
        self._path = self._asked.path or settings.version.path
        self._failed = 0

    def sample(self, session: Session) -> Sample:
        """Ask over several connections, until it is known what the answers say."""
        sample = Sample(self._asked.requests * 2 ** min(self._failed, _DOUBLED_MAX))
        numbers, until = iter(range(sample.planned)), time.monotonic() + _SECONDS_MAX
        target = session.target

        def ask() -> None:
            with Session(target) as own:
                # Opens the connection, which is not measured.
                Sample(1).ask(own, self._send)
                while time.monotonic() < until and not target.stopped.is_set():
                    if sample.is_useless(self._slo) or next(numbers, None) is None:
                        break
                    sample.ask(own, self._send)

        asks = [ask] * self._asked.connections
        together(asks, stop=target.stop_if_interrupted)
        self._failed += sample.total == sample.planned
        return sample

    def _send(self, session: Session) -> Answer:
        return session.get(self._path, key=self._asked.key, own=(TOO_MANY,))
