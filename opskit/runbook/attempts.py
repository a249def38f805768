"""Attempts: what the ledger has of runbooks that somebody walked through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from opskit.config.runbooks import RunbooksSettings
from opskit.errors import UsageError
from opskit.ledger import LedgerEntry
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.runbook.text import Runbook, read

RUNBOOK, STEP = "runbook", "runbook-step"
LIST = "runbooks"
PASSED, FAILED, LEFT = "passed", "failed", "left"
BEGUN, DONE, SKIPPED, INTERRUPTED = "begun", "done", "skipped", "interrupted"


@dataclass(kw_only=True)
class Attempt:
    """One walk through a runbook, also in several runs, as its last record has it.

    `steps` hold the last state of each step by its number. `status` is empty while it
    has not ended.
    """

    time: str
    details: Mapping[str, Any]
    steps: dict[int, str] = field(default_factory=dict)
    status: str = ""

    @property
    def runbook(self) -> str:
        """The name of the runbook."""
        return str(self.details["runbook"])

    def as_json(self) -> dict[str, Any]:
        """Return when it was, by whom, and with what result."""
        about = {
            key: self.details.get(key) for key in ("operator", "second", "rehearsal")
        }
        return {"time": self.time, "result": self.status or "not ended"} | about


def attempts(entries: Iterable[LedgerEntry]) -> list[Attempt]:
    """Return the attempts, the newest last."""
    found: dict[str, Attempt] = {}
    for entry in entries:
        details: Mapping[str, Any] = entry.details
        if entry.operation not in (RUNBOOK, STEP) or "attempt" not in details:
            continue
        known = found.pop(str(details["attempt"]), None)
        made = Attempt(
            time=entry.time, details=details, steps=known.steps if known else {}
        )
        if entry.operation == STEP:
            made.steps[int(details["step"])] = str(details["state"])
        else:
            made.status = str(details.get("status", FAILED))
        found[str(details["attempt"])] = made
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A runbook in the list: its last attempt, and when it is due again.

    One that breaks the form has an error instead of a title.
    """

    name: str
    title: str = ""
    days: int = 0
    last: Attempt | None = None
    due: datetime | None = None
    overdue: bool = False
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return vars(self) | {
            "last": self.last.as_json() if self.last else None,
            "due": self.due.isoformat() if self.due else None,
        }


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The runbooks of a folder."""

    folder: Path
    runbooks: tuple[Listed, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "folder": str(self.folder),
            "runbooks": [each.as_json() for each in self.runbooks],
        }


def list_runbooks(run: Run) -> Outcome[Listing]:
    """List the runbooks, and when each was last rehearsed."""
    with run.recorded(LIST) as record:
        entries, _faults = run.ledger.readable()
        past, listed = attempts(entries), []
        for path in files(run.settings.runbooks):
            try:
                listed.append(_listed(read(path), past, run.now()))
            except UsageError as error:
                listed.append(Listed(name=path.stem, error=error.message))
                record.report(error)
        record.result = Listing(
            folder=run.settings.runbooks.place, runbooks=tuple(listed)
        )
    return record.outcome


def _listed(book: Runbook, past: Sequence[Attempt], now: datetime) -> Listed:
    own = [each for each in past if each.runbook == book.name]
    passed = [datetime.fromisoformat(e.time) for e in own if e.status == PASSED]
    due = passed[-1] + timedelta(days=book.days) if passed else None
    return Listed(
        name=book.name,
        title=book.title,
        days=book.days,
        last=own[-1] if own else None,
        due=due,
        overdue=due is None or due < now,
    )


def files(settings: RunbooksSettings) -> list[Path]:
    """Return the files of the runbooks.

    Raises:
        UsageError: there are none.
    """
    found = sorted(
        each for each in settings.place.glob("*.md") if each.name != "README.md"
    )
    if not found:
        raise UsageError(
            f"there is no runbook in {settings.place}",
            hint="Name the folder with the runbooks in [runbooks] folder.",
        )
    return found
