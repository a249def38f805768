"""The probes of health: a right report passes, and each wrong one fails."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.unit.probed import Respond, asked

SETTINGS: dict[str, Any] = {
    "health": {
        "path": "/health",
        "services": ["database", "redis"],
        "public": ["/ready", "/health/live"],
    }
}
REPORT = {
    "status": "healthy",
    "version": "1.4.0",
    "uptime_seconds": 12.5,
    "services": {"database": {"status": "healthy"}, "redis": "ok"},
}
READY = {"status": "ready"}


def _service(
    status: int = 200,
    report: object = REPORT,
    ready: object = READY,
    ready_status: int = 200,
) -> Respond:
    def respond(request: Request) -> Response:
        if request.url.path == "/health":
            return JSONResponse(report, status)
        return JSONResponse(ready, ready_status)

    return respond


def _with(**fields: Any) -> dict[str, Any]:
    return REPORT | fields


def _states(database: object, redis: object = "healthy") -> dict[str, object]:
    return {"database": database, "redis": redis}


DEGRADED = _with(status="degraded", services=_states("healthy", "unhealthy"))
UNHEALTHY = _with(status="unhealthy", services=_states("unhealthy"))


@pytest.mark.parametrize(
    "name", ["health.status", "health.agreement", "health.report", "health.public"]
)
@pytest.mark.parametrize("report", [REPORT, DEGRADED])
def test_a_right_answer_passes(name: str, report: object) -> None:
    check = asked(_service(report=report), name, **SETTINGS)

    assert check.passed, check


@pytest.mark.parametrize(
    ("status", "report"),
    [(503, UNHEALTHY), (200, UNHEALTHY), (500, REPORT), (200, _with(status="fine"))],
    ids=["unhealthy", "unhealthy with 200", "500", "an unknown status"],
)
def test_a_service_that_does_not_work_fails(status: int, report: object) -> None:
    check = asked(_service(status, report), "health.status", **SETTINGS)

    assert check.passed is False


def test_a_degraded_service_passes_and_is_named() -> None:
    check = asked(_service(report=DEGRADED), "health.status", **SETTINGS)

    assert (check.passed, check.observed) == (True, "200 degraded")
    assert check.detail == "redis is unhealthy"


@pytest.mark.parametrize(
    ("status", "report"),
    [
        (200, UNHEALTHY),
        (500, UNHEALTHY),
        (503, DEGRADED),
        (503, REPORT),
        (200, _with(services=_states("unhealthy"))),
        (200, _with(services=_states("degraded"))),
        (200, _with(services=_states("on fire"))),
    ],
)
def test_a_status_code_that_does_not_agree_fails(status: int, report: object) -> None:
    check = asked(_service(status, report), "health.agreement", **SETTINGS)

    assert check.passed is False


def test_an_unhealthy_service_that_answers_503_agrees() -> None:
    check = asked(_service(503, UNHEALTHY), "health.agreement", **SETTINGS)

    assert check.passed


@pytest.mark.parametrize(
    ("report", "fault"),
    [
        (_with(status=None), "no status that is configured"),
        (_with(version=""), "no version in version"),
        (_with(version="unknown"), "no version in version"),
        (_with(version=1.4), "no version in version"),
        (_with(uptime_seconds="12"), "no seconds in uptime_seconds"),
        (_with(uptime_seconds=-1), "no seconds in uptime_seconds"),
        (_with(uptime_seconds=True), "no seconds in uptime_seconds"),
        (_with(uptime_seconds=1_800_000_000), "no seconds in uptime_seconds"),
        (_with(services={"database": "healthy"}), "no redis"),
        (_with(services=None), "no database; no redis"),
        (_with(services=_states("fine")), "no known state of database"),
        (_with(services=_states({})), "no known state of database"),
        ([REPORT], "JSON of another kind"),
    ],
)
def test_a_malformed_report_fails(report: object, fault: str) -> None:
    check = asked(_service(report=report), "health.report", **SETTINGS)

    assert (check.passed, check.observed) == (False, fault)


@pytest.mark.parametrize(
    ("ready", "status"),
    [
        (READY | {"pid": 4711}, 200),
        (READY | {"execution_id": "a81f"}, 200),
        (READY | {"warnings": ["redis is slow"]}, 200),
        ({"status": "ready (redis is slow)"}, 200),
        ({"status": {"pid": 4711}}, 200),
        ({"status": ["ready", 4711]}, 200),
        ({"status": "not ready"}, 503),
        ({"status": "not ready"}, 200),
        (["ready"], 200),
    ],
)
def test_a_public_answer_that_tells_more_fails(ready: object, status: int) -> None:
    """Also one that says that the service is not ready. No value of it is shown."""
    check = asked(
        _service(ready=ready, ready_status=status), "health.public", **SETTINGS
    )

    assert check.passed is False
    assert not any(secret in check.observed for secret in ("4711", "a81f", "slow"))


def test_a_503_without_a_report_is_a_balancers() -> None:
    """It is the service's where a header identifies it, and then it is wrong."""

    def respond(request: Request) -> Response:
        return Response("<h1>503</h1>", 503, {"X-Request-ID": "abcdefgh"})

    identified = SETTINGS | {"identity": "X-Request-ID"}

    assert asked(respond, "health.status", **SETTINGS).passed is None
    assert asked(respond, "health.status", **identified).passed is False


def test_nothing_is_asked_where_nothing_is_configured() -> None:
    from opskit.config.smoke import SmokeSettings
    from opskit.probes import health

    assert not list(health.probes(SmokeSettings()))
