"""The objectives of the operated service, as queries for Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from opskit.config.watch import SloSettings, latency_seconds


@dataclass(frozen=True)
class ServiceQueries:
    """Queries about the operated service, each over a window such as `5m`."""

    slo: SloSettings

    def requests(self, window: str) -> str:
        """Return the query of requests a second."""
        return f"sum(rate({self._series(self.slo.requests_metric)}[{window}]))"

    def errors(self, window: str) -> str:
        """Return the query of requests a second that the service failed."""
        return self._with_status("5..", window)

    def rate_limited(self, window: str) -> str:
        """Return the query of requests a second that a rate limit refused."""
        if metric := self.slo.rate_limited_metric:
            return f"sum(rate({self._series(metric)}[{window}]))"
        return self._with_status("429", window)

    def latency(self, share: float, window: str) -> str:
        """Return the query of the seconds within which a share has its answer."""
        buckets = self._series(f"{self.slo.latency_metric}_bucket")
        return (
            f"histogram_quantile({share:.6g}, sum by (le) (rate({buckets}[{window}])))"
        )

    def enough(self, metric: str, window: str) -> str:
        """Return the condition that a counter rose enough to say something."""
        number = f"sum(increase({self._series(metric)}[{window}]))"
        return f"{number} >= {self.slo.minimum_requests}"

    def _with_status(self, pattern: str, window: str) -> str:
        matcher = f'{self.slo.status_label}=~"{pattern}"'
        series = self._series(self.slo.requests_metric, matcher)
        return f"sum(rate({series}[{window}]))"

    def _series(self, metric: str, *matchers: str) -> str:
        labels = [f"{name}={json.dumps(v)}" for name, v in self.slo.labels.items()]
        inside = ", ".join([*labels, *matchers])
        return f"{metric}{{{inside}}}" if inside else metric


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a share of the requests, the budget, may miss.

    `missed(share, window)` is the condition that more than a share of them missed it,
    `counter` counts what the shares are of.
    """

    name: str
    promise: str
    budget: float
    runbook: str
    counter: str
    missed: Callable[[float, str], str]


def objectives(slo: SloSettings) -> list[Objective]:
    """Return what is configured; rate limits count where there is any objective."""
    service = ServiceQueries(slo)
    found = [_latency(service, *each) for each in _latencies(slo)]
    if slo.availability is not None:
        budget = round(1 - slo.availability / 100, 9)
        found.append(_errors(service, "Availability", budget))
    if slo.error_rate is not None:
        found.append(_errors(service, "ErrorRate", slo.error_rate))
    if found:
        found.append(
            Objective(
                name="RateLimit",
                promise=f"a rate limit refuses at most {slo.rate_limited * 100:.6g} % "
                "of the requests",
                budget=slo.rate_limited,
                runbook="service-rate-limited",
                counter=slo.requests_metric,
                missed=_share(service.rate_limited, service.requests),
            )
        )
    return found


def _latencies(slo: SloSettings) -> list[tuple[int, str]]:
    given = ((95, slo.latency.p95), (99, slo.latency.p99))
    return [(percent, text) for percent, text in given if text]


def _latency(service: ServiceQueries, percent: int, text: str) -> Objective:
    # By percentile, not by the bucket of the objective: the histogram may have none
    # with that very bound, and the alert would never fire.
    def missed(share: float, window: str) -> str:
        return f"{service.latency(1 - share, window)} > {latency_seconds(text):.6g}"

    return Objective(
        name=f"LatencyP{percent}",
        promise=f"{percent} % of the answers take at most {text}",
        budget=round(1 - percent / 100, 9),
        runbook="service-slow",
        counter=f"{service.slo.latency_metric}_count",
        missed=missed,
    )


def _errors(service: ServiceQueries, name: str, budget: float) -> Objective:
    return Objective(
        name=name,
        promise=f"at most {budget * 100:.6g} % of the requests fail",
        budget=budget,
        runbook="service-errors",
        counter=service.slo.requests_metric,
        missed=_share(service.errors, service.requests),
    )


def _share(
    part: Callable[[str], str], whole: Callable[[str], str]
) -> Callable[[float, str], str]:
    return lambda share, window: f"{part(window)} / {whole(window)} > {share:.6g}"
