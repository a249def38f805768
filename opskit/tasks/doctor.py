"""`doctor`: examine everything that a backup and a drill will need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks.command import Document, command, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.checks import Finding
    from opskit.tasks.runtime import Runtime


@command(help={"json": "print one JSON document"})
def doctor(_context: object, json: bool = False) -> Document:
    """Check configuration, databases, programs, stores, space and drill servers.

    Example: inv doctor
    """
    from opskit.checks import Health, worst
    from opskit.errors import Degraded, Unhealthy
    from opskit.tasks import runtime

    run = runtime.start()
    findings = []
    for each in _examine(run):
        findings.append(each)
        for line in _lines(each):
            say(line, as_json=json)
    status = worst(findings)
    document: Document = {
        "status": status.value,
        "checks": [each.as_json() for each in findings],
    }
    amiss = [each for each in findings if each.status is not Health.HEALTHY]
    if amiss:
        kind = Unhealthy if status is Health.UNHEALTHY else Degraded
        raise kind(
            f"{len(amiss)} of {count(len(findings), 'check')} did not pass: "
            f"{amiss[0].name}",
            hint="Do what each line says, then run this again.",
            details=document,
        )
    return document


def _examine(run: Runtime) -> Iterator[Finding]:
    import tempfile
    from pathlib import Path

    from opskit.doctor import databases, drills, places, retention, stores
    from opskit.tasks import runtime
    from opskit.tasks.drilling import server_request

    drill = run.settings.drill
    yield places.examine_folder(
        "state folder",
        run.state_dir,
        "Let this user write there, or name another with state_dir.",
    )
    examined = [
        databases.examine(name, run.database(name).resolve_url(), run.installations)
        for name in run.settings.databases
    ]
    for each in examined:
        databases.examine_restore(each, run.database(each.name).resolve_restore_url())
        yield from each.findings
    for store in run.stores:
        yield from stores.examine(store, now=runtime.now)
    yield from retention.examine(run.settings.stores, run.settings.retention)
    rules = [each.retention for each in run.settings.databases.values()]
    rules += [each.retention for each in run.settings.files.values()]
    for own in filter(None, rules):
        yield from retention.examine(run.settings.stores, own)
    sizes = [int(e.inventory["size_bytes"]) for e in examined if e.inventory]
    yield places.examine_space(
        "space for drills",
        drill.work_dir or Path(tempfile.gettempdir()),
        places.space_for_drills(sizes),
        "Free some space, or set work_dir in [drill] to a larger file system.",
    )
    for each in examined:
        yield from drills.examine(
            each, server_request(run), run.installations, drill.allow
        )


def _lines(finding: Finding) -> Iterator[str]:
    limit = f" ({finding.limit})" if finding.limit else ""
    yield f"{finding.status:<9} {finding.name}: {finding.observed}{limit}"
    if finding.hint:
        yield f"          {finding.hint}"
