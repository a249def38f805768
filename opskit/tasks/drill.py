"""`restore-drill`: prove a backup set by restoring it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Say, command, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.drill import Drilled
    from opskit.operations.outcome import Outcome

_MADE_BY = {"postgres": "dumped", "files": "backed up"}


@command(
    help={
        "database": "drill the newest set of this database",
        "files": "drill the newest set of this folder of files",
        "backup": "drill this set: its ID, the beginning of it, or latest",
        "all": "drill the newest set of every source",
        "mutants": "plant so much damage in the copy, to show that the drill can fail",
        "json": "print one JSON document",
    }
)
def restore_drill(
    say: Say,
    database: str = "",
    files: str = "",
    backup: str = "",
    all_: bool = False,
    mutants: str = "",
    json: bool = False,
) -> Outcome[Any]:
    """Restore a set into a throw-away server and compare everything.

    Example: inv restore-drill --database shop
    """
    from opskit.errors import UsageError
    from opskit.operations.drill import RestoreDrillRequest, drill, drill_all
    from opskit.operations.run import start

    if all_ and (database or files or backup):
        raise UsageError(
            "--all goes with neither --database, --files nor --backup",
            hint="Give one of them.",
        )
    number = whole_number("--mutants", mutants) if mutants else None
    if all_:
        return drill_all(
            start(), mutants=number, on_done=lambda done: say(*summary(done))
        )
    request = RestoreDrillRequest(
        database=database, files=files, backup=backup, mutants=number
    )
    outcome = drill(start(), request)
    say(*summary(outcome))
    return outcome


def summary(outcome: Outcome[Drilled]) -> Iterator[str]:
    """Yield what a person wants to read of a drill."""
    if (drilled := outcome.result) is None:
        return
    evidence, kind = drilled.evidence, drilled.manifest.kind
    figures, subject = evidence.figures, evidence.subject.name
    if evidence.failed:
        yield f"drill of {subject} DID NOT PASS:"
        for check in evidence.failed:
            yield (
                f"  {check.name}: expected {check.expected or 'success'}, "
                f"observed {check.observed or 'failure'}"
                + (f" ({check.detail})" if check.detail else "")
            )
    else:
        compared = f"{count(figures.tables, 'table')}, {count(figures.rows, 'row')}"
        if kind == "files":
            compared = count(figures.files, "entry", "files, folders and links")
        yield f"drill of {subject} passed: {count(len(evidence.made), 'check')}"
        yield (
            f"  {compared} equal exactly what was {_MADE_BY[kind]}; "
            f"on {figures.drill_server}"
        )
    if figures.mutants is not None:
        killed, planted = (figures.mutants[key] for key in ("killed", "planted"))
        yield f"  {killed} of {planted} mutants planted in the copy were noticed"
    for each in evidence.not_checked:
        yield f"  NOT CHECKED {each.name}: {each.detail}"
    if figures.rto_seconds is not None:
        yield f"  a restore takes {text.duration(figures.rto_seconds)} (RTO)"
    if figures.rpo_seconds is not None:
        yield f"  the data was {text.duration(figures.rpo_seconds)} old (RPO)"
    yield f"  report: {drilled.report}"
