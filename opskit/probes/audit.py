"""Audit: the trail of who did what, for administrators."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from opskit.checks import Check
from opskit.config.access import AuditSettings, ListSettings
from opskit.config.smoke import SmokeSettings
from opskit.probes.lists import Page, page, pages, value, with_parameters
from opskit.probes.probe import Probe, WrongAnswer, faultless
from opskit.probes.resources import Resources, named
from opskit.probes.session import Answer, Session

_NOBODY = "opskit-nobody"
_DAY = timedelta(days=1)
# The date in headers has no fractions.
_CLOCK_STEP = timedelta(seconds=1)
_LOOK_AGAIN_SECONDS = 1.0


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield a probe for who may read the trail, its filters, and what is in it."""
    section = settings.audit
    if not section.trail:
        return
    trail = named(settings.lists, section.trail, "lists")
    yield Probe(
        name="audit.access",
        ask=lambda session: faultless(
            "200 for the administrator, 403 for others, 401 without a key",
            _access(session, section, trail),
        ),
        what=f"Asks {trail.path} as an administrator, as others, and without a key.",
        why="The trail says who does what, and when: it is for those alone who watch "
        "over it.",
        remedy="Require the administrator's role on the route of the trail.",
    )
    if section.filters:
        yield Probe(
            name="audit.filters",
            ask=lambda session: faultless(
                "only entries that match", _filters(session, section, trail)
            ),
            what="Filters by a value that is in the trail, and by one that is not: "
            + ", ".join(section.filters)
            + ".",
            why="In an incident, a filter that is ignored hides the one entry that "
            "matters among thousands.",
            remedy="Put each parameter into the query, and answer 422 to those that "
            "are not known.",
        )
    if section.since_parameter:
        yield Probe(
            name="audit.since",
            ask=lambda session: faultless(
                "only entries from then on", _since(session, section, trail)
            ),
            what="Asks for the entries since one that is in the trail, and since "
            "tomorrow.",
            why="Whoever reads the trail in an incident knows the time first.",
            remedy=f"Compare the time of entries with `{section.since_parameter}`, in "
            "UTC.",
        )
    if section.action.path:
        yield Probe(
            name="audit.own-action",
            ask=lambda session: _own_action(
                session, section, trail, Resources(settings)
            ),
            what="Sends a request that must be audited, and looks for its entry.",
            why="A trail with gaps proves nothing.",
            remedy="Write the entry in the transaction of what was done, with the id "
            "of the request and the user.",
        )


def _access(
    session: Session, section: AuditSettings, trail: ListSettings
) -> Iterator[str]:
    if not page(session, trail).items:
        yield "the administrator reads an empty trail"
    for key, wanted in {**dict.fromkeys(section.others, 403), "": 401}.items():
        if (status := session.get(trail.path, key=key).status) != wanted:
            yield f"{f'as {key}' if key else 'without a key'}: {status}"


def _filtered(
    session: Session, trail: ListSettings, parameter: str, wanted: object
) -> Page:
    path = with_parameters(trail.path, {parameter: wanted})
    filtered = trail.model_copy(update={"path": path})
    return page(session, filtered, limit=trail.size_max)


def _last(session: Session, trail: ListSettings) -> dict[str, Any]:
    """Return the last entry of the first page."""
    items = page(session, trail, limit=trail.size_max).items
    if not items:
        raise WrongAnswer(expected="entries in the trail", observed="none")
    return items[-1]


def _filters(
    session: Session, section: AuditSettings, trail: ListSettings
) -> Iterator[str]:
    entry = _last(session, trail)
    for name in section.filters:
        wanted = value(entry, name)
        found = [
            value(each, name) for each in _filtered(session, trail, name, wanted).items
        ]
        if not found:
            yield f"{name}: nothing for a value that is there"
        elif others := sum(each != wanted for each in found):
            yield f"{name}: {others} of {len(found)} entries have another"
        path = with_parameters(trail.path, {name: _NOBODY})
        status = session.get(path, key=trail.key).status
        if status == 200 and _filtered(session, trail, name, _NOBODY).items:
            yield f"{name}: entries for a value that is nowhere"
        elif status != 200 and not 400 <= status <= 499:
            yield f"{name}: {status} for a value that is nowhere"


def _since(
    session: Session, section: AuditSettings, trail: ListSettings
) -> Iterator[str]:
    entry = _last(session, trail)
    since = value(entry, section.time)
    found = [
        _moment(value(each, section.time))
        for each in _filtered(session, trail, section.since_parameter, since).items
    ]
    if not found:
        yield "nothing since an entry that is there"
    elif early := sum(each < _moment(since) for each in found):
        yield f"{early} of {len(found)} entries are earlier"
    tomorrow = (datetime.now(UTC) + _DAY).isoformat()
    if late := _filtered(session, trail, section.since_parameter, tomorrow).items:
        yield f"{len(late)} entries since tomorrow"


def _moment(text: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise WrongAnswer(
            expected="entries with a time in ISO 8601", observed="one without"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _has(entry: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(value(entry, name) == each for name, each in wanted.items())


def _clock(answer: Answer) -> datetime:
    """Return the time by the service's clock, or by this host's without one."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return datetime.now(UTC)


def _own_action(
    session: Session, section: AuditSettings, trail: ListSettings, resources: Resources
) -> Check:
    began = _clock(session.get(trail.path, key=trail.key)) - _CLOCK_STEP
    header = section.request_id_header
    sent = str(uuid.uuid4())
    answer = resources.send(session, section.action, headers={header: sent})
    if not section.action.accepts(answer.status):
        raise WrongAnswer(
            expected=f"a right answer to {section.action.method} {section.action.path}",
            observed=str(answer.status),
        )
    wanted = dict(section.entry)
    if section.request_id:
        wanted[section.request_id] = answer.headers.get(header, sent)
    parameters: dict[str, object] = {section.since_parameter: began.isoformat()}
    path = with_parameters(trail.path, parameters if section.since_parameter else {})
    recent = trail.model_copy(update={"path": path})
    expected = f"an entry with the right {', '.join(wanted)}"
    end = time.monotonic() + session.target.timeout_seconds
    while True:
        for read in pages(session, recent, limit=trail.size_max):
            if any(_has(each, wanted) for each in read.items):
                return faultless(expected, [])
        if time.monotonic() > end:
            seconds = session.target.timeout_seconds
            return faultless(expected, [f"none in {seconds:g} s"])
        time.sleep(_LOOK_AGAIN_SECONDS)
