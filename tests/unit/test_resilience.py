"""Resilience: a service that lacks something, one that is killed, and commands that fail."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.strain import ResilienceSettings
from opskit.operations import smoke
from opskit.probes import resilience
from opskit.probes.probe import Inconclusive, Probe
from opskit.probes.session import Session, Target
from tests.asgi import serving

DOWN_SECONDS = 0.3


@dataclass
class Shop:
    """A service whose dependencies are away while a file is there.

    `killed` is touched by what kills it: it is down for a while, and its uptime begins
    again. `faults` are ways in which it goes wrong.
    """

    folder: Path
    faults: set[str] = field(default_factory=set)
    objects: dict[int, str] = field(default_factory=dict)
    began: float = field(default_factory=lambda: time.time() - 100)
    refusals: int = 2
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def is_away(self, name: str) -> bool:
        return (self.folder / name).exists()

    @property
    def killed(self) -> float:
        file = self.folder / "killed"
        return file.stat().st_mtime if file.exists() else 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        await self.answer(request.method, request.url.path, body)(scope, receive, send)

    def answer(self, method: str, path: str, body: bytes) -> Response:
        if time.time() - self.killed < DOWN_SECONDS:
            return Response(status_code=502)
        if path == "/live":
            dead = "dies" in self.faults and self.is_away("database")
            return Response(status_code=500 if dead else 200)
        if path == "/health":
            return self.health()
        if self.is_away("database"):
            return Response(status_code=500 if "stumbles" in self.faults else 503)
        if self.is_away("cache") and "needs the cache" in self.faults:
            return Response(status_code=500)
        return self.create(body) if method == "POST" else self.show(path)

    def health(self) -> Response:
        database, cache = self.is_away("database"), self.is_away("cache")
        if self.is_away("was-away") and "never recovers" in self.faults:
            cache = True
        if "tells nothing" in self.faults:
            database = cache = False
        status = "unhealthy" if database else "degraded" if cache else "healthy"
        return JSONResponse(
            {
                "status": status,
                "uptime_seconds": round(time.time() - max(self.began, self.killed)),
            },
            status_code=503 if database and "always 200" not in self.faults else 200,
        )

    def create(self, body: bytes) -> Response:
        number = next(self.numbers)
        self.objects[number] = json.loads(body)["title"]
        if "forgets what it writes meanwhile" in self.faults and self.is_away("cache"):
            self.forgotten = number
        return JSONResponse({"id": number}, 201)

    def show(self, path: str) -> Response:
        number = int(path.removeprefix("/objects/"))
        is_over = self.is_away("was-away") and not self.is_away("cache")
        if "refuses at first" in self.faults and is_over and self.refusals:
            self.refusals -= 1
            return Response(status_code=503)
        lost = "loses" in self.faults and (is_over or self.killed)
        if number == getattr(self, "forgotten", None) and not self.is_away("cache"):
            lost = True
        if lost or number not in self.objects:
            return Response(status_code=404)
        return JSONResponse({"id": number, "title": self.objects[number]})


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The service, all well."""
    return Shop(tmp_path)


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    """Where it answers."""
    with serving(shop) as address:
        yield address


def _section(folder: Path, **more: Any) -> dict[str, Any]:
    def dependency(name: str, *, needed: bool = False) -> dict[str, Any]:
        away, was = str(folder / name), str(folder / "was-away")
        start = "import pathlib,sys; pathlib.Path(sys.argv[1]).unlink(missing_ok=True)"
        return {
            "stop": ["touch", away, was],
            "start": [sys.executable, "-c", start, away],
            "needed": needed,
        }

    return {
        "not_production": True,
        "dependencies": {
            "cache": dependency("cache"),
            "database": dependency("database", needed=True),
        },
        "kill": ["touch", str(folder / "killed")],
        "write": "/objects",
        "document": {"title": "kept"},
        "read": "/objects/{id}",
        "live": "/live",
        "notice": "1s",
        "recovery": "60s",
        "back_within": "50s",
    } | more


def _probes(folder: Path, **more: Any) -> dict[str, Probe]:
    section = _section(folder, **more)
    settings = SmokeSettings.model_validate({"resilience": section})
    return {each.name: each for each in resilience.probes(settings)}


def _ask(probe: Probe, url: str) -> Check:
    with Session(Target(url=url, timeout_seconds=30)) as session:
        return probe.ask(session)


NAMES = ["resilience.cache-away", "resilience.database-away", "resilience.killed"]


@pytest.mark.parametrize("name", NAMES)
def test_a_service_that_copes_passes(shop: Shop, url: str, name: str) -> None:
    """And everything runs again afterwards."""
    check = _ask(_probes(shop.folder)[name], url)

    assert check.passed, check.observed
    assert not shop.is_away("cache")
    assert not shop.is_away("database")


def test_a_service_that_refuses_for_a_moment_has_lost_nothing(
    shop: Shop, url: str
) -> None:
    """Its pool of connections may recover later than its health report."""
    shop.faults = {"refuses at first"}

    check = _ask(_probes(shop.folder)[NAMES[0]], url)

    assert check.passed, check.observed
    assert shop.refusals == 0


@pytest.mark.parametrize(
    ("fault", "name", "observed"),
    [
        ("tells nothing", NAMES[0], "the health report is not: 200, degraded"),
        ("needs the cache", NAMES[0], "reading is answered with 500"),
        ("needs the cache", NAMES[0], "writing is answered with 500"),
        ("forgets what it writes meanwhile", NAMES[0], "1 of 2 objects are lost"),
        ("loses", NAMES[0], "2 of 2 objects are lost"),
        ("tells nothing", NAMES[1], "the health report is not: 503, unhealthy"),
        ("always 200", NAMES[1], "the health report is not: 503, unhealthy"),
        ("dies", NAMES[1], "it does not call itself alive"),
        ("stumbles", NAMES[1], "reading is answered with 500"),
        ("stumbles", NAMES[1], "writing is answered with 500"),
        ("loses", NAMES[1], "1 of 1 objects are lost"),
        ("loses", NAMES[2], "an object is lost or changed"),
    ],
)
def test_each_fault_is_noticed(
    shop: Shop, url: str, fault: str, name: str, observed: str
) -> None:
    """The service is the same but for one thing."""
    shop.faults = {fault}

    check = _ask(_probes(shop.folder)[name], url)

    assert check.failed
    assert observed in check.observed


def test_a_service_that_stays_degraded_is_noticed(shop: Shop, url: str) -> None:
    """It has the time that the configuration gives it."""
    shop.faults = {"never recovers"}

    check = _ask(_probes(shop.folder, recovery="1s")[NAMES[0]], url)

    assert check.failed
    assert check.observed == "not healthy again 1 s after it was back"


def test_a_service_that_is_back_too_late_is_noticed(
    shop: Shop, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is measured from the end of the kill."""
    measured: list[float | None] = []
    until = resilience._Subject._until

    def noted(*asked: Any) -> float | None:
        measured.append(until(*asked))
        return measured[-1]

    monkeypatch.setattr(resilience._Subject, "_until", noted)
    began = time.monotonic()
    check = _ask(_probes(shop.folder, back_within="0s")[NAMES[2]], url)
    took = time.monotonic() - began

    assert check.failed
    assert measured[0] is not None
    assert 0 < measured[0] < took
    assert check.observed == f"back after {measured[0]:.1f} s"


def test_a_service_that_does_not_come_back_is_noticed(shop: Shop, url: str) -> None:
    """It has as long as it may take to recover."""
    in_an_hour = ["touch", "-d", "+1 hour", str(shop.folder / "killed")]

    check = _ask(_probes(shop.folder, kill=in_an_hour, recovery="1s")[NAMES[2]], url)

    assert check.failed
    assert check.observed.startswith("not back after 1 s")


def test_a_kill_that_kills_nothing_is_inconclusive(shop: Shop, url: str) -> None:
    """The uptime shows it."""
    probe = _probes(shop.folder, kill=["true"], recovery="1s")[NAMES[2]]

    with pytest.raises(Inconclusive, match="the command killed nothing"):
        _ask(probe, url)


def test_a_killed_service_may_be_started_by_a_command(shop: Shop, url: str) -> None:
    """Where no supervisor does it."""
    marker = shop.folder / "started"

    assert _ask(
        _probes(shop.folder, start=["touch", str(marker)])[NAMES[2]], url
    ).passed
    assert marker.exists()


class _Stop(Exception):
    """Something unforeseen in the middle of a probe."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, _Stop])
def test_what_was_stopped_is_started_however_the_probe_ends(
    shop: Shop, url: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt stays an interrupt."""

    def interrupt(*_arguments: object) -> None:
        assert shop.is_away("cache")
        raise error

    monkeypatch.setattr(resilience._Subject, "_faults_meanwhile", interrupt)

    with pytest.raises(error):
        _ask(_probes(shop.folder)[NAMES[0]], url)
    assert not shop.is_away("cache")


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_start_that_fails_is_told_loudly(
    shop: Shop,
    url: str,
    is_interrupted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After several attempts; an interrupt stays one."""
    monkeypatch.setattr(resilience, "_START_PAUSE_SECONDS", 0.0)
    attempts = shop.folder / "attempts"
    program = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(3)"
    section = _section(shop.folder)
    section["dependencies"]["cache"]["start"] = [
        sys.executable,
        "-c",
        program,
        str(attempts),
    ]
    probe = _probes(shop.folder, dependencies=section["dependencies"])[NAMES[0]]

    def meanwhile(*_arguments: object) -> Iterator[str]:
        if is_interrupted:
            raise KeyboardInterrupt
        return iter([])

    monkeypatch.setattr(resilience._Subject, "_faults_meanwhile", meanwhile)
    expected = KeyboardInterrupt if is_interrupted else Inconclusive

    with capture_logs() as logs, pytest.raises(expected):
        _ask(probe, url)
    assert attempts.read_text() == "xxx"
    assert {each["log_level"] for each in logs} == {"error"}
    assert "start it by hand" in logs[0]["event"]
    assert "ended with 3" in logs[0]["reason"]


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (["/no/such/program"], "cannot be run: No such file"),
        (["false"], "ended with 1"),
        (["sleep", "1000"], "took longer than 5 s"),
    ],
)
def test_a_stop_that_fails_is_inconclusive(
    shop: Shop, url: str, stop: list[str], reason: str
) -> None:
    """Nothing is known of the service then; what it may have stopped is started."""
    section = _section(shop.folder)
    section["dependencies"]["cache"] |= {
        "stop": stop,
        "start": ["touch", str(shop.folder / "begun")],
    }
    # Only what never ends may take too long: the start has as much time, three times.
    limit = "5s" if "longer" in reason else "60s"
    more = {"dependencies": section["dependencies"], "command_timeout": limit}

    with pytest.raises(Inconclusive, match=reason):
        _ask(_probes(shop.folder, **more)[NAMES[0]], url)
    assert (shop.folder / "begun").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"not_production": False}, "set not_production = true"),
        ({"write": ""}, "write and read are needed"),
        ({"read": "/objects"}, "must hold {id}"),
    ],
)
def test_what_would_harm_or_show_nothing_is_refused(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    """The configuration is read before anything is asked."""
    with pytest.raises(ValidationError, match=words):
        ResilienceSettings.model_validate(_section(tmp_path, **more))


def test_nothing_is_stopped_without_the_section() -> None:
    """It is for those who ask for it, and in the strictest profile only."""
    assert not list(resilience.probes(SmokeSettings()))


def test_only_the_strict_profile_stops_anything(tmp_path: Path) -> None:
    """And one at a time, after all other probes."""
    probes = _probes(tmp_path).values()

    assert [each.name for each in probes] == NAMES
    assert {(each.profile.value, each.alone) for each in probes} == {("strict", True)}


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:8000"])
def test_nothing_is_stopped_for_another_service(tmp_path: Path, url: str) -> None:
    """What the commands stop belongs to the service in the configuration."""
    section = _section(tmp_path)
    settings = SmokeSettings.model_validate(
        {"url": "http://127.0.0.1:8000", "resilience": section}
    )

    same = smoke._settings(settings, smoke.SmokeRequest(url=url))
    other = smoke._settings(settings, smoke.SmokeRequest(url="http://127.0.0.1:9000"))

    assert len(list(resilience.probes(same))) == 3
    assert not list(resilience.probes(other))
