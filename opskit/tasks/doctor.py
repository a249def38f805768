"""`doctor`, `status` and `ledger`: what will be needed, how it is, what was run."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.tasks import output as text
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opskit.checks import Check
    from opskit.operations.doctor import Examined
    from opskit.operations.ledger import LedgerRecords
    from opskit.operations.outcome import Outcome


@command(help={"notify": "send a test message to every receiver"})
def doctor(say: Say, notify: bool = False, json: bool = False) -> Outcome[Examined]:
    """Check configuration, databases, programs, stores, drill servers, receivers.

    Example: inv doctor --notify
    """
    from opskit.operations.doctor import doctor as examine
    from opskit.watch.notify import examine as examine_receivers
    from opskit.watch.runs import start

    run = start()
    also = [examine_receivers(run, send=notify)]
    if run.settings.fleet.is_configured:
        from opskit.tasks.fleet import require_extra

        require_extra()
        from opskit.fleet.setup import examine as examine_fleet

        also.append(examine_fleet(run))
    return examine(
        run,
        also=chain.from_iterable(also),
        on_check=lambda check: say(*lines(check)),
    )


@command()
def status(say: Say, json: bool = False) -> Outcome[Examined]:
    """Show the health of everything that is watched: age of sets and drills, stores.

    Exit code 0 is healthy, 3 degraded, 4 unhealthy.
    Example: inv status
    """
    from opskit.watch.health import status as examine
    from opskit.watch.runs import start

    return say.result(
        examine(start()),
        lambda examined: (line for check in examined.checks for line in lines(check)),
    )


def lines(check: Check) -> Iterator[str]:
    limit = f" ({check.expected})" if check.expected else ""
    # Nothing is wrong, and still there is something to do.
    word = "note" if check.passed and check.hint else check.status
    yield f"{word:<9} {check.name}: {check.observed}{limit}"
    if check.hint:
        yield f"          {check.hint}"


@command(help={"verify": "compare the records with each other and with their copies"})
def ledger(
    say: Say, verify: bool = False, json: bool = False
) -> Outcome[LedgerRecords]:
    """Show what was run, when, and how it ended.

    Example: inv ledger --verify
    """
    from opskit.operations.ledger import LedgerRequest
    from opskit.operations.ledger import ledger as read_ledger
    from opskit.watch.runs import start

    return say.result(
        read_ledger(start(), LedgerRequest(verify=verify)),
        lambda records: _records(records, verified=verify),
    )


def _played(details: Mapping[str, Any]) -> str:
    """Return which runbook a record is of, and which step; nothing if of none."""
    name, step = details.get("runbook", ""), details.get("step", 0)
    return f"{name} {step}" if step and name else str(name)


def _records(records: LedgerRecords, *, verified: bool) -> Iterator[str]:
    for note in records.notes:
        yield f"note: {note}"
    rows = [
        [
            str(each.sequence),
            each.time[:19] + "Z",
            each.operation,
            each.source or _played(each.details),
            str(each.details.get("state", each.outcome)),
            each.run_id,
        ]
        for each in records.entries
    ]
    yield from text.table(["#", "time", "run", "source", "outcome", "run id"], rows)
    if verified:
        number = count(len(rows), "record")
        yield f"{number}, the chain is whole and equal to its copies"
