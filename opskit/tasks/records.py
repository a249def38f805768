"""`ledger`: the record of every run."""

from __future__ import annotations

from opskit.tasks import format as text
from opskit.tasks.command import Document, command, say


@command(
    help={
        "verify": "check that no record was changed, removed or moved",
        "json": "print one JSON document",
    }
)
def ledger(_context: object, verify: bool = False, json: bool = False) -> Document:
    """Show what was run, when, and how it ended.

    Example: inv ledger --verify
    """
    from opskit.errors import IntegrityError
    from opskit.tasks import runtime

    run = runtime.start()
    if verify:
        faults = run.ledger.verify()
        if faults:
            raise IntegrityError(
                f"the ledger is not whole: {faults[0]}",
                hint="Compare it with a copy; somebody or something changed the file.",
                details={"faults": faults},
            )
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
        say(f"{len(entries)} records, the chain is whole", as_json=json)
    return {
        "status": "ok",
        "verified": verify,
        "entries": [vars(each) for each in entries],
    }
