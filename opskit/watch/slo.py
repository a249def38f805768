"""The objectives of the operated service: as queries, and what Prometheus measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

from opskit.checks import Check
from opskit.config.watch import SloSettings, latency_seconds
from opskit.watch.deliveries import Delivery, NotDelivered, deliver, request

_ANSWER_BYTES_MAX = 64 * 1024
_ANSWER_SECONDS = 20.0
# How much of a period Prometheus may lack before the report says so.
_SHORT = timedelta(days=1)
_SINCE = "since"


@dataclass(frozen=True)
class ServiceQueries:
    """Queries about the operated service, each over a window such as `5m`."""

    slo: SloSettings

    def requests(self, window: str) -> str:
        """Return the query of requests a second."""
        return f"sum(rate({self.series(self.slo.requests_metric)}[{window}]))"

    def failed(self, window: str) -> str:
        """Return the query of the share of requests that the service failed."""
        return self._share(self._with_status("5.."), window)

    def refused(self, window: str) -> str:
        """Return the query of the share of requests that a rate limit refused."""
        metric = self.slo.rate_limited_metric
        series = self.series(metric) if metric else self._with_status("429")
        return self._share(series, window)

    def latency(self, share: float, window: str) -> str:
        """Return the query of the seconds within which a share has its answer."""
        buckets = self.series(f"{self.slo.latency_metric}_bucket")
        return (
            f"histogram_quantile({share:.6g}, sum by (le) (rate({buckets}[{window}])))"
        )

    def budget_left(self, availability: float, window: str) -> str:
        """Return the query of the share of an error budget that is not used up."""
        return f"1 - {self.failed(window)} / {_budget(availability):.6g}"

    def enough(self, metric: str, window: str) -> str:
        """Return the condition that a counter rose enough to say something."""
        number = f"sum(increase({self.series(metric)}[{window}]))"
        return f"{number} >= {self.slo.minimum_requests}"

    def series(self, metric: str, *matchers: str) -> str:
        """Return the selector of a metric of the service."""
        labels = [f"{name}={json.dumps(v)}" for name, v in self.slo.labels.items()]
        inside = ", ".join([*labels, *matchers])
        return f"{metric}{{{inside}}}" if inside else metric

    def _with_status(self, pattern: str) -> str:
        matcher = f'{self.slo.status_label}=~"{pattern}"'
        return self.series(self.slo.requests_metric, matcher)

    def _share(self, series: str, window: str) -> str:
        # There is no series of failures where nothing has ever failed.
        part = f"(sum(rate({series}[{window}])) or vector(0))"
        return f"{part} / {self.requests(window)}"


def _budget(availability: float) -> float:
    """Return the share of requests that may fail."""
    return round(1 - availability / 100, 9)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a share of the requests, the budget, may miss.

    `missed(share, window)` is the condition that more than a share of them missed it,
    `enough(window)` that there were enough of them to say so.
    """

    name: str
    promise: str
    budget: float
    missed: Callable[[float, str], str]
    enough: Callable[[str], str]


def objectives(slo: SloSettings) -> list[Objective]:
    """Return what is configured; rate limits count where there is any objective."""
    service = ServiceQueries(slo)
    configured = [_latency(service, *each) for each in _latencies(slo)]
    if slo.availability is not None:
        configured.append(_errors(service, "Availability", _budget(slo.availability)))
    if slo.error_rate is not None:
        configured.append(_errors(service, "ErrorRate", slo.error_rate))
    if configured:
        configured.append(
            Objective(
                name="RateLimit",
                promise=f"a rate limit refuses at most {slo.rate_limited * 100:.6g} % "
                "of the requests",
                budget=slo.rate_limited,
                missed=lambda share, window: f"{service.refused(window)} > {share:.6g}",
                enough=partial(service.enough, slo.requests_metric),
            )
        )
    return configured


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
        missed=missed,
        enough=partial(service.enough, f"{service.slo.latency_metric}_count"),
    )


def _errors(service: ServiceQueries, name: str, budget: float) -> Objective:
    return Objective(
        name=name,
        promise=f"at most {budget * 100:.6g} % of the requests fail",
        budget=budget,
        missed=lambda share, window: f"{service.failed(window)} > {share:.6g}",
        enough=partial(service.enough, service.slo.requests_metric),
    )


@dataclass(frozen=True)
class _Figure:
    """A number that a report compares with an objective, and the query for it."""

    name: str
    query: str
    limit: float
    unit: str = "%"
    is_floor: bool = False

    def check(self, value: float | None, since: str) -> Check:
        """Return whether the objective was met."""
        met, words = value is not None and value <= self.limit, "most"
        if self.is_floor:
            met, words = value is not None and value >= self.limit, "least"
        return Check(
            name=self.name,
            passed=None if value is None else met,
            expected=f"at {words} {self.limit:.6g} {self.unit}",
            observed="" if value is None else f"{value:.6g} {self.unit}{since}",
        )


def checks(slo: SloSettings, *, start: datetime, end: datetime) -> list[Check]:
    """Return whether objectives were met in a period; none without a Prometheus.

    What Prometheus does not answer, or has no data of, is not checked. It may know less
    than the whole period, which is said.
    """
    if not slo.prometheus_url:
        return []
    period = max(end - start, timedelta(minutes=1))
    window = f"{period.total_seconds():.0f}s"
    figures = [*_figures(slo, window)]
    requests = ServiceQueries(slo).series(slo.requests_metric)
    known = f"timestamp(sum({requests}))"
    step = max(60, period.total_seconds() // 500)
    queries = {each.name: each.query for each in figures} | {
        # A subquery sees when there were any series at all, if they are not too young.
        _SINCE: f"min_over_time({known}[{window}:{step:.0f}s]) or {known}"
    }
    try:
        values = _ask(slo.prometheus_url, queries, end)
        first = datetime.fromtimestamp(values[_SINCE], UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        reason = "it knows no requests in this period"
    except NotDelivered as error:
        reason = str(error)
    else:
        since = f" (since {first:%Y-%m-%d %H:%M} UTC)"
        said = since if first - start > _SHORT else ""
        return [each.check(values.get(each.name), said) for each in figures]
    words = f"Prometheus gives no figures: {reason}"
    return [Check(name="Prometheus", passed=None, observed=words)]


def _figures(slo: SloSettings, window: str) -> Iterator[_Figure]:
    """Yield what can be compared with an objective."""
    service = ServiceQueries(slo)
    failed, refused = service.failed(window), service.refused(window)
    if (promised := slo.availability) is not None:
        left = service.budget_left(promised, window)
        yield _Figure("availability", f"100 * (1 - {failed})", promised, is_floor=True)
        yield _Figure("error budget left", f"100 * ({left})", 0, is_floor=True)
    if slo.error_rate is not None:
        yield _Figure("error rate", f"100 * {failed}", 100 * slo.error_rate)
    yield _Figure("refused", f"100 * {refused}", 100 * slo.rate_limited)
    for percent, text in _latencies(slo):
        query = service.latency(percent / 100, window)
        yield _Figure(f"p{percent}", query, latency_seconds(text), unit="s")


def _ask(url: str, queries: Mapping[str, str], time: datetime) -> dict[str, float]:
    """Return the values of queries at a time, without those that are no numbers.

    Raises:
        NotDelivered: there is no answer in time, or not one of Prometheus.
    """
    query = " or ".join(
        f'label_replace({expr}, "figure", "{name}", "", "")'
        for name, expr in queries.items()
    )
    answers: list[bytes] = []

    def ask() -> None:
        answers.append(
            request(
                "POST",
                f"{url.rstrip('/')}/api/v1/query",
                timeout=_ANSWER_SECONDS,
                body=urlencode({"query": query, "time": time.timestamp()}).encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                answer_bytes=_ANSWER_BYTES_MAX,
            )
        )

    delivery = Delivery(receiver="Prometheus", send=ask, seconds=_ANSWER_SECONDS)
    if reason := deliver([delivery])[0]:
        raise NotDelivered(reason, passing=True)
    try:
        return {
            str(each["metric"]["figure"]): value
            for each in json.loads(answers[0])["data"]["result"]
            if math.isfinite(value := float(each["value"][1]))
        }
    except (ValueError, TypeError, LookupError):
        raise NotDelivered(
            "its answer is not that of a Prometheus", passing=False
        ) from None
