"""`verify`: whether the backup sets are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks.command import BACKUP_HELP, Say, command

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.verify import Verified


@command(
    help={
        "backup": f"verify this set only: {BACKUP_HELP}",
        "json": "print one JSON document",
    }
)
def verify(say: Say, backup: str = "", json: bool = False) -> Outcome[Verified]:
    """Read every stored object again and compare its size and digest.

    Example: inv verify --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.operations.run import start
    from opskit.operations.verify import VerifyRequest
    from opskit.operations.verify import verify as verify_sets

    outcome = verify_sets(
        start(),
        VerifyRequest(backup=backup),
        on_set=lambda manifest, state: say(
            f"{state}: {manifest.backup_id}, {count(len(manifest.objects), 'object')}"
        ),
    )
    if outcome.result is not None:
        say(*(f"  {bad.key}: {bad.reason}" for bad in outcome.result.bad))
    return outcome
