"""The probes of rate limits: a right answer passes, and each wrong one fails."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.probes import rate_limit
from opskit.probes.runner import Runner
from opskit.probes.session import Session, Target
from tests.unit.probed import Respond, asked, named

LIMIT = 12
KEYS = {
    "burst": {"X-API-Key": "of-the-burst"},
    "other": {"X-API-Key": "of-somebody-else"},
}
Change = Callable[[dict[str, str], int], object]


@dataclass
class Clock:
    """The time of the probe and of the service alike: it passes while one sleeps."""

    now: float = field(default_factory=time.time)

    def time(self) -> float:
        """Return the seconds since 1970."""
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that does not run while this machine is busy."""
    made = Clock()
    monkeypatch.setattr(rate_limit, "time", made)
    return made


@dataclass
class Limiter:
    """A service with windows of fixed length; `change` spoils the headers."""

    window: float = 60.0
    limit: int = LIMIT
    enforced: int = LIMIT
    status: int = 429
    change: Change = lambda _headers, _status: None
    client: Callable[[Request], object] = lambda request: request.headers["X-API-Key"]
    extends: bool = False
    time: Callable[[], float] = time.time
    starts: dict[object, float] = field(default_factory=dict)
    used: Counter[object] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Response:
        """Count a request, and answer it."""
        now, client = self.time(), self.client(request)
        if now >= self.starts.get(client, 0.0) + self.window:
            self.starts[client], self.used[client] = now, 0
        self.used[client] += 1
        is_over = self.used[client] > self.enforced
        if is_over and self.extends:
            self.starts[client] = now
        reset = self.starts[client] + self.window
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used[client])),
            "X-RateLimit-Reset": str(int(reset) + 1),
        }
        status = self.status if is_over else 200
        if is_over:
            headers["Retry-After"] = str(int(reset - now) + 1)
        self.change(headers, status)
        return JSONResponse({"error": {"code": "busy"}}, status, headers)


def ask(
    service: Respond, name: str = "burst", *, window: str = "60s", **more: Any
) -> Check:
    """Ask a probe of the family."""
    wanted: dict[str, Any] = {
        "path": "/api/tasks",
        "key": "burst",
        "other_key": "other",
    }
    wanted |= {"limit": LIMIT, "window": window}
    return asked(
        service,
        f"rate_limit.{name}",
        keys=KEYS,
        rate_limit=wanted,
        error_fields=["error.code"],
        **more,
    )


def test_a_burst_that_is_counted_and_refused_passes() -> None:
    check = ask(Limiter())

    assert check.passed, check
    assert check.observed == f"{LIMIT} answers, then 5 times 429"


def test_seconds_until_the_window_ends_are_understood() -> None:
    """Reset may be a time, or the seconds until then; Retry-After may be a date."""

    def relative(headers: dict[str, str], status: int) -> None:
        headers["X-RateLimit-Reset"] = "60"
        if status == 429:
            date = formatdate(time.time() + 60, usegmt=True)
            headers["Retry-After"] = date

    check = ask(Limiter(change=relative))

    assert check.passed, check


def without(name: str, *, only: int = 0) -> Change:
    """Leave a header out, of all answers or of those with one status."""

    def change(headers: dict[str, str], status: int) -> None:
        if only in (0, status):
            headers.pop(name, None)

    return change


def value(name: str, text: Callable[[int], str]) -> Change:
    """Give a header another value, made of its own."""

    def change(headers: dict[str, str], _status: int) -> None:
        if name in headers:
            headers[name] = text(int(headers[name]))

    return change


def process(request: Request) -> object:
    """Return which of two processes answers on a connection."""
    assert request.client is not None
    return _PROCESSES.setdefault(request.client.port, len(_PROCESSES) % 2)


_PROCESSES: dict[int, int] = {}
REMAINING, RESET = "X-RateLimit-Remaining", "X-RateLimit-Reset"


@pytest.mark.parametrize(
    "service",
    [
        Limiter(enforced=10_000),
        Limiter(enforced=LIMIT + 2),
        Limiter(enforced=LIMIT - 2),
        Limiter(limit=10 * LIMIT, enforced=10 * LIMIT),
        Limiter(limit=10 * LIMIT),
        Limiter(status=403),
        Limiter(status=503),
        Limiter(change=without("Retry-After")),
        Limiter(change=value("Retry-After", lambda _own: "0")),
        Limiter(change=value("Retry-After", lambda _own: "-1")),
        Limiter(change=value("Retry-After", lambda _own: "soon")),
        Limiter(change=value("Retry-After", lambda _own: "31536000")),
        Limiter(change=without(REMAINING, only=200)),
        Limiter(change=without(REMAINING, only=429)),
        Limiter(change=without(RESET)),
        Limiter(change=value(RESET, lambda own: str(own - 3600))),
        Limiter(change=value(RESET, lambda own: str(own + 3600))),
        Limiter(change=value(REMAINING, lambda _own: str(LIMIT - 1))),
        Limiter(change=value(REMAINING, lambda own: str(own - 3))),
        Limiter(change=value(REMAINING, lambda own: str(own + 1))),
        Limiter(change=value(REMAINING, lambda own: str(own // 2))),
        Limiter(client=process),
    ],
    ids=[
        "no limit",
        "a higher limit than said",
        "a lower limit than said",
        "ten times the limit",
        "another limit said",
        "403",
        "503",
        "no Retry-After",
        "Retry-After 0",
        "Retry-After negative",
        "Retry-After in words",
        "Retry-After a year",
        "no Remaining on 200",
        "no Remaining on 429",
        "no Reset",
        "Reset in the past",
        "Reset in an hour",
        "Remaining stands still",
        "Remaining below zero",
        "Remaining one too many",
        "Remaining falls by halves",
        "each process counts for itself",
    ],
)
def test_a_limit_that_is_not_right_fails(service: Limiter) -> None:
    check = ask(service, identity="X-RateLimit-Limit")

    assert check.passed is False, check


def test_a_refusal_without_the_form_of_errors_fails() -> None:
    service = Limiter()

    def respond(request: Request) -> Response:
        answer = service(request)
        headers = dict(answer.headers)
        del headers["content-length"]
        return Response("slow down", answer.status_code, headers)

    check = ask(respond)

    assert check.passed is False
    assert check.observed == "429 that is no JSON"


def test_a_window_that_ends_in_the_middle_of_the_burst_is_no_fault() -> None:
    """The counts begin anew, and the burst goes on in the new window."""
    service, asked_for = Limiter(), 0

    def respond(request: Request) -> Response:
        nonlocal asked_for
        asked_for += 1
        if asked_for == LIMIT // 2:
            service.starts.clear()
        return service(request)

    check = ask(respond)

    assert check.passed, check
    assert check.observed == f"{LIMIT} answers, then 5 times 429"


def test_a_burst_that_takes_longer_than_a_window_is_inconclusive() -> None:
    service = Limiter(window=1)

    def respond(request: Request) -> Response:
        time.sleep(0.2)
        return service(request)

    assert ask(respond, window="1s").passed is None


def test_a_limit_that_was_used_up_before_is_waited_for(clock: Clock) -> None:
    """The second burst begins when the window of the first one has ended."""
    # Seconds from now: the header Date is of another clock.
    relative = value(RESET, lambda own: str(own - int(clock.now)))
    service, began = Limiter(window=4, time=clock.time, change=relative), clock.now

    assert ask(service, window="4s").passed
    assert clock.now == began
    assert ask(service, window="4s").passed
    assert began + 4 <= clock.now <= began + 7


def test_another_key_is_served_meanwhile() -> None:
    check = ask(Limiter(), "other-keys")

    assert check.passed, check


def test_a_limit_of_all_keys_together_fails() -> None:
    check = ask(Limiter(client=lambda _request: "everybody"), "other-keys")

    assert check.passed is False


def test_a_key_that_is_served_after_retry_after_passes(clock: Clock) -> None:
    check = ask(Limiter(window=2, time=clock.time), "restored", window="2s")

    assert check.passed, check


@pytest.mark.parametrize(
    "service",
    [
        Limiter(window=60, change=value("Retry-After", lambda _own: "1")),
        Limiter(window=3, extends=True, change=value("Retry-After", lambda _own: "2")),
        Limiter(enforced=10_000),
    ],
    ids=["Retry-After too short", "refused requests extend it", "no limit"],
)
def test_a_key_that_is_not_served_after_retry_after_fails(
    service: Limiter, clock: Clock
) -> None:
    service.time = clock.time

    assert ask(service, "restored").passed is False


def test_a_window_that_is_longer_than_the_deadline_is_not_waited_for() -> None:
    service = Limiter()

    check = ask(service, "restored", deadline="30s", window="1h")

    assert check.passed is None
    assert check.detail == ("the window of 3600 s is longer than the deadline of 30 s")
    assert not service.used


def test_what_cannot_be_asked_is_not_asked_again() -> None:
    """The runner does not try it until the deadline, and it keeps nothing from passing."""
    settings = SmokeSettings(
        url="http://127.0.0.1:9",
        deadline="30s",
        rate_limit={"path": "/", "limit": LIMIT, "window": "1h"},
    )
    runner = Runner(
        Target(url=settings.url, timeout_seconds=1),
        version=settings.version,
        connections=1,
        deadline=time.monotonic() + 60,
    )
    probe, asked_for = named(settings, "rate_limit.restored"), []

    def count(session: Session) -> Check:
        asked_for.append(session)
        return probe.ask(session)

    (finding,) = runner.ask([replace(probe, ask=count)])

    assert len(asked_for) == 1
    assert finding.check.passed is None
    assert "longer than the deadline" in finding.check.detail
    assert not finding.gates
