"""Probes fail on the example service once it is broken, and pass while it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from opskit.checks import Check
from opskit.config import Settings
from opskit.probes import observability
from tests.defects import record
from tests.defects.bench import Bench, findings, probes_of
from tests.defects.registry import DEFECTS
from tests.service import Services

# How many probes of the family that must pass are asked beside the defect's own.
_OTHERS = 3
# How long a defect is waited for that shows as silence.
_SILENCE_SECONDS = 2.0


@pytest.fixture(scope="module")
def bench(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What starts good and broken services."""
    return Bench(services, tmp_path_factory.mktemp("defects"))


def _asked(settings: Settings, names: set[str]) -> list[Check]:
    probes = [each for each in probes_of(settings) if each.name in names]
    assert {each.name for each in probes} == names
    return [each.check for each in findings(settings, probes)]


def _impatient(settings: Settings) -> Settings:
    """Return the settings for a probe that must fail, and may do so soon.

    Those that must pass are asked with the example's own, however busy the machine is.
    """
    seconds = timedelta(seconds=_SILENCE_SECONDS)
    webhooks = settings.smoke.webhooks
    outgoing = webhooks.outgoing.model_copy(update={"wait": seconds})
    webhooks = webhooks.model_copy(update={"outgoing": outgoing})
    smoke = {"timeout": seconds, "webhooks": webhooks}
    return settings.model_copy(
        update={"smoke": settings.smoke.model_copy(update=smoke)}
    )


def _unconcerned(name: str, settings: Settings) -> set[str]:
    """Return some probes of the family that passed: others for each defect.

    For every defect its own family was asked when the record was made.
    """
    failed, own = record.read()[name], DEFECTS[name].probe.partition(".")[0]
    passed = [
        each.name
        for each in probes_of(settings)
        if each.family == own
        and each.name not in failed
        and not each.alone
        and not each.advisory
    ]
    first = [*DEFECTS].index(name) * _OTHERS
    return {
        passed[(first + number) % len(passed)]
        for number in range(min(_OTHERS, len(passed)))
    }


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_noticed_by_its_probe_and_not_by_others(
    name: str, bench: Bench
) -> None:
    """The answer counts as wrong, not as missing; no other is called wrong for it."""
    defect = DEFECTS[name]
    with bench.serving(defect) as settings:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(observability, "_LOG_SECONDS_MAX", _SILENCE_SECONDS)
            (own,) = _asked(_impatient(settings), {defect.probe})
        if own.passed is None:  # the machine is too slow for that
            (own,) = _asked(settings, {defect.probe})
        others = _asked(settings, _unconcerned(name, settings))

    assert own.passed is False
    assert {each.name: each.observed for each in others if each.failed} == {}
