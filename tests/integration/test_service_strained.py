"""The service where it lacks something, is killed, and is asked much."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.operations.smoke import families
from opskit.probes.session import Session, Target
from tests import strain
from tests.service import FOLDER, Service, Services

# The machine of the tests is busy with other tests.
PATIENT = {"notice": "60s", "recovery": "60s", "back_within": "60s"}
HASTY = {"notice": "5s", "recovery": "20s", "back_within": "5s"}
_LEFT_OUT = shutil.ignore_patterns("state", ".env", "*.log", "__pycache__")
# The soak test, compressed: four bursts in eight seconds.
COMPRESSED = {"duration": "8s", "rate": 10, "spike": 10, "spike_every": "2s"}
SLO = SloSettings.model_validate(
    {"latency": {"p95": "5s", "p99": "8s"}, "error_rate": 0.01}
)


@pytest.fixture
def service(services: Services) -> Iterator[Service]:
    """A service whose clients may ask often."""
    with services.running(rate_limit="100000/minute") as running:
        yield running


def _section(**more: dict[str, Any]) -> SmokeSettings:
    """Return what opskit.toml has for hosts that are nobody's production."""
    text = (FOLDER / "opskit.toml").read_text()
    _, _, commented = text.partition("nobody's production")
    _, _, lines = commented.partition("\n\n")
    section = tomllib.loads(re.sub(r"(?m)^# ?", "", lines))["smoke"]
    base = {
        "health": {"path": "/health"},
        "identity": "X-Request-ID",
        "observability": {"metrics": "/metrics"},
    }
    strained = {name: section[name] | more.get(name, {}) for name in section}
    return SmokeSettings.model_validate(base | strained)


def _ask(
    service: Service, settings: SmokeSettings, family: str, name: str = ""
) -> dict[str, Check]:
    target = Target(
        url=service.url,
        timeout_seconds=15,
        keys={name: {"X-API-Key": key} for name, key in service.keys.items()},
        identity=settings.identity,
    )
    checks = {}
    for probe in families(settings, SLO)[family]:
        if name not in ("", probe.name):
            continue
        with Session(target) as session:
            checks[probe.name] = probe.ask(session)
    return checks


def test_it_copes_without_what_it_uses_and_with_a_kill(
    services: Services, service: Service
) -> None:
    """Degraded, not dead; healthy again afterwards; nothing that it accepted is lost."""
    with strain.commands(services, service) as commands:
        settings = _section(resilience=commands | PATIENT)
        checks = _ask(service, settings, "resilience")

    assert list(checks) == [
        "resilience.redis-away",
        "resilience.database-away",
        "resilience.killed",
    ]
    assert [each for each in checks.values() if not each.passed] == []


def test_it_bears_a_load_with_bursts(service: Service) -> None:
    """Fast, without errors, with every event for every subscriber, without a leak."""
    checks = _ask(service, _section(load=COMPRESSED), "load")

    assert list(checks) == [
        "load.latency",
        "load.errors",
        "load.subscribers",
        "load.memory",
    ]
    assert [each for each in checks.values() if not each.passed] == []


_IDENTIFY = '        account = scope["account"] = await self.identify(scope)\n'
# Each is one passage of the service that a team got wrong: probe, file, old, new.
DEFECTS = {
    "names-no-redis": (
        "resilience.redis-away",
        "health.py",
        "Status.HEALTHY if redis else Status.DEGRADED",
        "Status.HEALTHY",
    ),
    "needs-redis": (
        "resilience.redis-away",
        "rates.py",
        "except (RedisError, OSError) as error:",
        "except ZeroDivisionError as error:",
    ),
    "never-asks-redis-again": (
        "resilience.redis-away",
        "health.py",
        "        _answers(_database, state), _answers(_redis, state)\n    )\n",
        "        _answers(_database, state), _answers(_redis, state)\n    )\n"
        "    state.was_away = redis = redis and getattr(state, 'was_away', True)\n",
    ),
    "unhealthy-with-200": (
        "resilience.database-away",
        "health.py",
        "503 if worst is Status.UNHEALTHY else 200",
        "200",
    ),
    "not-alive-without-database": (
        "resilience.database-away",
        "health.py",
        'async def live() -> Simple:\n    """Answer as long as the process can."""\n',
        "async def live(state: Current) -> Simple:\n"
        '    """Answer as long as the database can."""\n'
        "    await state.database.ping(1.0)\n",
    ),
    "starts-slowly": (
        "resilience.killed",
        "server.py",
        "    application = app.create(settings)\n",
        "    import time\n\n    time.sleep(6)\n    application = app.create(settings)\n",
    ),
    "asks-one-by-one": (
        "load.latency",
        "gate.py",
        _IDENTIFY,
        "        import time\n\n        time.sleep(0.3)\n" + _IDENTIFY,
    ),
    "one-in-ten-fails": (
        "load.errors",
        "gate.py",
        _IDENTIFY,
        '        self._asked = getattr(self, "_asked", 0) + 1\n'
        '        assert self._asked % 10, "no connection"\n' + _IDENTIFY,
    ),
    "drops-events": (
        "load.subscribers",
        "streams.py",
        "                if last is None or event.id > last:\n                    yield",
        "                if event.id % 7:\n                    yield",
    ),
    "leaks": (
        "load.memory",
        "gate.py",
        _IDENTIFY,
        '        self._kept = [*getattr(self, "_kept", []), b"x" * 2**22]\n'
        + _IDENTIFY,
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_noticed(services: Services, tmp_path: Path, name: str) -> None:
    """The service is the same but for one passage."""
    probe, file, old, new = DEFECTS[name]
    source = shutil.copytree(FOLDER, tmp_path / "service", ignore=_LEFT_OUT)
    text = (source / "service" / file).read_text()
    assert text.count(old) == 1
    (source / "service" / file).write_text(text.replace(old, new))

    with (
        services.running(source=source, rate_limit="100000/minute") as broken,
        strain.commands(services, broken) as commands,
    ):
        load = COMPRESSED | {"duration": "4s"}
        settings = _section(resilience=commands | HASTY, load=load)
        (check,) = _ask(broken, settings, probe.partition(".")[0], probe).values()

    assert check.failed, check.observed
