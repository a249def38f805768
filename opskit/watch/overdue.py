"""Overdue: which jobs of the scheduler did not run when they were due; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSimError

from opskit.config import Settings
from opskit.config.cron import longest_interval, next_due
from opskit.errors import LockHeld
from opskit.ledger import LedgerEntry
from opskit.watch.state import is_credible

SCHEDULER = "scheduler"
# A run for every minute may take this long before anybody calls it late.
_LEAST = timedelta(minutes=2)


def overdue(
    entries: Iterable[LedgerEntry], settings: Settings, *, now: datetime
) -> dict[str, datetime | None]:
    """Return by the name of each job since when a run of it is overdue, if one is.

    The records of the scheduler say which jobs it has: where it never ran there are
    none. A run must begin within `grace` and end within `job_timeout`, and in any case
    before another interval has passed.
    """
    known: Mapping[str, tuple[str, datetime]] = {}
    done: dict[str, datetime] = {}
    for entry in entries:
        with suppress(ValueError, TypeError, AttributeError):
            if entry.operation == SCHEDULER:
                known = _known(known, entry)
            elif (at := _dealt_with(entry)) and is_credible(at, now=now):
                name = f"{entry.operation} {entry.details.get('source', '')}".strip()
                done[name] = max(at, done.get(name, at))
    limit = settings.scheduler.grace + settings.scheduler.job_timeout
    late: dict[str, datetime | None] = {}
    for name in _switched_on(settings) & known.keys():
        written, began = known[name]
        line, _, zone = written.rpartition(" ")
        with suppress(ValueError, KeyError, OSError, CronSimError):
            since = max(began, done.get(name, began))
            due = next_due(line, ZoneInfo(zone), after=since)
            allowed = max(_LEAST, min(limit, longest_interval(line)))
            late[name] = due if due + allowed < now else None
    return late


def _switched_on(settings: Settings) -> set[str]:
    """Return the names of the jobs that the settings ask for."""
    scheduler = settings.scheduler
    lines = {
        f"backup {name}": each.schedule for name, each in settings.databases.items()
    }
    lines |= {f"backup {name}": each.schedule for name, each in settings.files.items()}
    sources = (*settings.databases, *settings.files)
    lines |= {f"restore-drill {name}": scheduler.drill for name in sources}
    lines |= {
        "verify": scheduler.verify,
        "prune": scheduler.prune,
        "report": scheduler.report,
    }
    return {name for name, line in lines.items() if line}


def _known(
    known: Mapping[str, tuple[str, datetime]], entry: LedgerEntry
) -> Mapping[str, tuple[str, datetime]]:
    """Return the lines in a record of the scheduler, each with its first time."""
    lines = entry.details.get("lines")
    if not isinstance(lines, dict):
        return known
    time = datetime.fromisoformat(entry.time)
    return {
        name: known[name] if known.get(name, (None,))[0] == line else (str(line), time)
        for name, line in lines.items()
    }


def _dealt_with(entry: LedgerEntry) -> datetime | None:
    """Return up to when a record deals with its job; None if it is still due."""
    if entry.outcome == "interrupted":
        return None
    if entry.details.get("code") == LockHeld.exit_code:
        return None
    due = entry.details.get("due")
    if entry.outcome == "missed" and isinstance(due, dict):
        return datetime.fromisoformat(due["last"])
    return datetime.fromisoformat(entry.started_at or entry.time)
