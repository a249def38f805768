"""`scheduler`, `rules`, `report`: run what is due, warn of what is wrong, report."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from opskit.checks import count
from opskit.errors import UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opskit.operations.outcome import Outcome
    from opskit.watch.report import Reported


@command(help={"once": "run what is due, then end: for cron and containers"})
def scheduler(say: Say, once: bool = False) -> Outcome[Any] | None:
    """Run backups, verifications, drills, prunes, reports and smoke when they are due.

    Example: inv scheduler
    """
    from opskit.operations.run import start
    from opskit.scheduler.daemon import Daemon

    daemon = Daemon(start, say=say)
    if once:
        return daemon.once()
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
    signal.signal(signal.SIGINT, lambda *_: daemon.stop())
    signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
    daemon.serve()
    return None


@command(help={"dashboard": "a dashboard for Grafana instead: opskit or service"})
def rules(say: Say, dashboard: str = "") -> None:
    """Write alert rules for Prometheus, or a dashboard, from the configuration.

    Example: inv rules
    """
    from opskit.operations.run import start
    from opskit.watch import dashboards
    from opskit.watch.rules import render

    settings = start().settings
    if not dashboard:
        text = render(settings)
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


@command(
    help={
        "week": "the last seven days",
        "month": "the last month: the document for auditors",
    }
)
def report(
    say: Say, week: bool = False, month: bool = False, json: bool = False
) -> Outcome[Reported]:
    """Write a report of backups, drills and objectives, and store it beside the sets.

    Example: inv report --month
    """
    from opskit.watch.report import ReportRequest
    from opskit.watch.report import report as write
    from opskit.watch.runs import start

    if week == month:
        raise UsageError(
            "report needs one period", hint="Give --week or --month, not both."
        )
    request = ReportRequest(period="week" if week else "month")
    return say.result(write(start(), request), _summary)


def _summary(done: Reported) -> Iterator[str]:
    for each in done.facts["sources"]:
        backups = each["backups"]
        yield (
            f"{each['source']}: {count(backups['ok'], 'backup')}, "
            f"{backups['failed']} failed, {backups['missed']} missed; "
            f"{count(each['drills']['passed'], 'drill')} passed, "
            f"{each['drills']['failed']} did not"
        )
    yield f"report: {done.report}"
    yield f"with drawings: {done.html}"
    yield f"stored in {', '.join(done.stores) or 'no store'}"
