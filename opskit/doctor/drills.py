"""Whether a database could be drilled: a server for it, and what that server lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from opskit.checks import Finding, Health
from opskit.doctor.databases import ExaminedDatabase
from opskit.drill.servers import DrillServer, ServerRequest, open_server
from opskit.errors import OpskitError
from opskit.postgres import libraries
from opskit.postgres.connect import connect
from opskit.postgres.programs import Installation
from opskit.restore import preflight


def examine(
    database: ExaminedDatabase,
    request: ServerRequest,
    installations: Sequence[Installation],
    allowed: Sequence[str],
) -> list[Finding]:
    """Start the server that a drill would run on, and ask it for all that is needed."""
    inventory = database.inventory
    if inventory is None:
        return []
    name = f"drill {database.name}"
    try:
        with open_server(
            replace(request, preload=libraries.needed(inventory)),
            installations,
            major=database.major,
            system_identifier=inventory["system_identifier"],
        ) as running:
            findings = [
                Finding(
                    name=f"{name}: server",
                    status=Health.HEALTHY,
                    observed=running.full_description,
                )
            ]
            return findings + _shortages(name, running, inventory, allowed)
    except OpskitError as error:
        return [
            Finding(
                name=f"{name}: server",
                status=Health.UNHEALTHY,
                observed=error.message,
                hint=error.hint,
            )
        ]


def _shortages(
    name: str,
    running: DrillServer,
    inventory: dict[str, object],
    allowed: Sequence[str],
) -> list[Finding]:
    with connect(running.url("postgres"), purpose="doctor") as connection:
        found = preflight.shortages(
            connection,
            inventory,
            (),
            creates_roles=running.is_throwaway,
            is_throwaway=running.is_throwaway,
        )
    return [
        Finding(
            name=f"{name}: {each.name}",
            status=Health.DEGRADED if each.name in allowed else Health.UNHEALTHY,
            observed=each.detail,
            limit="allowed, and not checked" if each.name in allowed else "",
            hint=each.hint,
        )
        for each in found
    ]
