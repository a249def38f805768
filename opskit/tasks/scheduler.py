"""`scheduler`: the daemon that runs what is due."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome


@command(help={"once": "run what is due, then end: for cron and containers"})
def scheduler(say: Say, once: bool = False) -> Outcome[Any] | None:
    """Run backups, verifications, drills and prunes when the configuration says so.

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
