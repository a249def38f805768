"""The objectives of the operated service: as queries, and what Prometheus measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from opskit.checks import Check
from opskit.config.watch import SloSettings, latency_seconds
from opskit.watch.deliveries import Delivery, deliver, request

_ANSWER_BYTES_MAX = 64 * 1024
_ANSWER_SECONDS = 20.0
# What Prometheus may lack of a period without a word about it.
_SHORT = timedelta(days=1)


@dataclass(frozen=True)
class ServiceQueries:
    """Queries about the operated service, each over a window such as `5m`."""

    slo: SloSettings

    def requests(self, window: str) -> str:
        """Return the query of requests a second."""
        return f"sum(rate({self.series(self.slo.requests_metric)}[{window}]))"

    def errors(self, window: str) -> str:
        """Return the query of requests a second that the service failed."""
        return self._with_status("5..", window)

    def rate_limited(self, window: str) -> str:
        """Return the query of requests a second that a rate limit refused."""
        if metric := self.slo.rate_limited_metric:
            return f"sum(rate({self.series(metric)}[{window}]))"
        return self._with_status("429", window)

    def latency(self, share: float, window: str) -> str:
        """Return the query of the seconds within which a share has its answer."""
        buckets = self.series(f"{self.slo.latency_metric}_bucket")
        return (
            f"histogram_quantile({share:.6g}, sum by (le) (rate({buckets}[{window}])))"
        )

    def budget_left(self, availability: float, window: str) -> str:
        """Return the query of the share of an error budget that is not used up."""
        budget = round(1 - availability / 100, 9)
        failed = f"({self.errors(window)} or vector(0)) / {self.requests(window)}"
        return f"1 - {failed} / {budget:.6g}"

    def enough(self, metric: str, window: str) -> str:
        """Return the condition that a counter rose enough to say something."""
        number = f"sum(increase({self.series(metric)}[{window}]))"
        return f"{number} >= {self.slo.minimum_requests}"

    def _with_status(self, pattern: str, window: str) -> str:
        matcher = f'{self.slo.status_label}=~"{pattern}"'
        series = self.series(self.slo.requests_metric, matcher)
        return f"sum(rate({series}[{window}]))"

    def series(self, metric: str, *matchers: str) -> str:
        """Return the selector of a metric of the service."""
        labels = [f"{name}={json.dumps(v)}" for name, v in self.slo.labels.items()]
        inside = ", ".join([*labels, *matchers])
        return f"{metric}{{{inside}}}" if inside else metric


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a share of the requests, the budget, may miss.

    `missed(share, window)` is the condition that more than a share of them missed it,
    `enough(window)` that there were enough of them to say so.
    """

    name: str
    promise: str
    budget: float
    runbook: str
    missed: Callable[[float, str], str]
    enough: Callable[[str], str]


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
                missed=_share(service.rate_limited, service.requests),
                enough=partial(service.enough, slo.requests_metric),
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
        missed=missed,
        enough=partial(service.enough, f"{service.slo.latency_metric}_count"),
    )


def _errors(service: ServiceQueries, name: str, budget: float) -> Objective:
    return Objective(
        name=name,
        promise=f"at most {budget * 100:.6g} % of the requests fail",
        budget=budget,
        runbook="service-errors",
        missed=_share(service.errors, service.requests),
        enough=partial(service.enough, service.slo.requests_metric),
    )


def _share(
    part: Callable[[str], str], whole: Callable[[str], str]
) -> Callable[[float, str], str]:
    return lambda share, window: f"{part(window)} / {whole(window)} > {share:.6g}"


@dataclass(frozen=True, kw_only=True)
class ServiceFigures:
    """What Prometheus measured of the service in a period, or why it did not.

    Shares are from 0 to 1. A figure that there is no data of is missing. Prometheus
    may know less than the whole period: `since` is when its data begins.
    """

    error: str = ""
    since: datetime | None = None
    requests: float | None = None
    availability: float | None = None
    budget_left: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    rate_limited: float | None = None


def measure(slo: SloSettings, *, start: datetime, end: datetime) -> ServiceFigures:
    """Ask Prometheus for the figures of a period; a failure is one of them."""
    if not slo.prometheus_url:
        return ServiceFigures(error="no Prometheus is configured")
    period = max(end - start, timedelta(minutes=1))
    query = " or ".join(
        f'label_replace({expr}, "figure", "{name}", "", "")'
        for name, expr in _expressions(slo, period).items()
    )
    answers: list[bytes] = []

    def ask() -> None:
        answers.append(
            request(
                "POST",
                f"{slo.prometheus_url.rstrip('/')}/api/v1/query",
                timeout=_ANSWER_SECONDS,
                body=urlencode({"query": query, "time": end.timestamp()}).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                answer_bytes=_ANSWER_BYTES_MAX,
            )
        )

    delivery = Delivery(receiver="Prometheus", send=ask, seconds=_ANSWER_SECONDS)
    if reason := deliver([delivery])[0]:
        return ServiceFigures(error=f"Prometheus gives no figures: {reason}")
    try:
        return _figures(json.loads(answers[0]), start)
    except (ValueError, TypeError, LookupError):
        return ServiceFigures(error="the answer is not one of Prometheus")


def _expressions(slo: SloSettings, period: timedelta) -> dict[str, str]:
    service = ServiceQueries(slo)
    window = f"{period.total_seconds():.0f}s"
    requests = service.requests(window)
    # A subquery sees when there were any series at all, if they are not too young.
    step = f"{max(60, period.total_seconds() // 500):.0f}s"
    known = f"timestamp(sum({service.series(slo.requests_metric)}))"
    found = {
        "since": f"min_over_time({known}[{window}:{step}]) or {known}",
        "requests": f"{requests} * {period.total_seconds():.0f}",
        "availability": f"1 - ({service.errors(window)} or vector(0)) / {requests}",
        "p95_seconds": service.latency(0.95, window),
        "p99_seconds": service.latency(0.99, window),
        "rate_limited": f"({service.rate_limited(window)} or vector(0)) / {requests}",
    }
    if slo.availability is not None:
        found["budget_left"] = service.budget_left(slo.availability, window)
    return found


def _figures(document: Any, start: datetime) -> ServiceFigures:
    figures: dict[str, Any] = {
        str(each["metric"]["figure"]): value
        for each in document["data"]["result"]
        if math.isfinite(value := float(each["value"][1]))
    }
    if "since" not in figures:
        return ServiceFigures(error="Prometheus knows no requests in this period")
    since = max(start, datetime.fromtimestamp(figures.pop("since"), UTC))
    return ServiceFigures(since=since, **figures)


def checks(slo: SloSettings, *, start: datetime, end: datetime) -> list[Check]:
    """Return whether the objectives were met in a period; none without a Prometheus."""
    if not slo.prometheus_url:
        return []
    found = measure(slo, start=start, end=end)
    if found.error:
        return [Check(name="Prometheus", passed=None, observed=found.error)]
    since = ""
    if found.since is not None and found.since - start > _SHORT:
        since = f" (since {found.since:%Y-%m-%d %H:%M} UTC)"
    failed = None if found.availability is None else 1 - found.availability
    floors = (
        ("availability", _percent(found.availability), slo.availability, "%"),
        ("error budget left", _percent(found.budget_left), _floor(slo), "%"),
    )
    ceilings = (
        ("error rate", _percent(failed), _percent(slo.error_rate), "%"),
        ("p95", found.p95_seconds, _seconds(slo.latency.p95), "s"),
        ("p99", found.p99_seconds, _seconds(slo.latency.p99), "s"),
        ("refused", _percent(found.rate_limited), _percent(slo.rate_limited), "%"),
    )
    return [
        Check(
            name=name,
            passed=None if value is None else value * sign <= limit * sign,
            expected=f"at {words} {limit:.6g} {unit}",
            observed="" if value is None else f"{value:.6g} {unit}{since}",
        )
        for words, sign, rows in (("least", -1, floors), ("most", 1, ceilings))
        for name, value, limit, unit in rows
        if limit is not None
    ]


def _floor(slo: SloSettings) -> float | None:
    """Return what must be left of the error budget, if there is one."""
    return None if slo.availability is None else 0.0


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 6)


def _seconds(text: str) -> float | None:
    return latency_seconds(text) if text else None
