"""Prometheus alert rules, written from the configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass

from opskit.config import Settings
from opskit.config.section import format_duration
from opskit.watch.slo import Objective

# A large budget times its factor would be more than all requests: nothing would fire
# although everything fails.
_SHARE_MAX = 0.9


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Alerts of an error budget of 30 days that is used up so many times too fast.

    Each of the `pairs` is a long window, in which a fault must weigh, a short one, in
    which it must go on, and how many times too fast the budget is used up in both.
    """

    name: str
    severity: str
    hold: str
    interval: str
    spent: str
    pairs: tuple[tuple[str, str, float], ...]

    def condition(self, objective: Objective) -> str:
        """Return when the alert of an objective fires."""
        conditions = []
        for long, short, factor in self.pairs:
            share = max(min(objective.budget * factor, _SHARE_MAX), objective.budget)
            conditions.append(
                f"{objective.missed(share, long)}\n"
                f"and {objective.missed(share, short)}\n"
                f"and {objective.enough(long)}"
            )
        return "\nor\n".join(conditions)


# The values of Google's "The Site Reliability Workbook".
_SPEEDS = (
    Speed(
        name="Fast",
        severity="critical",
        hold="2m",
        interval="1m",
        spent="within five days",
        pairs=(("1h", "5m", 14.4), ("6h", "30m", 6.0)),
    ),
    Speed(
        name="Slow",
        severity="warning",
        hold="15m",
        interval="5m",
        spent="before they end",
        pairs=(("1d", "2h", 3.0), ("3d", "6h", 1.0)),
    ),
)


def render(settings: Settings) -> str:
    """Return the rules about opskit, and those about the service if `[slo]` is set."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from opskit.watch.slo import objectives

    # Double braces are for Prometheus' own templates.
    environment = Environment(  # noqa: S701 - YAML; what is not ours is quoted
        loader=PackageLoader("opskit.watch"),
        undefined=StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        trim_blocks=True,
    )
    environment.filters["quoted"] = json.dumps
    return environment.get_template("rules.yml").render(
        fleet=settings.fleet.is_configured,
        sources=[*settings.databases, *settings.files],
        grace=int(settings.scheduler.grace.total_seconds()),
        drill_max_age=format_duration(settings.drill.max_age),
        runbooks=settings.notify.runbooks_url.rstrip("/") or "runbooks",
        objectives=objectives(settings.slo),
        speeds=_SPEEDS,
        labels=settings.slo.labels,
    )
