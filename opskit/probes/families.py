"""Families: which modules of probes there are, and what they ask of one service."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from opskit.config.smoke import SmokeSettings
from opskit.config.watch import SloSettings
from opskit.probes.probe import Probe

FAMILIES = (
    "health",
    "authentication",
    "authorisation",
    "headers",
    "tls",
    "cors",
    "rate_limit",
    "webhooks",
    "limits",
    "input",
    "observability",
    "pagination",
    "latency",
    "audit",
    "resilience",
    "load",
)


# Families that compare what they measure with the objectives of the service.
_BY_OBJECTIVES = ("latency", "load")


def families(
    settings: SmokeSettings, slo: SloSettings
) -> Iterator[tuple[str, tuple[Probe, ...]]]:
    """Yield each family with its probes; none where nothing is configured for it."""
    for name in FAMILIES:
        given = (settings, slo) if name in _BY_OBJECTIVES else (settings,)
        yield name, tuple(import_module(f"opskit.probes.{name}").probes(*given))
