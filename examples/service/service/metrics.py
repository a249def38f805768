"""Metrics: what Prometheus reads of the service."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import Request
from starlette.responses import Response

_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one process, and the process itself."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "http_requests",
            "Requests answered, by the route's template",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds until a request was answered",
            ["method", "route"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        info = Gauge(
            "service_info", "The running version", ["version"], registry=self.registry
        )
        info.labels(version).set(1)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; a method that nobody knows counts as `other`."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def show(self, _request: Request) -> Response:
        """Answer with all metrics."""
        return Response(
            generate_latest(self.registry), media_type="text/plain; version=0.0.4"
        )
