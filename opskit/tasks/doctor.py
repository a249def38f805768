"""`doctor`, `status` and `ledger`: what will be needed, how it is, what was run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks import output as text
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.checks import Check
    from opskit.operations.doctor import Examined
    from opskit.operations.ledger import LedgerRecords
    from opskit.operations.outcome import Outcome


@command(
    help={
        "notify": "send a test message to every receiver",
        "json": "print one JSON document",
    }
)
def doctor(say: Say, notify: bool = False, json: bool = False) -> Outcome[Examined]:
    """Check configuration, databases, programs, stores, drill servers, receivers.

    Example: inv doctor --notify
    """
    from opskit.operations.doctor import doctor as examine
    from opskit.watch.notify import examine as examine_receivers
    from opskit.watch.runs import start

    run = start()
    return examine(
        run,
        also=examine_receivers(run, send=notify),
        on_check=lambda check: say(*_lines(check)),
    )


@command(help={"json": "print one JSON document"})
def status(say: Say, json: bool = False) -> Outcome[Examined]:
    """Show the health of everything that is watched: age of sets and drills, stores.

    Exit code 0 is healthy, 3 degraded, 4 unhealthy.
    Example: inv status
    """
    from opskit.watch.health import status as examine
    from opskit.watch.runs import start

    outcome = examine(start())
    if outcome.result is not None:
        for check in outcome.result.checks:
            say(*_lines(check))
    return outcome


def _lines(check: Check) -> Iterator[str]:
    limit = f" ({check.expected})" if check.expected else ""
    yield f"{check.status:<9} {check.name}: {check.observed}{limit}"
    if check.hint:
        yield f"          {check.hint}"


@command(
    help={
        "verify": "compare the records with each other and with their copies",
        "json": "print one JSON document",
    }
)
def ledger(
    say: Say, verify: bool = False, json: bool = False
) -> Outcome[LedgerRecords]:
    """Show what was run, when, and how it ended.

    Example: inv ledger --verify
    """
    from opskit.operations.ledger import LedgerRequest
    from opskit.operations.ledger import ledger as read_ledger
    from opskit.watch.runs import start

    outcome = read_ledger(start(), LedgerRequest(verify=verify))
    if (records := outcome.result) is None:
        return outcome
    say(*(f"note: {note}" for note in records.notes))
    rows = [
        [
            str(each.sequence),
            each.time[:19] + "Z",
            each.operation,
            each.source,
            each.outcome,
            each.run_id,
        ]
        for each in records.entries
    ]
    say(*text.table(["#", "time", "run", "source", "outcome", "run id"], rows))
    if verify:
        say(f"{count(len(rows), 'record')}, the chain is whole and equal to its copies")
    return outcome
