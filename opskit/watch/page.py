"""The page: how everything is, for people, as HTML that needs no script."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from opskit.checks import Check, Health, count, duration, size, worst
from opskit.config import Settings
from opskit.config.cron import next_due
from opskit.ledger import LedgerEntry
from opskit.log import mask
from opskit.watch import figures, health
from opskit.watch.state import SourceState, State, figure, losses

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_ROWS = 50
# Of so many sources everything is shown; of more, one that is chosen.
_WHOLE = 12
_FILTERS = ("source", "operation", "outcome")
_MARKS = {Health.HEALTHY: "ok", Health.DEGRADED: "missed", Health.UNHEALTHY: "failed"}
# By the name of a check and what was observed; the first that fits counts.
_RUNBOOKS = (
    (r"fleet", "backup-failing.md"),
    (r"last smoke", "bad-release.md"),
    (r"last .*(signing key|identity|is encrypted for)", "keys-lost.md"),
    (r"store .*manifests.*(signed|trusted)", "keys-lost.md"),
    (r"last (verify|.*: store )|disk|store|.*: proof", "store-failing.md"),
    (r".*: connection", "database-lost.md"),
    (r"ledger", "ransomware.md"),
    (
        r".*(newest|sudden change|duration|time of a restore)"
        r"|(.*: )?last|missed|timetable|scheduler|notification",
        "backup-failing.md",
    ),
)
_AHEAD = timedelta(days=figures.DAYS)
_FILES = {"page.css": "text/css", "icon.svg": "image/svg+xml"}


@cache
def environment(zone: ZoneInfo) -> Environment:
    """Return what renders templates; whatever they show is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("opskit.watch"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_secrets,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "size": size,
        "duration": duration,
        "count": count,
        "moment": lambda at: f"{at.astimezone(zone):%Y-%m-%d %H:%M}",
        "seconds": lambda s: "not measured" if s is None else duration(s),
        "rate": figures.in_words,
        "began": figures.began,
        "outcome": figures.outcome_of,
        "took": _took,
        "about": _about,
        "phrases": _phrases,
        "runbook": _runbook,
    }
    made.globals |= {
        "size": size,
        "duration": duration,
        "zone": zone.key,
        "marks": _MARKS,
    }
    return made


def _without_secrets(value: object) -> object:
    """Mask secrets before anything is escaped: afterwards they would look different."""
    is_done = hasattr(value, "__html__")
    return mask(value) if isinstance(value, str) and not is_done else value


def _phrases(hint: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a hint, and whether each is code, as runbooks write it."""
    for number, part in enumerate(mask(hint).split("`")):
        is_code = number % 2 == 1
        yield re.sub(r"^inv(?= )", "opskit", part) if is_code else part, is_code


def _runbook(check: Check) -> str:
    """Return the runbook to open when a check has failed, if there is one."""
    text = f"{check.name} | {check.observed}"
    return next((name for what, name in _RUNBOOKS if re.match(what, text)), "")


def render(
    state: State, checks: Sequence[Check], settings: Settings, query: Mapping[str, str]
) -> str:
    """Return the page; `query` says which records of the ledger are shown."""
    zone = settings.scheduler.zone
    order = list(Health)
    bad = [each for each in checks if each.status is not Health.HEALTHY]
    shown, hidden = _shown(state.sources, query.get("source", ""))
    return (
        environment(zone)
        .get_template("page.html")
        .render(
            now=state.time,
            health=worst(checks).value,
            checks=_without_quiet(checks, hidden),
            wrong=sorted(
                health.grouped(bad) if hidden else bad,
                key=lambda each: -order.index(each.status),
            ),
            bad=len(bad),
            passed=len(checks) - len(bad),
            sources=[_source(each, state, settings) for each in shown],
            losses=losses(state.sources, now=state.time)
            if hidden or state.fleet
            else [],
            is_crowded=bool(hidden),
            fleet=state.fleet,
            objective=seconds_of(settings.drill.rto),
            stores=state.stores,
            disks=state.disks,
            memory=state.memory,
            ledger=_ledger(state.entries, query),
            faults=state.ledger_faults,
            version=state.version,
        )
    )


def _shown(
    sources: Sequence[SourceState], chosen: str
) -> tuple[Sequence[SourceState], Sequence[SourceState]]:
    """Return the sources of which all is shown: of many only the one chosen."""
    if len(sources) <= _WHOLE:
        return sources, ()
    return (
        [each for each in sources if each.name == chosen],
        [each for each in sources if each.name != chosen],
    )


def _without_quiet(
    checks: Sequence[Check], hidden: Sequence[SourceState]
) -> list[Check]:
    """Leave out the checks that passed and are about sources that are not shown."""
    names = {each.name for each in hidden}
    return [
        each for each in checks if not each.passed or health.about(each)[1] not in names
    ]


def seconds_of(length: timedelta | None) -> float | None:
    """Return an objective in seconds, if there is one."""
    return None if length is None else length.total_seconds()


def _source(source: SourceState, state: State, settings: Settings) -> dict[str, Any]:
    """Return what the page shows of one source."""
    zone = settings.scheduler.zone
    now = state.time.astimezone(zone)
    first = now.date() - timedelta(days=figures.DAYS - 1)
    since = datetime.combine(first, time(), tzinfo=zone)
    history = figures.backup_history(source, since=since, until=now)
    sizes = [(each.at, each.size_bytes) for each in history.backups if each.at >= since]
    drills = figures.drilled(source.runs)
    later = figures.growth(sizes, at=now + _AHEAD)
    expected = None if later is None else figures.forecast(drills, later)
    objective = seconds_of(settings.drill.rto)
    times = [(each.name, source.last_success.get(each.name)) for each in state.stores]
    return {
        "state": source,
        "next_due": next_due(source.schedule, zone, after=now)
        if source.schedule
        else None,
        "stores": [
            (name, at, at is None or now - at > source.max_age) for name, at in times
        ],
        "rate": figures.in_words(history.counts),
        "history": history,
        "bad_days": [
            day for day in reversed(history.days) if day.state in ("failed", "missed")
        ],
        "drill": source.drills[0] if source.drills else None,
        "forecast": expected,
        "chart": expected and figures.scatter(drills, expected, limit=objective),
    }


def _ledger(entries: Sequence[LedgerEntry], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the newest records that the query asks for, and what may be asked for."""
    chosen = {name: query.get(name, "") for name in _FILTERS}
    matching = [
        each
        for each in entries
        if all(
            not chosen[name] or _value(each, name) == chosen[name] for name in chosen
        )
    ]
    before = query.get("before", "")
    shown = [
        each
        for each in matching
        if not (before.isascii() and before.isdigit()) or each.sequence < int(before)
    ][: -_ROWS - 1 : -1]
    is_last = not shown or shown[-1] is matching[0]
    return {
        "chosen": chosen,
        "choices": {
            name: sorted(
                {_value(each, name) for each in entries} - {""} | {chosen[name]} - {""}
            )
            for name in _FILTERS
        },
        "is_filtered": any(chosen.values()),
        "rate": figures.in_words(figures.tally(matching)),
        "rows": shown,
        "older": "" if is_last else urlencode(chosen | {"before": shown[-1].sequence}),
    }


def _value(entry: LedgerEntry, name: str) -> str:
    """Return what a record is filtered by."""
    if name == "outcome":
        return figures.outcome_of(entry)
    return entry.source if name == "source" else entry.operation


def _took(entry: LedgerEntry) -> str:
    """Return how long a run took, if its record says so."""
    seconds = figure(entry.seconds)
    return "" if seconds is None else duration(seconds)


def _about(entry: LedgerEntry) -> str:
    """Return what a record says beside its outcome: what failed, which set."""
    details = entry.details
    parts = [
        str(details[key])
        for key in ("error", "backup_id", "runbook")
        if details.get(key)
    ]
    if details.get("passed") is False:
        parts.append("the drill did not pass")
    lacking = details.get("failed_stores")
    if isinstance(lacking, list) and lacking:
        parts.append(f"not stored in {', '.join(map(str, lacking))}")
    return "; ".join(parts)


def routes(
    settings: Settings,
    state: Callable[[], State | None],
    *,
    now: Callable[[], datetime],
) -> list[Route]:
    """Return the routes of the page; there is no page before the first state."""
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route

    templates = environment(settings.scheduler.zone)

    def page(request: Request) -> Response:
        known = state()
        if known is None:
            return PlainTextResponse("Nothing was gathered yet.", 503)
        checks = [health.freshness(known, now()), *health.checks(known, settings)]
        return HTMLResponse(render(known, checks, settings, request.query_params))

    def file(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        content = (resources.files("opskit.watch") / "static" / name).read_bytes()
        return Response(content, media_type=_FILES[name])

    def runbook(request: Request) -> Response:
        name = request.path_params["name"]
        known = {each.name: each for each in settings.runbooks.place.glob("*.md")}
        if name not in known:
            return PlainTextResponse("There is no such runbook.", 404)
        template = templates.get_template("runbook.html")
        text = known[name].read_text("utf-8", errors="replace")
        return HTMLResponse(template.render(name=name, text=text))

    return [
        Route("/", page),
        *(Route(f"/{name}", file) for name in _FILES),
        Route("/runbooks/{name}", runbook),
    ]
