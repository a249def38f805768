"""`quickstart`: from nothing to a proved backup."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit.tasks import backup, drill
from opskit.tasks import format as text
from opskit.tasks.command import Say, command

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome


@command(help={"json": "print one JSON document"})
def quickstart(say: Say, json: bool = False) -> Outcome[Any]:
    """Boot an embedded PostgreSQL, back it up, and prove the backup by a drill.

    Example: inv quickstart
    """
    from opskit.operations.quickstart import quickstart as prove_sample

    def summarize(outcome: Outcome[Any]) -> None:
        area = backup if outcome.operation == "backup" else drill
        say(*area.summary(outcome))

    outcome = prove_sample(
        _folder(),
        on_start=lambda programs: say(f"starting PostgreSQL {programs.version}"),
        on_done=summarize,
    )
    if outcome.result is not None and not outcome.errors:
        rto_seconds = outcome.result.drill.evidence.figures.rto_seconds
        say(
            "",
            "proved: every row came back; a restore takes "
            f"{text.duration(rto_seconds)}",
            f"look at the sets: `inv --config {outcome.result.config} backups`",
        )
    return outcome


def _folder() -> Path:
    """Return where the sample is kept: here, or where this user may write."""
    here = Path.cwd()
    if not os.access(here, os.W_OK | os.X_OK):
        with suppress(RuntimeError):  # this user has no home
            here = Path.home()
    return here / ".opskit" / "quickstart"
