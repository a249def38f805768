"""`rules`: alert rules for Prometheus, and dashboards for Grafana."""

from __future__ import annotations

import json

from opskit.errors import UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say


@command(help={"dashboard": "a dashboard for Grafana instead: opskit or service"})
def rules(say: Say, dashboard: str = "") -> None:
    """Write alert rules for Prometheus, or a dashboard, from the configuration.

    Example: inv rules
    """
    from opskit.operations.run import start
    from opskit.watch import dashboards
    from opskit.watch.rules import groups, render

    settings = start().settings
    if not dashboard:
        text = render(groups(settings), runbooks_url=settings.notify.runbooks_url)
    elif dashboard == "opskit":
        text = json.dumps(dashboards.opskit(), indent=2)
    elif dashboard == "service":
        text = json.dumps(dashboards.service(settings.slo), indent=2)
    else:
        raise UsageError(
            f"there is no dashboard {dashboard}",
            hint="Name opskit or service: `inv rules --dashboard opskit`.",
        )
    say(*text.splitlines())
