"""`pin`: retention keeps a set until its pin is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.tasks.command import BACKUP_HELP, Say, command

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.pin import Pinned


@command(
    help={
        "backup": f"the set to keep: {BACKUP_HELP}",
        "remove": "remove the pin; retention decides about the set again",
        "json": "print one JSON document",
    },
    required=["backup"],
)
def pin(
    say: Say, backup: str = "", remove: bool = False, json: bool = False
) -> Outcome[Pinned]:
    """Keep a backup set, whatever the retention rules say, until the pin is removed.

    Example: inv pin --backup shop-20260101T030000Z-a1b2c3
    """
    from opskit.operations.pin import PinRequest
    from opskit.operations.pin import pin as pin_set
    from opskit.operations.run import start

    outcome = pin_set(start(), PinRequest(backup=backup, remove=remove))
    if (done := outcome.result) is not None:
        state = "pinned" if done.pinned else "not pinned"
        say(f"{done.backup_id} is {state}{'' if done.changed else ' already'}")
    return outcome
