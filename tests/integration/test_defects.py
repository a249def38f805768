"""Probes fail on the example service once it is broken, and pass while it is not."""

from __future__ import annotations

import pytest

from opskit.checks import Check
from opskit.config import Settings
from tests.defects import record
from tests.defects.bench import Bench, findings, probes_of
from tests.defects.registry import DEFECTS
from tests.service import Services

# How many probes of the family that must pass are asked beside the defect's own.
_OTHERS = 3


@pytest.fixture(scope="module")
def bench(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """What starts good and broken services."""
    return Bench(services, tmp_path_factory.mktemp("defects"))


def _asked(settings: Settings, names: set[str]) -> dict[str, Check]:
    probes = [each for each in probes_of(settings) if each.name in names]
    assert {each.name for each in probes} == names
    return {each.check.name: each.check for each in findings(settings, probes)}


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
        others = _unconcerned(name, settings)
        found = _asked(settings, {defect.probe, *others})

    assert found.pop(defect.probe).passed is False
    assert {each.name: each.observed for each in found.values() if each.failed} == {}
