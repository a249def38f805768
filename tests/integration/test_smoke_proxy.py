"""Probes through a balancer that errs: what it does is never the service's failure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings, VersionSettings
from opskit.probes import authentication, headers
from opskit.probes.runner import Clock, Runner
from opskit.probes.session import Target
from tests.asgi import serving
from tests.flaky import balancing
from tests.nginx import balancing_requests
from tests.small_service import KEYS, Service

RUNS = 30
TOGETHER = 10
DEADLINE = 120.0
SETTINGS = SmokeSettings.model_validate(
    {
        "identity": "X-Request-ID",
        "authentication": {
            "routes": [
                {"path": "/api/tasks", "key": "writer"},
                {"path": "/api/forgotten", "key": "writer"},
            ],
            "bypass": ["/health"],
        },
    }
)
SAFE = {
    "X-Request-ID": "1",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
NOSNIFF = "X-Content-Type-Options"


@contextmanager
def instance(
    *defects: str, version: str = "1", without: Iterable[str] = ()
) -> Iterator[str]:
    """Serve an instance that sends all headers but some."""
    app = Service(frozenset(defects), version=version).app()
    sent = {name: value for name, value in SAFE.items() if name not in without}
    with serving(_with_headers(app, sent)) as url:
        yield url


def _with_headers(app: ASGIApp, added: dict[str, str]) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        await app(scope, receive, sending)

    return wrapped


@contextmanager
def old() -> Iterator[str]:
    """Serve an old version that answers several probes wrongly."""
    with instance("open-route", version="0", without={*SAFE} - {"X-Request-ID"}) as url:
        yield url


def smoke(url: str, *, asking: float = DEADLINE) -> list[Check]:
    """Confirm version 1, then ask the probes for some seconds.

    They pass while the runner waits, and only then: it asks as often on a slow machine.
    """
    keys = {name: {"X-API-Key": key} for name, key in KEYS.items()}
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    runner = Runner(
        Target(url=url, timeout_seconds=60, keys=keys, identity=SETTINGS.identity),
        version=VersionSettings(),
        connections=3,
        deadline=DEADLINE,
        clock=Clock(now=lambda: now, wait=wait),
    )
    confirmed = runner.confirm("1")
    if not confirmed.passed:
        return [confirmed]
    now = max(now, DEADLINE - asking)
    probes = [*authentication.probes(SETTINGS), *headers.probes(SETTINGS)]
    return [confirmed, *(each.check for each in runner.ask(probes))]


def runs(*instances: str, number: int = RUNS) -> list[list[Check]]:
    """Run again and again, each time through a balancer with another seed.

    They end after a few attempts, before every probe can have passed by luck.
    """

    def run(seed: int) -> list[Check]:
        with balancing(*instances, seed=seed, trouble=0.1, slow_seconds=1.0) as url:
            return smoke(url, asking=10.0)

    with ThreadPoolExecutor(TOGETHER) as pool:
        return list(pool.map(run, range(number)))


def failed(checks: list[Check]) -> set[str]:
    """Return the names of those that failed."""
    return {each.name for each in checks if each.failed}


def test_a_calm_balancer_changes_nothing() -> None:
    """The good version passes through it."""
    with instance() as good, balancing(good) as url:
        checks = smoke(url)

    assert len(checks) > 5
    assert [each for each in checks if not each.passed] == []


def test_no_probe_fails_by_trouble_or_an_old_version() -> None:
    """One connection of three leads to the old version."""
    with instance() as good, old() as other:
        found = runs(good, good, other)

    assert [failed(each) for each in found if failed(each)] == []
    assert sum(len(checks) > 1 for checks in found) > RUNS / 3


def test_a_balancer_that_chooses_for_each_request_blames_nobody(tmp_path: Path) -> None:
    """One request of three is answered by the old version, whatever the connection."""
    with (
        instance() as good,
        old() as other,
        balancing_requests(tmp_path, good, good, other) as balancer,
    ):
        found = runs(balancer, number=TOGETHER)

    assert [failed(each) for each in found if failed(each)] == []
    assert any(len(checks) > 1 for checks in found)


def test_what_is_broken_fails_through_trouble() -> None:
    """The expected version lacks a header and has an open route."""
    with instance("open-route", without=[NOSNIFF]) as broken:
        found = runs(broken)

    wrong = {"authentication.no-key", "headers.nosniff"}
    assert sum(failed(each) >= wrong for each in found) > RUNS / 2
    for checks in found:
        assert not wrong & {each.name for each in checks if each.passed}


def test_an_old_version_everywhere_is_never_passed() -> None:
    """Nor does it fail: no answer is of the version that is expected."""
    with old() as other, balancing(other) as url:
        (confirmed,) = smoke(url)

    assert confirmed.passed is None
