"""Load: a service that bears it, and services that each fail under it in one way."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.strain import LoadSettings
from opskit.config.watch import SloSettings
from opskit.probes import generator, load
from opskit.probes.generator import Generator
from opskit.probes.probe import Inconclusive
from opskit.probes.session import Session, Target
from tests.asgi import serving

SLO = SloSettings.model_validate(
    {"latency": {"p95": "4s", "p99": "5s"}, "error_rate": 0.02}
)
# Far more than a busy machine needs for an answer of this service.
PATIENT = SloSettings.model_validate(
    {"latency": {"p95": "60s", "p99": "60s"}, "error_rate": 0.02}
)
SECONDS = 60.0
# Where a subscriber waits for what never comes.
SILENT_SECONDS = 10.0
MIB = 1024 * 1024
SECTION: dict[str, Any] = {
    "requests": [
        {"path": "/objects", "weight": 3},
        {"method": "POST", "path": "/objects", "document": {"title": "a {marker}"}},
    ],
    "duration": "2s",
    "rate": 20,
    "spike": 10,
    "spike_every": "1s",
    "streams": ["/events"],
    "sockets": ["/ws"],
    "subscribe": {"type": "subscribe"},
    "subscribers": 2,
}
# 20 a second for 2 seconds, and a burst after one.
PLANNED = 2 * 20 + 10
BURST = 15  # of 30


class Shop:
    """Creates objects and tells its subscribers of them; `faults` are its defects."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.listeners: list[asyncio.Queue[str]] = []
        self.created = 0
        self.numbers, self.sockets = itertools.count(1), itertools.count(1)
        self.memory, self.began = 50 * MIB, 1.0
        self.at_once = self.at_once_max = 0
        self.burst = asyncio.Event()
        self.app = Router(
            [
                Route("/objects", self.create, methods=["POST"]),
                Route("/objects", self.show),
                Route("/metrics", self.metrics),
                Route("/events", self.events),
                WebSocketRoute("/ws", self.talk),
            ]
        )

    async def show(self, _request: Request) -> Response:
        number = next(self.numbers)
        if "leaks" in self.faults:
            self.memory += 6 * MIB
        if "is slow" in self.faults and number > 20:
            await asyncio.sleep(4.5)
        if "fails" in self.faults and number % 4 == 0:
            return Response(status_code=500)
        if "restarts" in self.faults and number > 30:
            self.began = 2.0
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        if self.at_once >= BURST:
            self.burst.set()
        if "holds a burst" in self.faults:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.burst.wait(), 20)
        await asyncio.sleep(0.2 if "takes its time" in self.faults else 0)
        self.at_once -= 1
        return Response(status_code=429 if "refuses" in self.faults else 200)

    async def create(self, request: Request) -> Response:
        title = (await request.json())["title"]
        self.created += 1
        for number, each in enumerate(self.listeners):
            is_dropped = number == 1 and self.created % 5 == 0
            if "drops events" in self.faults and is_dropped:
                continue
            each.put_nowait(json.dumps({"object": {"title": title}}))
        return JSONResponse({}, 201)

    async def metrics(self, _request: Request) -> Response:
        return PlainTextResponse(
            "# TYPE process_resident_memory_bytes gauge\n"
            f"process_resident_memory_bytes {self.memory:e}\n"
            f'other{{path="/"}} 7\nprocess_start_time_seconds {self.began}\n'
        )

    async def events(self, _request: Request) -> Response:
        async def lines() -> AsyncIterator[str]:
            yield ": welcome\n\n"
            await asyncio.sleep(0.2)  # it answers before it is subscribed
            queue: asyncio.Queue[str] = asyncio.Queue()
            self.listeners.append(queue)
            while True:
                yield f"data: {await queue.get()}\n\n"

        refused = "refuses subscribers" in self.faults
        return Response(status_code=403) if refused else StreamingResponse(lines())

    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        assert await socket.receive_json() == {"type": "subscribe"}
        queue: asyncio.Queue[str] = asyncio.Queue()
        self.listeners.append(queue)
        for number in itertools.count():
            if "closes a WebSocket" in self.faults and number == 5:
                await socket.close(1013)
                break
            await socket.send_text(await queue.get())


@pytest.fixture
def shop() -> Shop:
    """The service, all well."""
    return Shop()


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    """Where it answers."""
    with serving(shop.app) as address:
        yield address


def _settings(**more: Any) -> SmokeSettings:
    return SmokeSettings.model_validate(
        {"load": SECTION | more, "observability": {"metrics": "/metrics"}}
    )


def _judged(
    url: str,
    *names: str,
    slo: SloSettings = SLO,
    seconds: float = SECONDS,
    **more: Any,
) -> dict[str, Check]:
    """Return what the probes of one load say; an inconclusive one has not passed."""
    probes = list(load.probes(_settings(**more), slo))
    target = Target(url=url, timeout_seconds=seconds)
    checks = {}
    with Session(target) as session:
        for each in probes:
            if not names or each.name.removeprefix("load.") in names:
                checks[each.name.removeprefix("load.")] = each.ask(session)
    return checks


def test_a_service_that_bears_it_passes(shop: Shop, url: str) -> None:
    """All probes judge one load: each event comes to each subscriber."""
    checks = _judged(url, slo=PATIENT)

    assert [each for each in checks.values() if not each.passed] == []
    assert list(checks) == ["latency", "errors", "subscribers", "memory"]
    assert f"of {PLANNED} answers" in checks["latency"].observed
    assert checks["errors"].observed == f"0 errors in {PLANNED} answers"
    assert checks["subscribers"].expected == "12 events for each of 4 subscribers"
    assert len(shop.listeners) == 4


@pytest.mark.parametrize(
    ("fault", "name", "observed"),
    [
        # As long as the service sleeps, or longer.
        ("is slow", "latency", r"p95 (4\.[5-9]|[5-9]|\d\d|an error)"),
        ("fails", "errors", r"9 errors in 50 answers \(status 500\)"),
        ("drops events", "subscribers", "misses"),
        ("closes a WebSocket", "subscribers", "closed with code 1013"),
        ("refuses subscribers", "subscribers", r"misses 12 \(status 403\)"),
        ("leaks", "memory", "MiB more"),
    ],
)
def test_each_fault_is_noticed(
    shop: Shop,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    name: str,
    observed: str,
) -> None:
    """The service is the same but for one thing."""
    shop.faults = {fault}
    _late(monkeypatch, 0.0)
    seconds = SILENT_SECONDS if fault == "drops events" else SECONDS

    check = _judged(url, name, seconds=seconds)[name]

    assert check.failed
    assert re.search(observed, check.observed), check.observed


@pytest.mark.parametrize(
    ("fault", "name", "reason"),
    [
        ("refuses", "latency", "a rate limit refused 3[78] of 50"),
        ("restarts", "memory", "of several processes, or of a new one"),
    ],
)
def test_what_says_nothing_of_the_service_is_inconclusive(
    shop: Shop, url: str, fault: str, name: str, reason: str
) -> None:
    """The load was not what it should be, or not of one process."""
    shop.faults = {fault}

    with pytest.raises(Inconclusive, match=reason):
        _judged(url, name, slo=PATIENT)


def test_requests_that_wait_for_a_stalled_service_are_slow(
    shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time counts from when a request was due, even if no connection was free then."""
    monkeypatch.setattr(generator, "_THREADS_MAX", 1)
    _late(monkeypatch, 0.0)
    shop.faults = {"takes its time"}
    slo = SloSettings.model_validate({"latency": {"p95": "1s"}})
    some: dict[str, Any] = {"streams": [], "sockets": [], "duration": "2s", "spike": 0}

    check = _judged(url, "latency", slo=slo, **some)["latency"]

    # No answer took longer than about 0.2 seconds, 30 of 40 were asked for in a row.
    assert check.failed
    assert shop.at_once_max == 1


def test_a_burst_comes_at_once(shop: Shop, url: str) -> None:
    """There are as many connections as requests that wait for their answers."""
    shop.faults = {"holds a burst"}

    _judged(
        url,
        "errors",
        rate=1,
        spike=30,
        requests=[{"path": "/objects"}],
        streams=[],
        sockets=[],
    )

    assert shop.at_once_max >= BURST


def _late(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = Generator.run

    def late(self: Generator) -> generator.Load:
        made = real(self)
        made.late = [seconds for _ in made.late]
        return made

    monkeypatch.setattr(Generator, "run", late)


def test_a_busy_generator_accuses_nobody(
    shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow answers are no fault of a service that was asked late."""
    shop.faults = {"is slow"}
    _late(monkeypatch, 4.0)

    with pytest.raises(
        Inconclusive, match="this machine is too busy: it sent requests"
    ):
        _judged(url, "latency", streams=[], sockets=[])


def test_a_busy_generator_still_sees_what_its_delay_cannot_explain(
    shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are slower than every limit, however late they were asked for."""
    shop.faults = {"fails"}
    _late(monkeypatch, 4.0)

    check = _judged(url, "latency", streams=[], sockets=[])["latency"]

    assert check.failed


def test_a_second_attempt_makes_a_second_load(shop: Shop, url: str) -> None:
    """The first attempts of all probes share the first."""
    target = Target(url=url, timeout_seconds=SECONDS)
    settings = _settings(streams=[], sockets=[], duration="1s", spike=0)
    probes = list(load.probes(settings, PATIENT))
    with Session(target) as session:
        for each in probes:
            each.ask(session)
        once = target.requests.number
        for each in probes:
            each.ask(session)

    assert once == 20 + 2  # and the metrics, twice
    assert target.requests.number == 2 * once


def test_an_ended_run_sends_nothing_more(url: str) -> None:
    """Requests that are due later are left out."""
    target = Target(url=url, timeout_seconds=10)
    target.stopped.set()

    made = Generator(_settings(), target, seconds_max=1).run()

    assert made.sample.total == 0
    assert target.requests.number == 0


def test_nothing_is_sent_without_the_section() -> None:
    """It is for those who ask for it, in the strictest profile, after all others."""
    assert not list(load.probes(SmokeSettings(), SLO))
    probes = list(load.probes(_settings(), SLO))
    assert {(each.profile.value, each.alone) for each in probes} == {("strict", True)}


def test_events_that_cannot_be_recognised_are_refused() -> None:
    """What a subscriber should see must be known."""
    with pytest.raises(ValidationError, match=r"whose document holds \{marker\}"):
        LoadSettings.model_validate(SECTION | {"requests": [{"path": "/objects"}]})
