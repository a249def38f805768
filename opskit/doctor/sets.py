"""Whether a database could be drilled: a server for it, and what that server lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from math import ceil
from typing import Protocol

from opskit.checks import Finding, Health
from opskit.config import StoreSettings
from opskit.doctor import databases
from opskit.doctor.databases import Trial
from opskit.drill.servers import DrillServer, ServerRequest, open_server
from opskit.errors import OpskitError


def examine_drills(name: str, trial: Trial, request: ServerRequest) -> list[Finding]:
    """Start the server that a drill would run on, and find out all that it lacks."""
    server = f"drill {name}: server"
    try:
        with open_server(
            replace(request, preload=trial.inventory.preloaded),
            trial.installations,
            major=trial.major,
            system_identifier=trial.inventory.system_identifier,
        ) as running:
            findings = [
                Finding(
                    name=server,
                    status=Health.HEALTHY,
                    observed=running.full_description,
                )
            ]
            return findings + _lacking(f"drill {name}", trial, running)
    except OpskitError as error:
        return [
            Finding(
                name=server,
                status=Health.UNHEALTHY,
                observed=error.message,
                hint=error.hint,
            )
        ]


def _lacking(name: str, trial: Trial, running: DrillServer) -> list[Finding]:
    try:
        found = databases.shortages(trial, running)
    except OpskitError as error:
        return [
            Finding(
                name=f"{name}: definitions",
                status=Health.DEGRADED,
                observed=f"they could not be tried: {error.message}",
                hint=error.hint,
            )
        ]
    return [
        Finding(
            name=f"{name}: {each.name}",
            status=Health.DEGRADED if each.name in trial.allowed else Health.UNHEALTHY,
            observed=each.detail,
            limit="allowed, and not checked" if each.name in trial.allowed else "",
            hint=each.hint,
        )
        for each in found
    ]


_DAY = timedelta(days=1)
_WEEK_DAYS, _MONTH_DAYS = 7, 31


class Rules(Protocol):
    """The rules of retention, as the configuration has them."""

    @property
    def keep_last(self) -> int:
        """How many of the newest sets stay."""

    @property
    def keep_within(self) -> timedelta:
        """Which age lets every set stay."""

    @property
    def keep_daily(self) -> int:
        """Of how many days the newest set stays."""

    @property
    def keep_weekly(self) -> int:
        """Of how many weeks."""

    @property
    def keep_monthly(self) -> int:
        """Of how many months."""

    @property
    def min_keep(self) -> int:
        """Below which number of sets nothing is deleted."""


def examine_retention(
    stores: Mapping[str, StoreSettings], rules: Rules
) -> Iterator[Finding]:
    """Yield a finding for each store that locks; the others have nothing to contradict.

    The days that a rule keeps are counted with one set a day; `keep_last` and
    `min_keep` keep longer where there are fewer.
    """
    longest, rule = _longest_days(rules)
    for name, settings in stores.items():
        if settings.object_lock_days:
            yield _compare(name, settings.object_lock_days, longest, rule, rules)


def _longest_days(rules: Rules) -> tuple[int, str]:
    """Return for how many days a set may be kept, and by which rule."""
    days = {
        "keep_last": rules.keep_last,
        "keep_within": ceil(rules.keep_within / _DAY),
        "keep_daily": rules.keep_daily,
        "keep_weekly": rules.keep_weekly * _WEEK_DAYS,
        "keep_monthly": rules.keep_monthly * _MONTH_DAYS,
        "min_keep": rules.min_keep,
    }
    rule = max(days, key=lambda name: days[name])
    return days[rule], rule


def _compare(store: str, locked: int, longest: int, rule: str, rules: Rules) -> Finding:
    name = f"store {store}: lock and retention"
    if locked > longest:
        return Finding(
            name=name,
            status=Health.DEGRADED,
            observed=f"sets are locked for {locked} days, but no rule keeps one longer "
            f"than {longest} ({rule}): prune cannot delete for {locked - longest} "
            "days what retention drops",
            limit="object_lock_days at most what retention keeps",
            hint=f"Set object_lock_days to {longest} or less, or raise {rule}.",
        )
    if locked < longest:
        return Finding(
            name=name,
            status=Health.HEALTHY,
            observed=f"sets are locked for {locked} days and kept for up to {longest} "
            f"({rule}): between day {locked} and day {longest} only the credentials "
            f"protect them; the newest {rules.min_keep} stay in any case (min_keep), "
            "and of them too those alone are locked that are younger",
            hint=f"Raise object_lock_days towards {longest} to protect them longer.",
        )
    return Finding(
        name=name,
        status=Health.HEALTHY,
        observed=f"sets are locked for {locked} days, as long as retention keeps them",
    )
