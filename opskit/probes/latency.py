"""Latency: how fast and how reliably the service answers a number of requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.probes.probe import Probe
from opskit.probes.sample import TOO_MANY, Sample, limits
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
        "An attempt after a failed one sends twice as many, up to four times. Requests "
        "that a rate limit refuses or that have no answer are left out; with many of "
        "them the probe is inconclusive."
    )
    if limits(slo):
        yield Probe(
            family="latency",
            name="latency.percentiles",
            ask=_Measurement(settings, lambda sample: sample.fast(slo)).attempt,
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
            family="latency",
            name="latency.errors",
            ask=_Measurement(
                settings, lambda sample: sample.reliable(slo, rate)
            ).attempt,
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


class _Measurement:
    """The attempts of one probe; an attempt is one sample, judged."""

    def __init__(
        self, settings: SmokeSettings, judge: Callable[[Sample], Check]
    ) -> None:
        self._asked, self._judge = settings.latency, judge
        self._path = self._asked.path or settings.version.path
        self._attempts = count()

    def attempt(self, session: Session) -> Check:
        """Ask, and judge the answers."""
        doubled = min(next(self._attempts), _DOUBLED_MAX)
        return self._judge(self._sample(session, self._asked.requests * 2**doubled))

    def _sample(self, session: Session, number: int) -> Sample:
        sample, numbers = Sample(number), iter(range(number))
        until = time.monotonic() + _SECONDS_MAX
        interrupted: list[bool] = []

        def ask() -> None:
            with Session(session.target) as own:
                # Opens the connection, which is not measured.
                Sample(1).ask(own, self._send)
                while not interrupted and time.monotonic() < until:
                    if next(numbers, None) is None:
                        break
                    sample.ask(own, self._send)

        together([ask] * self._asked.connections, stop=lambda: interrupted.append(True))
        return sample

    def _send(self, session: Session) -> Answer:
        return session.get(self._path, key=self._asked.key, own=(TOO_MANY,))
