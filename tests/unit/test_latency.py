"""Latency: percentiles and errors of a service that is good, slow, flaky, refusing or away."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings, VersionSettings
from opskit.config.strain import LatencyProbeSettings
from opskit.config.watch import SloSettings
from opskit.probes import latency
from opskit.probes.probe import Inconclusive, Probe
from opskit.probes.runner import Runner
from opskit.probes.sample import Limit, Sample
from opskit.probes.session import Session, Target
from tests.asgi import serving

SLOW_SECONDS = 1.0
SLO = SloSettings.model_validate(
    {"latency": {"p95": "700ms", "p99": "900ms"}, "error_rate": 0.02}
)
# Longer than a busy machine pauses.
PATIENT = SloSettings.model_validate(
    {"latency": {"p95": "10s", "p99": "10s"}, "error_rate": 0.02}
)
_numbers: dict[tuple[int, int], Iterator[int]] = defaultdict(itertools.count)


async def _answer(request: Request) -> Response:
    """Be slow, or answer with a status, once in so many requests of this path."""
    status, every = request.path_params["status"], request.path_params["every"]
    if next(_numbers[status, every]) % every:
        return Response("ok")
    if status == 200:
        await asyncio.sleep(SLOW_SECONDS)
    return Response(status_code=status)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service that misbehaves as its paths say."""
    with serving(Starlette(routes=[Route("/{status:int}/{every:int}", _answer)])) as at:
        yield at


Ask = Callable[..., Check]


@pytest.fixture
def ask(url: str) -> Ask:
    """Return a function that asks one probe about a path, once."""

    def ask(name: str, path: str, at: str = url, **more: Any) -> Check:
        probe = _probes(path=path, **more)[name]
        with Session(Target(url=at, timeout_seconds=20)) as session:
            return probe.ask(session)

    return ask


def _probes(slo: SloSettings = SLO, **asked: Any) -> dict[str, Probe]:
    section = LatencyProbeSettings.model_validate({"requests": 100} | asked)
    return {
        each.name: each for each in latency.probes(SmokeSettings(latency=section), slo)
    }


@pytest.mark.parametrize(
    ("name", "observed"),
    [
        ("latency.percentiles", "of 100 answers"),
        ("latency.errors", "0 errors in 100 answers"),
    ],
)
def test_a_good_service_passes(ask: Ask, name: str, observed: str) -> None:
    """And the number of answers is told."""
    check = ask(name, "/201/1", slo=PATIENT)

    assert check.passed
    assert observed in check.observed


def test_two_slow_answers_of_100_miss_the_99th_percentile(ask: Ask) -> None:
    """The 95th is met: two are fewer than five."""
    check = ask("latency.percentiles", "/200/50")

    assert check.failed
    assert check.expected == "p95 within 700 ms, p99 within 900 ms"


def test_errors_are_slower_than_any_limit(ask: Ask) -> None:
    """An error that comes at once makes no service fast."""
    check = ask("latency.percentiles", "/500/2")

    assert check.failed
    assert "p95 an error" in check.observed
    assert re.fullmatch(r"(4[89]|5[0-2]) with an error", check.detail)


@pytest.mark.parametrize("status", [500, 404])
def test_too_many_errors_fail(ask: Ask, status: int) -> None:
    """Their statuses are named."""
    check = ask("latency.errors", f"/{status}/20")

    assert check.failed
    assert re.fullmatch(
        rf"[456] errors in 100 answers \(status {status}\)", check.observed
    )


@pytest.mark.parametrize("name", ["latency.percentiles", "latency.errors"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/429/2", r"a rate limit refused \d+ of \d+ requests"),
        ("/503/2", r"\d+ of \d+ requests had no answer"),
    ],
)
def test_refused_and_unanswered_requests_are_inconclusive(
    ask: Ask, name: str, path: str, reason: str
) -> None:
    """A balancer's 503 and a rate limit say nothing of the service's speed or errors."""
    with pytest.raises(Inconclusive, match=reason):
        ask(name, path, slo=PATIENT)


@pytest.mark.parametrize("path", ["/429/1", "/503/1"])
def test_what_shows_nothing_is_not_asked_on(url: str, path: str) -> None:
    """A key's rate limit stays used up as long as it is asked."""
    target = Target(url=url, timeout_seconds=20)
    probe = _probes(path=path)["latency.errors"]
    with Session(target) as session:
        for _ in range(2):
            with pytest.raises(Inconclusive):
                probe.ask(session)

    assert target.requests.number < 2 * 20


def test_both_probes_judge_the_same_answers(url: str) -> None:
    """They are asked for once."""
    target = Target(url=url, timeout_seconds=20)
    with Session(target) as session:
        for probe in _probes(PATIENT, path="/200/1000000", connections=2).values():
            assert probe.ask(session).passed

    assert target.requests.number == 100 + 2


def test_a_service_that_is_away_is_inconclusive(ask: Ask) -> None:
    """Nothing listens on port 1."""
    with pytest.raises(Inconclusive, match=r"(\d) of \1 requests had no answer"):
        ask("latency.percentiles", "/200/1", at="http://127.0.0.1:1")


def test_attempts_after_the_first_ask_more(url: str) -> None:
    """Twice as many, up to four times: luck does not pass a flaky service."""
    probe = _probes(path="/200/1000000", connections=1)["latency.errors"]
    target = Target(url=url, timeout_seconds=20)
    seen = []
    with Session(target) as session:
        for _ in range(4):
            seen.append(probe.ask(session).observed)

    assert seen == [f"0 errors in {n} answers" for n in (100, 200, 400, 400)]
    assert target.requests.number == 1100 + 4  # each attempt opens one connection


def test_time_that_runs_out_passes_nothing(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few answers came; one slow answer among them does not fail it either."""
    monkeypatch.setattr(latency, "_SECONDS_MAX", 0.5)

    with pytest.raises(Inconclusive, match=r"only \d of 100 requests"):
        ask("latency.percentiles", "/200/1", connections=1)


def test_nothing_is_asked_without_objectives() -> None:
    """Each objective has its probe."""
    assert _probes(SloSettings()) == {}
    assert set(_probes(SloSettings(error_rate=0.1))) == {"latency.errors"}


def test_only_errors_gate_by_default() -> None:
    """A busy machine fails no release, unless the configuration wants it."""
    assert _probes()["latency.percentiles"].advisory
    assert not _probes()["latency.errors"].advisory
    assert not _probes(gating=True)["latency.percentiles"].advisory


def test_a_percentile_is_a_time_that_was_measured() -> None:
    """The nearest rank: of 200 answers the 198th, of 100 the 99th, from the fastest."""
    sample = Sample(200, seconds=[float(each) for each in range(200, 0, -1)])

    assert [sample.percentile(each) for each in (50, 95, 99, 100)] == [
        100,
        190,
        198,
        200,
    ]
    assert Limit(99, 1).allowed(200) == 2
    assert Limit(99, 1).allowed(100) == 1
    assert Limit(99, 1).allowed(99) == 0


@pytest.mark.parametrize(("seconds_min", "expected"), [(4.9, True), (5.0, False)])
def test_a_sample_is_judged_by_longer_limits_too(
    seconds_min: float, expected: bool
) -> None:
    """As where who measured was itself late."""
    sample = Sample(100, seconds=[5.0] * 100)

    assert sample.is_slow(SLO, seconds_min) is expected
    assert Sample(1, failed=[500]).is_slow(SLO, seconds_min)


def test_errors_of_an_old_version_are_not_held_against_the_new_one() -> None:
    """One of three connections leads to the old one; others than that one are asked."""
    ports: list[int] = []

    async def answer(request: Request) -> Response:
        port = request.scope["client"][1]
        if port not in ports:
            ports.append(port)
        is_old = ports.index(port) % 3 == 1
        if request.url.path == "/health":
            return JSONResponse({"version": "1" if is_old else "2"})
        return Response(status_code=500 if is_old else 200)

    routes = [Route("/{path:path}", answer)]
    with serving(Starlette(routes=routes)) as url:
        runner = Runner(
            Target(url=url, timeout_seconds=20),
            version=VersionSettings(),
            connections=5,
            deadline=time.monotonic(),
        )
        with Session(Target(url=url, timeout_seconds=20)) as first:
            assert first.get("/health").json() == {"version": "2"}
        runner._expected = "2"
        (finding,) = runner.ask([_probes(path="/objects")["latency.errors"]])

    assert finding.check.passed is None
    assert "may be another version's (1)" in finding.check.detail
