"""The service where it lacks something, is killed, and is asked much."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.operations.smoke import families
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.session import Session, Target
from tests import strain
from tests.defects.defect import Defect, copy
from tests.defects.strained import DEFECTS
from tests.service import FOLDER, Service, Services

_ATTEMPTS = 4
# The machine of the tests is busy with other tests.
PATIENT = {"notice": "60s", "recovery": "60s", "back_within": "60s"}
HASTY = {"notice": "5s", "recovery": "20s", "back_within": "5s"}
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
        checks[probe.name] = _verdict(probe, target)
    return checks


def _verdict(probe: Probe, target: Target) -> Check:
    """Ask as often as needed for a verdict, as `smoke` does: other tests run, too.

    A wrong answer under load counts once a second one agrees.
    """
    failed, agreeing = 0, 2 if probe.family == "load" else 1
    for _ in range(_ATTEMPTS):
        with suppress(Inconclusive), Session(target) as session:
            check = _answer(probe, session)
            failed += check.failed
            if check.passed or failed == agreeing:
                return check
    pytest.fail(f"{probe.name}: no verdict in {_ATTEMPTS} attempts")


def _answer(probe: Probe, session: Session) -> Check:
    try:
        return probe.ask(session)
    except WrongAnswer as wrong:
        return Check(
            name="", passed=False, expected=wrong.expected, observed=wrong.observed
        )


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


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda each: each.name)
def test_each_defect_is_noticed(
    services: Services, tmp_path: Path, defect: Defect
) -> None:
    """The service is the same but for one passage."""
    source = tmp_path / "service"
    copy(source)
    defect.plant(source)

    with (
        services.running(source=source, rate_limit="100000/minute") as broken,
        strain.commands(services, broken) as commands,
    ):
        load = COMPRESSED | {"duration": "4s"}
        settings = _section(resilience=commands | HASTY, load=load)
        (check,) = _ask(broken, settings, defect.family, defect.probe).values()

    assert check.failed, check.observed
