"""`rules`: what Prometheus needs to watch opskit and the operated service."""

from __future__ import annotations

from opskit.tasks.command import command
from opskit.tasks.output import Say


@command()
def rules(say: Say) -> None:
    """Write alert rules for Prometheus, from the configuration.

    Example: inv rules
    """
    from opskit.operations.run import start
    from opskit.watch.rules import groups, render

    settings = start().settings
    say(
        *render(groups(settings), runbooks_url=settings.notify.runbooks_url).split("\n")
    )
