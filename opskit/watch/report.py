"""Report: what was backed up, drilled and missed in a week or a month, as evidence."""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from opskit import files
from opskit.catalog.documents import REPORTS_FOLDER, document_bytes, store_document
from opskit.checks import Check, cell
from opskit.config import Settings
from opskit.errors import StoreError
from opskit.ledger import LedgerEntry
from opskit.log import mask, masked
from opskit.operations import keys
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.watch import figures, health, page, slo
from opskit.watch.gathering import gather
from opskit.watch.state import DrillRecord, SourceState, State

if TYPE_CHECKING:
    from jinja2 import Environment

FORMAT_VERSION = 1
_MET = {True: "met", False: "not met", None: "not measured"}


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What the report is about: the last week or the last month, up to now."""

    period: Literal["week", "month"]


@dataclass(frozen=True, kw_only=True)
class Period:
    """The time that a report is about, from the beginning of its first day."""

    name: Literal["week", "month"]
    since: datetime
    until: datetime

    @property
    def title(self) -> str:
        """Its first and its last day."""
        return f"{self.since:%-d %B %Y} to {self.until:%-d %B %Y}"


def period_until(name: Literal["week", "month"], until: datetime) -> Period:
    """Return the week or the month that ends at a time, in the zone of that time.

    A month begins on the day of the month of its end, or on the last one before it that
    there is: monthly reports leave nothing out between them.
    """
    day = until.date()
    if name == "week":
        first = day - timedelta(days=7)
    else:
        last = day.replace(day=1) - timedelta(days=1)
        length = calendar.monthrange(last.year, last.month)[1]
        first = last.replace(day=min(day.day, length))
    since = datetime.combine(first, time(), tzinfo=until.tzinfo)
    return Period(name=name, since=since, until=until)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured against an objective, both in seconds."""

    measured: float | None
    limit: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether it was met; None where nothing was measured or asked for."""
        if self.measured is None or self.limit is None:
            return None
        return self.measured <= self.limit

    @property
    def verdict(self) -> str:
        """The same in words."""
        return "no objective" if self.limit is None else _MET[self.is_met]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        return {
            "measured_seconds": self.measured,
            "objective_seconds": self.limit,
            "met": self.is_met,
        }


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """What became of one source in the period."""

    source: SourceState
    history: figures.BackupHistory
    rpo: Measurement
    rto: Measurement
    drills: tuple[DrillRecord, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        passed = sum(each.passed for each in self.drills)
        ended = self.history.counts
        return {
            "source": self.source.name,
            "kind": self.source.kind,
            "schedule": self.source.schedule,
            "backups": {each: ended[each] for each in ("ok", "failed", "missed")},
            "drills": {"passed": passed, "failed": len(self.drills) - passed},
            "rpo": self.rpo.as_json(),
            "rto": self.rto.as_json(),
        }


def of_source(source: SourceState, period: Period, settings: Settings) -> SourceReport:
    """Return what became of a source; RPO and RTO are the worst of the period."""
    since, until = period.since, period.until
    history = figures.backup_history(source, since=since, until=until)
    drills = tuple(
        each for each in reversed(source.drills) if since <= each.finished_at <= until
    )
    times = [e.rto_seconds for e in drills if e.passed and e.rto_seconds is not None]
    return SourceReport(
        source=source,
        history=history,
        rpo=Measurement(
            # What began before the period counts until the first backup in it was done.
            measured=figures.largest_age(history.backups, since=since, until=until),
            limit=source.max_age.total_seconds(),
        ),
        rto=Measurement(
            measured=max(times, default=None), limit=page.seconds_of(settings.drill.rto)
        ),
        drills=drills,
    )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a report says."""

    run_id: str
    ledger_id: str
    period: Period
    state: State
    checks: Sequence[Check]
    service: Sequence[Check]
    sources: tuple[SourceReport, ...]

    @property
    def log(self) -> list[LedgerEntry]:
        """The records of the period, the oldest first."""
        since, until = self.period.since, self.period.until
        return [e for e in self.state.entries if since <= figures.began(e) <= until]

    @property
    def failures(self) -> list[LedgerEntry]:
        """Those of runs that did not succeed, or were missed."""
        return [each for each in self.log if figures.outcome_of(each) != "ok"]

    @property
    def name(self) -> str:
        """What its files are called, without their endings."""
        return f"{self.period.until:%Y-%m-%d}-{self.period.name}-{self.run_id}"

    def as_json(self) -> dict[str, Any]:
        """Return the document that is signed."""
        log = self.log
        return {
            "format_version": FORMAT_VERSION,
            "kind": "report",
            "name": self.name,
            "run_id": self.run_id,
            "period": self.period.name,
            "since": self.period.since.isoformat(),
            "until": self.period.until.isoformat(),
            "tool_version": self.state.version,
            "ledger": {
                "id": self.ledger_id,
                "first": log[0].sequence if log else None,
                "last": log[-1].sequence if log else None,
                "before_last_sha256": log[-1].previous if log else None,
                "faults": list(self.state.ledger_faults),
            },
            "sources": [each.as_json() for each in self.sources],
            "service": [each.as_json() for each in self.service],
            "checks": [each.as_health_json() for each in self.checks],
        }


def render(facts: Facts, zone: ZoneInfo) -> dict[str, str]:
    """Return the report in its two forms, by the ending of the file's name."""
    style = (resources.files("opskit.watch") / "static" / "page.css").read_text("utf-8")
    shown = {"facts": facts, "met": _MET, "weeks": _weeks}
    html = page.environment(zone).get_template("report.html")
    markdown = _markdown(zone).get_template("report.md")
    return {
        "html": html.render(style=style, **shown),
        "md": markdown.render(**shown),
    }


def _markdown(zone: ZoneInfo) -> Environment:
    """Return what renders templates of Markdown, and escapes what they show."""
    return page.environment(zone).overlay(
        autoescape=False, finalize=lambda value: cell(mask(str(value)))
    )


def _weeks(days: Iterable[figures.Day]) -> list[dict[str, Any]]:
    """Return the days by week, in words, with the date of each week's Monday."""
    weeks: dict[str, list[str]] = {}
    for day in days:
        monday = f"{day.date - timedelta(days=day.date.weekday()):%Y-%m-%d}"
        states = weeks.setdefault(monday, [""] * 7)
        states[day.date.weekday()] = "no run" if day.state == "none" else day.state
    return [{"monday": monday, "days": states} for monday, states in weeks.items()]


@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a report says, where it lies on this host, and which stores have it."""

    facts: Mapping[str, Any]
    report: Path
    html: Path
    stores: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            **self.facts,
            "report": str(self.report),
            "html": str(self.html),
            "stores": list(self.stores),
        }


def report(run: Run, request: ReportRequest) -> Outcome[Reported]:
    """Write a report into the state folder and into every store."""
    with run.recorded("report") as record:
        keys.require_own_trust(run.settings, what="the report")
        record.begin(period=request.period)
        zone = run.settings.scheduler.zone
        facts = _facts(run, period_until(request.period, run.now().astimezone(zone)))
        content = {
            ending: text.encode("utf-8", "surrogateescape")
            for ending, text in render(facts, zone).items()
        }
        document = masked(facts.as_json()) | {
            "files": {
                f"{facts.name}.{ending}": hashlib.sha256(each).hexdigest()
                for ending, each in content.items()
            }
        }
        for ending, each in {"json": document_bytes(document), **content}.items():
            files.write_atomically(run.reports / f"{facts.name}.{ending}", [each])
        stored = _store(run, facts, document, content, record)
        record.details |= {"name": facts.name, "stores": stored}
        record.result = Reported(
            facts=document,
            report=run.reports / f"{facts.name}.md",
            html=run.reports / f"{facts.name}.html",
            stores=tuple(stored),
        )
    return record.outcome


def _facts(run: Run, period: Period) -> Facts:
    state = gather(run)
    return Facts(
        run_id=run.run_id,
        ledger_id=run.ledger.id,
        period=period,
        state=state,
        checks=health.checks(state, run.settings),
        service=slo.checks(run.settings.slo, start=period.since, end=period.until),
        sources=tuple(of_source(each, period, run.settings) for each in state.sources),
    )


def _store(
    run: Run,
    facts: Facts,
    document: Mapping[str, Any],
    content: Mapping[str, bytes],
    record: Record,
) -> list[str]:
    """Put the report into every store, its document last; return which have it."""
    keys.warn_of_unsigned(run.settings)
    place = f"{REPORTS_FOLDER}{facts.ledger_id}/{facts.name}"
    stored = []
    for store in run.stores:
        try:
            for ending, each in content.items():
                store.put(f"{place}.{ending}", [each])
            store_document(store, f"{place}.json", document, run.protection.signer)
            stored.append(store.name)
        except StoreError as error:
            record.details.setdefault("failed_stores", []).append(store.name)
            record.report(error)
    return stored
