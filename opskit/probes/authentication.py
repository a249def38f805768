"""Authentication: those with a credential get in, and nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from opskit.checks import Check
from opskit.config.access import RequestSettings, StreamSettings, WebSocketSettings
from opskit.config.smoke import Profile, SmokeSettings
from opskit.log import hide
from opskit.probes import tokens
from opskit.probes.channels import SWITCHED, WebSocket
from opskit.probes.lists import with_parameters
from opskit.probes.probe import Probe, WrongAnswer, expecting
from opskit.probes.resources import Resources
from opskit.probes.session import Session

_FORBIDDEN = (401, 403)
# Policy violation, and the codes that are free for services; a browser does not see
# the status of a handshake, and so some services close what they have opened.
_CLOSED = (1008, 3000, 3003, *range(4000, 5000))
# A service may say something else first.
_MESSAGES = 10

Headers = Mapping[str, str]


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield a probe for each question, which is asked of every route that is named."""
    section, resources = settings.authentication, Resources(settings)
    if section.routes:
        yield from _of_routes(resources, section.routes, section.wrong_header)
    if section.bypass:
        yield _bypass(section.bypass, section.routes)
    if section.streams:
        yield from _of_streams(resources, section.streams)
    if section.websockets:
        yield from _of_websockets(section.websockets)
    if section.token.path:
        yield from tokens.probes(section.token)


def altered(credential: Headers) -> dict[str, str]:
    """Return a credential of the same form that is wrong: its last third differs."""
    return _hidden({name: _altered(value) for name, value in credential.items()})


def _wrong(session: Session, key: str) -> tuple[Headers, Headers]:
    """Return no credential, and one that is wrong."""
    return {}, altered(session.target.credential(key))


def _altered(value: str) -> str:
    kept = len(value) - max(1, len(value) // 3)
    return value[:kept] + re.sub(r"[0-9A-Za-z]", _next, value[kept:])


def _next(match: re.Match[str]) -> str:
    character = match[0]
    return {"9": "0", "Z": "A", "z": "a"}.get(character) or chr(ord(character) + 1)


def _of_routes(
    resources: Resources, routes: list[RequestSettings], wrong_header: str
) -> Iterator[Probe]:
    refused = partial(_refused, resources, routes)

    def accepted(session: Session) -> Iterator[str]:
        for each in routes:
            if not each.accepts(status := resources.send(session, each).status):
                yield f"{each.method} {each.path}: {status}"

    yield Probe(
        name="authentication.no-key",
        profile=Profile.MINIMAL,
        ask=refused(lambda right: [{}, dict.fromkeys(right, "")]),
        what="Asks each route without a key, and with an empty one.",
        why="A route that was forgotten among those that need a key is open to all.",
        remedy="Check the key in one place for all routes, for instance in a "
        "middleware, and name the exceptions there; answer 401 where it is missing or "
        "empty.",
    )
    yield Probe(
        name="authentication.wrong-key",
        profile=Profile.MINIMAL,
        ask=refused(lambda right: [altered(right), _cut(right)], right_first=True),
        what="Asks each route with the right key, and then with one whose end differs, "
        "and one whose end is missing.",
        why="A service that only looks whether there is a key, or compares or "
        "remembers its beginning, accepts keys that it never issued.",
        remedy="Look the key up, compare the hash of the whole key in constant time, "
        "and answer 401 where it differs.",
    )
    yield Probe(
        name="authentication.wrong-header",
        ask=refused(lambda right: [{wrong_header: "".join(right.values())}]),
        what=f"Asks each route with the right key in the header {wrong_header}.",
        why="A service that takes keys from anywhere takes them from where proxies and "
        "logs do not expect and mask them.",
        remedy="Take the key from the one header that is documented.",
    )
    yield Probe(
        name="authentication.right-key",
        profile=Profile.MINIMAL,
        ask=expecting("the status of a right answer on every route", accepted),
        what="Asks each route with its right key.",
        why="A service that refuses everybody passes every other question here.",
        remedy="See whether the key is still valid and has the role that the route "
        "needs, and whether the service reaches what it checks keys with.",
    )


def _refused(
    resources: Resources,
    routes: list[RequestSettings],
    make: Callable[[Headers], list[Headers]],
    *,
    right_first: bool = False,
) -> Callable[[Session], Check]:
    """Return what asks each route with what `make` makes of its credential."""

    def faults(session: Session) -> Iterator[str]:
        for route in routes:
            if right_first:
                resources.send(session, route)
            for headers in make(session.target.credential(route.key)):
                answer = resources.send(session, route, key="", headers=headers)
                if answer.status != 401:
                    yield f"{route.method} {route.path}: {answer.status}"

    return expecting("401 on every route", faults)


def _cut(credential: Headers) -> dict[str, str]:
    return _hidden(
        {name: value[: -max(1, len(value) // 8)] for name, value in credential.items()}
    )


def _hidden(credential: dict[str, str]) -> dict[str, str]:
    """Have a wrong credential masked, too: most of it is that of the right one."""
    for value in credential.values():
        hide(value.rpartition(" ")[2])
    return credential


def _bypass(paths: list[str], routes: list[RequestSettings]) -> Probe:
    def faults(session: Session) -> Iterator[str]:
        right = session.target.credential(routes[0].key) if routes else {}
        for path in paths:
            for headers in ({}, altered(right)):
                status = session.get(path, headers=headers).status
                if status in (*_FORBIDDEN, 404):
                    yield f"GET {path}: {status}"

    return Probe(
        name="authentication.bypass",
        ask=expecting("neither 401 nor 403 nor 404", faults),
        what="Asks the paths that need no key without one, and with a wrong one.",
        why="Balancers and uptime monitors have no key: they take out of service what "
        "they cannot read.",
        remedy="Let these paths pass before keys are looked at, whatever is sent.",
    )


def _of_streams(resources: Resources, streams: list[StreamSettings]) -> Iterator[Probe]:
    def refused(session: Session) -> Iterator[str]:
        for each in streams:
            for wrong in _wrong(session, each.key):
                headers = {**each.headers, **wrong}
                with session.stream(each.path, headers=headers) as stream:
                    if stream.status != 401:
                        yield f"GET {each.path}: {stream.status}"

    def delivered(session: Session) -> Iterator[str]:
        for each in streams:
            with session.stream(
                each.path, key=each.key, headers=each.headers
            ) as stream:
                if stream.status != 200:
                    yield f"GET {each.path}: {stream.status}"
                    continue
                if each.trigger.path:
                    with Session(session.target) as other:
                        status = resources.send(other, each.trigger).status
                    if not each.trigger.accepts(status):
                        yield f"{each.trigger.method} {each.trigger.path}: {status}"
                        continue
                stream.event()

    yield Probe(
        name="authentication.stream-refused",
        ask=expecting("401 for every event stream", refused),
        what="Asks for each event stream without a key, and with a wrong one.",
        why="Streams often bypass what guards other routes, and whoever gets in once "
        "reads for hours.",
        remedy="Check the key before the stream begins, and answer 401.",
    )
    yield Probe(
        name="authentication.stream",
        ask=expecting("an event on every stream", delivered),
        what="Opens each event stream with its key, and waits for an event.",
        why="A stream that opens and stays silent looks healthy from outside.",
        remedy="See whether events reach the process that holds the stream, and "
        "whether a proxy buffers it (`X-Accel-Buffering: no`, `proxy_buffering off`).",
    )


def _of_websockets(websockets: list[WebSocketSettings]) -> Iterator[Probe]:
    def refused(session: Session) -> Iterator[str]:
        for each in websockets:
            for wrong in _wrong(session, each.key):
                path, headers = _carried(each, wrong)
                with session.websocket(path, headers=headers) as channel:
                    if fault := _let_in(channel, each):
                        yield f"{each.path}: {fault}"

    def delivered(session: Session) -> Iterator[str]:
        for each in websockets:
            path, headers = _carried(each, session.target.credential(each.key))
            with session.websocket(path, headers=headers) as channel:
                channel.say(each.send)
                if not any(_is_it(channel.hear(), each) for _ in range(_MESSAGES)):
                    yield f"{each.path}: other messages"

    yield Probe(
        name="authentication.websocket-refused",
        ask=expecting("every WebSocket is refused", refused),
        what="Opens each WebSocket without a key, and with a wrong one, and sends a "
        "message where it opens.",
        why="For most middleware, a WebSocket is no request: what guards the routes "
        "does not guard it by itself.",
        remedy="Check the key before the WebSocket is accepted, and answer the "
        "handshake with 401 or 403, or close it with 1008 before anything is said.",
    )
    yield Probe(
        name="authentication.websocket",
        ask=expecting("the message expected", delivered),
        what="Opens each WebSocket with its key, sends a message, and waits for the "
        "answer.",
        why="A proxy that does not pass the upgrade on breaks WebSockets alone.",
        remedy="See whether the proxy passes `Upgrade` and `Connection` on, and "
        "whether the service answers the message in the configuration.",
    )


def _carried(settings: WebSocketSettings, credential: Headers) -> tuple[str, Headers]:
    """Return the path and the headers that carry a credential."""
    if not settings.parameter or not credential:
        return settings.path, credential
    (value,) = credential.values()
    token = value.rpartition(" ")[2]
    return with_parameters(settings.path, {settings.parameter: token}), {}


def _is_it(message: object, settings: WebSocketSettings) -> bool:
    return isinstance(message, dict) and all(
        message.get(name) == each for name, each in settings.expect.items()
    )


def _let_in(channel: WebSocket, settings: WebSocketSettings) -> str:
    """Return how a WebSocket without a right key was let in; empty if it was not."""
    if channel.status != SWITCHED:
        return "" if channel.status in _FORBIDDEN else f"status {channel.status}"
    channel.say(settings.send)
    try:
        channel.hear()
    except WrongAnswer:
        return "" if channel.code in _CLOSED else "it is open"
    return "it is open, and answers"
