"""Authorisation: users see and do what is theirs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from opskit.config.access import (
    AuthorisationSettings,
    DiagnosticsSettings,
    StreamSettings,
)
from opskit.config.smoke import Profile, SmokeSettings
from opskit.probes.lists import pages
from opskit.probes.probe import Probe, expecting
from opskit.probes.resources import Resources, named
from opskit.probes.session import Session

_HIDDEN = (403, 404)
# How long another user listens for what must not come.
_OVERHEARD_SECONDS = 2.0


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield a probe for each question that the settings name something for."""
    section, resources = settings.authorisation, Resources(settings)
    if section.others and settings.resources:
        yield from _of_ownership(settings, resources)
        streams = [e for e in settings.authentication.streams if e.trigger.path]
        if streams:
            yield _of_events(streams, section.others[0], resources)
    if section.reader or section.forbidden:
        yield from _of_roles(section, resources)
    if section.diagnostics.path:
        yield _diagnostics(section.diagnostics)


def _of_ownership(settings: SmokeSettings, resources: Resources) -> Iterator[Probe]:
    others = settings.authorisation.others
    listed = {name: each for name, each in settings.resources.items() if each.listed_in}
    changed = {name: each for name, each in settings.resources.items() if each.change}

    def read(session: Session) -> Iterator[str]:
        for each in settings.resources.values():
            path = resources.path(session, each.path)
            if (status := session.get(path, key=each.owner).status) != 200:
                yield f"GET {each.path} as its owner: {status}"
            for other in others:
                if (status := session.get(path, key=other).status) not in _HIDDEN:
                    yield f"GET {each.path} as {other}: {status}"

    def change(session: Session) -> Iterator[str]:
        for each in changed.values():
            path = resources.path(session, each.path)
            for other in others:
                status = session.request(
                    "PATCH", path, key=other, document=each.change
                ).status
                if status not in _HIDDEN:
                    yield f"PATCH {each.path} as {other}: {status}"

    def list_(session: Session) -> Iterator[str]:
        for name, each in listed.items():
            list_ = named(settings.lists, each.listed_in, "lists")
            wanted = resources.id(session, name)
            for user in (each.owner, *others):
                read = list(pages(session, list_, key=user, limit=list_.size_max))
                ids = [id_ for page in read for id_ in page.ids]
                if any(page.total not in (None, len(ids)) for page in read):
                    yield f"{list_.total} is not the number of items for {user}"
                is_there = wanted in ids
                if is_there != (user == each.owner):
                    where = "in" if is_there else "not in"
                    yield f"{name} is {where} the list of {user}"

    yield Probe(
        name="authorisation.other-user",
        profile=Profile.MINIMAL,
        ask=expecting("403 or 404 for other users", read),
        what="Reads each resource as its owner, and as other users.",
        why="Ids can be guessed: a service that only looks whether somebody has a key "
        "shows everything to everybody who has one.",
        remedy="Put the owner into the query (`WHERE id = … AND owner_id = …`), and "
        "answer 404 for what belongs to somebody else.",
    )
    if changed:
        yield Probe(
            name="authorisation.other-user-changes",
            ask=expecting("403 or 404 for others", change),
            what="Sends the configured change of each resource as other users.",
            why="Ownership is often checked where things are read, and forgotten where "
            "they are changed.",
            remedy="Check the owner in the query of every route that takes an id.",
        )
    if listed:
        yield Probe(
            name="authorisation.lists",
            ask=expecting("in the owner's list", list_),
            what="Searches all pages of its list for each resource, as the owner and "
            "as other users.",
            why="A list without the owner's filter shows what single answers hide.",
            remedy="Put the owner into the query of the list, and of its count.",
        )


def _of_events(
    streams: list[StreamSettings], other: str, resources: Resources
) -> Probe:
    def overheard(session: Session) -> Iterator[str]:
        seconds = min(session.target.timeout_seconds, _OVERHEARD_SECONDS)
        for each in streams:
            with (
                Session(replace(session.target, timeout_seconds=seconds)) as theirs,
                theirs.stream(each.path, key=other, headers=each.headers) as heard,
                session.stream(each.path, key=each.key, headers=each.headers) as own,
                Session(session.target) as third,
            ):
                resources.send(third, each.trigger)
                event = own.event()
                if heard.status == 200 and event in heard.events():
                    yield f"{each.path} as {other}: an event of {each.key}"

    return Probe(
        name="authorisation.events",
        ask=expecting("nothing of the owner's", overheard),
        what=f"Listens to event streams as {other}, and causes events of their owner.",
        why="Events are sent to whoever listens: nobody asks for one, and so nobody "
        "thinks of its owner.",
        remedy="Keep the account with each listener, and send it the events of that "
        "account alone.",
        profile=Profile.STRICT,
    )


def _of_roles(section: AuthorisationSettings, resources: Resources) -> Iterator[Probe]:
    def refused(session: Session) -> Iterator[str]:
        asked = [(each, section.reader) for each in section.writes]
        asked += [(each, each.key) for each in section.forbidden]
        for each, key in asked:
            if (status := resources.send(session, each, key=key).status) != 403:
                yield f"{each.method} {each.path} as {key}: {status}"

    def allowed(session: Session) -> Iterator[str]:
        for path in section.reads:
            shown = resources.path(session, path)
            if (status := session.get(shown, key=section.reader).status) != 200:
                yield f"GET {path} as {section.reader}: {status}"
        for each in section.writes:
            if not each.accepts(status := resources.send(session, each).status):
                yield f"{each.method} {each.path} as {each.key}: {status}"

    if section.writes or section.forbidden:
        yield Probe(
            name="authorisation.reader-writes",
            ask=expecting("403 without the role", refused),
            what="Sends each write with the key of a user who may only read, and what "
            "else is forbidden to other keys.",
            why="Keys for dashboards and exports are spread widely, because they are "
            "thought harmless.",
            remedy="Require the role on the route, before the body is examined, and "
            "answer 403.",
        )
    if section.reads or section.writes:
        yield Probe(
            name="authorisation.roles",
            ask=expecting("what the role allows is not refused", allowed),
            what="Reads as a reader, and sends each write with the key that may do it.",
            why="A service that refuses everybody passes the questions about others.",
            remedy="Compare the roles of these keys with what the routes require.",
        )


def _diagnostics(section: DiagnosticsSettings) -> Probe:
    expected = {section.refused: 403, section.permitted: 200, "": 401}
    wanted = "403 without the permission, 200 with it"
    if not section.enabled:
        expected, wanted = dict.fromkeys(expected, 404), "404, as it is disabled"

    def faults(session: Session) -> Iterator[str]:
        for key, right in expected.items():
            status = session.get(section.path, key=key).status
            # Without a key, what is disabled may be refused as well as hidden.
            if status != right and (key or status not in (401, *_HIDDEN)):
                user = f"as {key}" if key else "without a key"
                yield f"GET {section.path} {user}: {status}"

    return Probe(
        name="authorisation.diagnostics",
        ask=expecting(wanted, faults),
        what=f"Asks {section.path} with and without the permission, and without a key.",
        why="Diagnostics show paths, settings and addresses: all that an attacker "
        "looks for next.",
        remedy="Answer 404 while diagnostics are disabled; else require the permission "
        "before anything is gathered.",
    )
