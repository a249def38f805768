"""Attempts: what the ledger has of runbooks, and when each was last rehearsed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from opskit.errors import UsageError
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.runbook.text import Runbook, read

RUNBOOK, STEP = "runbook", "runbook-step"
PASSED, FAILED, LEFT = "passed", "failed", "left"
BEGUN, DONE, SKIPPED, INTERRUPTED = "begun", "done", "skipped", "interrupted"
UNPROVED = "not proved"  # but its command has ended well
BY_HAND = "by hand"  # and nobody was there to do it


@dataclass(kw_only=True)
class Attempt:
    """One walk through a runbook, in one or several runs, as its last record has it.

    `steps` hold the last state of each step by its number. `status` is empty while it
    has not ended.
    """

    time: str
    details: Mapping[str, Any]
    steps: dict[int, str] = field(default_factory=dict)
    status: str = ""


def attempts(run: Run) -> dict[str, list[Attempt]]:
    """Return the attempts by the name of the runbook, the newest last."""
    found: dict[str, Attempt] = {}
    entries, _faults = run.ledger.readable()
    for entry in entries:
        details: Mapping[str, Any] = entry.details
        if entry.operation not in (RUNBOOK, STEP) or "attempt" not in details:
            continue
        known = found.pop(details["attempt"], None)
        made = found[details["attempt"]] = Attempt(time=entry.time, details=details)
        made.steps = known.steps if known else {}
        if entry.operation == STEP:
            made.steps[details["step"]] = details["state"]
        else:
            made.status = details.get("status", FAILED)
    by_name: dict[str, list[Attempt]] = defaultdict(list)
    for each in found.values():
        by_name[each.details["runbook"]].append(each)
    return by_name


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The runbooks of a folder; what is not in their form has an error, no title."""

    folder: Path
    runbooks: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {"folder": str(self.folder), "runbooks": list(self.runbooks)}


def list_runbooks(run: Run) -> Outcome[Listing]:
    """List the runbooks, and when each was last rehearsed."""
    with run.recorded("runbooks") as record:
        settings = run.settings.runbooks
        past, rows = attempts(run), []
        for path in settings.files:
            try:
                rows.append(_row(read(path), past[path.stem], run.now()))
            except UsageError as error:
                rows.append({"name": path.stem, "error": error.message})
        record.result = Listing(folder=settings.place, runbooks=tuple(rows))
    return record.outcome


def _row(book: Runbook, past: Sequence[Attempt], now: datetime) -> dict[str, Any]:
    """Return what is listed; a runbook is due so many days after it has passed."""
    passed = [datetime.fromisoformat(e.time) for e in past if e.status == PASSED]
    due = passed[-1] + timedelta(days=book.days) if passed else None
    last: dict[str, Any] = {}
    if past:
        last = {"time": past[-1].time, "result": past[-1].status or "not ended"}
        for key in ("operator", "second", "rehearsal"):
            last[key] = past[-1].details.get(key)
    return {
        "name": book.name,
        "title": book.title,
        "days": book.days,
        "last": last or None,
        "due": due.isoformat() if due else None,
        "overdue": due is None or due < now,
    }
