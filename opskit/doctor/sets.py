"""Whether a database could be drilled: a server for it, and what that server lacks."""

from __future__ import annotations

from dataclasses import replace

from opskit.checks import Finding, Health
from opskit.doctor import definitions
from opskit.doctor.definitions import Trial
from opskit.drill.servers import DrillServer, ServerRequest, open_server
from opskit.errors import OpskitError
from opskit.postgres import libraries


def examine(name: str, trial: Trial, request: ServerRequest) -> list[Finding]:
    """Start the server that a drill would run on, and find out all that it lacks."""
    server = f"drill {name}: server"
    try:
        with open_server(
            replace(request, preload=libraries.needed(trial.inventory)),
            trial.installations,
            major=trial.major,
            system_identifier=trial.inventory["system_identifier"],
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
        found = definitions.shortages(trial, running)
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
