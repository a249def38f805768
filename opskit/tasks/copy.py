"""`copy`: bring one store up to date with another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.tasks import format as text
from opskit.tasks.command import BACKUP_HELP, Say, command

if TYPE_CHECKING:
    from opskit.catalog.copying import CopyResult
    from opskit.operations.copy import Copied
    from opskit.operations.outcome import Outcome


@command(
    help={
        "from": "the store to copy from",
        "to": "the store to bring up to date",
        "backup": f"copy this set only: {BACKUP_HELP}",
        "json": "print one JSON document",
    },
    required=["from", "to"],
)
def copy(
    say: Say, from_: str = "", to: str = "", backup: str = "", json: bool = False
) -> Outcome[Copied]:
    """Copy the sets that a store lacks from another one, and verify them there.

    Example: inv copy --from local --to offsite
    """
    from opskit.operations.copy import CopyRequest
    from opskit.operations.copy import copy as copy_sets
    from opskit.operations.run import start

    outcome = copy_sets(
        start(),
        CopyRequest(from_store=from_, to_store=to, backup=backup),
        on_set=lambda result: say(_line(result, to)),
    )
    if outcome.result is not None:
        say(*(f"not copied: {each.message}" for each in outcome.result.locked))
    return outcome


def _line(result: CopyResult, target: str) -> str:
    size = text.size(result.verified.size_bytes)
    verified = f"{result.backup_id}: {size}, verified in {target}"
    if result.copied:
        return f"copied {verified}"
    if result.repaired:
        return f"repaired {verified}; objects put anew: {len(result.repaired)}"
    if result.added:
        return f"completed {verified}; records put beside it: {len(result.added)}"
    return f"there already: {verified}"
