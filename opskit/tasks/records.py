"""`ledger`: the record of every run."""

from __future__ import annotations

from opskit.checks import count
from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say

_FAULTS_TOLD = 3


@command(
    help={
        "verify": "compare the records with each other and with their copies",
        "json": "print one JSON document",
    }
)
def ledger(_context: object, verify: bool = False, json: bool = False) -> Document:
    """Show what was run, when, and how it ended.

    Example: inv ledger --verify
    """
    from opskit.errors import IntegrityError
    from opskit.operations import run as runtime

    run = runtime.start()
    if verify:
        report = run.ledger.verify()
        if report.faults:
            raise IntegrityError(
                f"the ledger is not whole: {'; '.join(report.faults[:_FAULTS_TOLD])}",
                hint="Somebody or something changed a record or its copy; the stores "
                "that still agree tell which.",
                details={"faults": list(report.faults), "notes": list(report.notes)},
            )
        if report.unreachable:
            raise report.unreachable[0]
        for note in report.notes:
            say(f"note: {note}", as_json=json)
    entries = run.ledger.entries()
    rows = [
        [
            str(each.sequence),
            each.time[:19] + "Z",
            each.operation,
            str(each.details.get("source", "")),
            each.outcome,
            each.run_id,
        ]
        for each in entries
    ]
    head = ["#", "time", "run", "source", "outcome", "run id"]
    for line in text.table(head, rows):
        say(line, as_json=json)
    if verify:
        say(
            f"{count(len(entries), 'record')}, "
            "the chain is whole and equal to its copies",
            as_json=json,
        )
    return {
        "status": "ok",
        "verified": verify,
        "entries": [vars(each) for each in entries],
    }
