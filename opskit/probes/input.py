"""Input: what is malformed is refused cleanly, and shows nothing of the inside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.probes import openapi
from opskit.probes.malformed import FRAMES, MARK, MESSAGES, Body, bodies
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.refusals import described, has, insist
from opskit.probes.session import Session

# Not 401, 403 or 405: then nobody looked at what was malformed.
_BODY_REFUSED = (400, 413, 415, 422)
_URL_REFUSED = (400, 404, 414, 422)
# Of the WebSocket protocol: what a client did wrong, and not the server's own failure.
_CLOSED_FOR = (1002, 1003, 1007, 1008, 1009)
_LOST = 1006
_SILENCE = "no answer"
_HEARING_SECONDS = 5.0
_Send = Callable[[ClientConnection], None]
_WHATS = {
    "malformed-json": "bodies that are no JSON, or JSON with the same key twice",
    "wrong-types": "bodies whose JSON has other types than the route takes",
    "huge-numbers": "numbers such as 1e400, 10^5000 and NaN",
    "deep-nesting": "JSON that is nested 10,000 levels deep",
    "bad-encoding": "texts that are no UTF-8, and texts with NUL characters",
    "content-type": "a right body under a content type that is not JSON's",
    "long-text": "a text that is longer than the field may be",
}
_WHY = (
    "An exception that nobody foresaw becomes 500, wakes somebody up, and often shows "
    "a trace with paths, versions or queries to whoever sent it."
)
_REMEDY = (
    "Parse and validate at the edge, catch every error of the parser (RecursionError "
    "and ValueError too), and answer 400, 413, 415 or 422 in one form that neither "
    "repeats what was sent nor shows the exception."
)
# What no service has: asked where nothing is configured.
_STRANGE = (
    "/opskit-smoke-%00",
    "/opskit-smoke-%ff%fe",
    "/opskit-smoke-%e2%82?limit=%00&limit=%ff",
    "/opskit-smoke-" + 4000 * "x",
)


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield the probes of the family."""
    wanted, input_ = settings.input, _Input(settings)
    if wanted.path:
        for name, several in bodies(wanted.field, wanted.text_max).items():
            yield _probe(name, partial(input_.refuses, several), _WHATS[name])
    if wanted.invalid:
        yield _probe("invalid-urls", input_.invalid, "what `invalid` names")
    yield _probe("strange-urls", input_.strange, "paths that are no UTF-8 or very long")
    if wanted.websocket.path:
        yield _probe(
            "websocket-frames",
            input_.frames,
            "frames that the WebSocket protocol forbids",
        )
        yield _probe(
            "websocket-messages",
            input_.messages,
            "WebSocket messages that are no JSON or mean nothing",
        )
    if wanted.openapi.path:
        yield openapi.probe(settings)


def _probe(name: str, ask: Callable[[Session], Check], what: str) -> Probe:
    return Probe(
        name=f"input.{name}",
        ask=ask,
        what=f"It sends {what}, and checks that each is refused as the client's "
        "mistake, in a clean answer, and that the service lives on.",
        why=_WHY,
        remedy=_REMEDY,
    )


class _Input:
    def __init__(self, settings: SmokeSettings) -> None:
        self._settings, self._wanted = settings, settings.input
        self._seconds = settings.timeout.total_seconds()

    def refuses(self, several: Iterable[Body], session: Session) -> Check:
        """Send each body; the answer must not repeat it."""
        wrong = []
        for body in several:
            answer = insist(
                session,
                self._settings,
                partial(
                    session.request,
                    "POST",
                    self._wanted.path,
                    key=self._wanted.key,
                    headers={"Content-Type": body.kind},
                    body=body.content,
                ),
            )
            observed = described(answer, self._settings.error_fields)
            if MARK.encode() in answer.body and answer.status >= 400:
                observed = f"{answer.status} that repeats the body"
            if observed not in map(str, _BODY_REFUSED):
                wrong.append(f"{body.name}: {observed}")
        return faultless("each is 400, 413, 415 or 422", wrong)

    def invalid(self, session: Session) -> Check:
        """Ask with each query or id that is invalid."""
        wrong = []
        for path in self._wanted.invalid:
            observed = self._observed(session, path, self._wanted.key)
            if observed not in map(str, _URL_REFUSED):
                wrong.append(f"{path[:60]}: {observed}")
        return faultless("each is 400, 404, 414 or 422", wrong)

    def strange(self, session: Session) -> Check:
        """Ask for paths that nobody has."""
        wrong = []
        for path in _STRANGE:
            observed = self._observed(session, path, "")
            if not (observed.isdigit() and int(observed) < 500):
                wrong.append(f"{path[:60]}: {observed}")
        return faultless("each is below 500", wrong)

    def frames(self, session: Session) -> Check:
        """Send frames that are forbidden; to be cut off is an answer to them."""
        sends = {
            name: partial(_send_raw, frame=frame) for name, frame in FRAMES.items()
        }
        return self._react(session, sends, (*_CLOSED_FOR, _LOST))

    def messages(self, session: Session) -> Check:
        """Send messages that mean nothing."""
        sends = {
            name: partial(ClientConnection.send, message=message)
            for name, message in MESSAGES.items()
        }
        return self._react(session, sends, _CLOSED_FOR)

    def _react(
        self, session: Session, sends: Mapping[str, _Send], closes: Collection[int]
    ) -> Check:
        """Send each on a WebSocket of its own, and see that another one still works."""
        wrong = []
        for name, send in sends.items():
            ask = partial(self._reaction, session, send, closes)
            if reaction := insist(session, self._settings, ask):
                wrong.append(f"{name}: {reaction}")
            if reaction == _SILENCE:
                break  # it would be waited for once for each
        wanted = self._wanted.websocket
        with self._opened(session) as connection:
            if reaction := self._answered(connection, wanted.ping, wanted.pong):
                wrong.append(f"a ping afterwards: {reaction}")
        return faultless("an error each, or a close for it", wrong)

    def _reaction(self, session: Session, send: _Send, closes: Collection[int]) -> str:
        """Return what was wrong with the answer to what was sent; empty if nothing."""
        with self._opened(session) as connection:
            try:
                send(connection)
                is_told = self._hears(connection, self._wanted.websocket.error)
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else _LOST
                if code in closes:
                    return ""
                if code == _LOST:
                    raise Inconclusive("the WebSocket broke") from error
                return f"closed with code {code}"
            except OSError as error:
                raise Inconclusive("the WebSocket broke") from error
        return "" if is_told else _SILENCE

    @contextmanager
    def _opened(self, session: Session) -> Iterator[ClientConnection]:
        wanted = self._wanted.websocket
        with session.websocket(wanted.path, key=wanted.key) as socket:
            if socket.connection is None:
                raise WrongAnswer(expected="a WebSocket", observed=str(socket.status))
            yield socket.connection

    def _answered(
        self,
        connection: ClientConnection,
        sent: Mapping[str, object],
        expected: Mapping[str, object],
    ) -> str:
        """Return what was wrong with the answer to a message; empty if nothing."""
        try:
            connection.send(json.dumps(sent))
            return "" if self._hears(connection, expected) else _SILENCE
        except ConnectionClosed as error:
            if error.rcvd is None:
                raise Inconclusive("the WebSocket broke") from error
            return f"closed with code {error.rcvd.code}"

    def _hears(
        self, connection: ClientConnection, fields: Mapping[str, object]
    ) -> bool:
        """Whether a message with these fields comes, among others, before long."""
        end = time.monotonic() + min(_HEARING_SECONDS, self._seconds)
        while (left := end - time.monotonic()) > 0:
            try:
                document = json.loads(connection.recv(timeout=left))
            except TimeoutError:
                break
            except (ValueError, RecursionError):
                continue
            if has(document, fields):
                return True
        return False

    def _observed(self, session: Session, path: str, key: str) -> str:
        ask = partial(session.get, path, key=key, identified=False)
        answer = insist(session, self._settings, ask)
        identity = session.target.identity
        if (
            identity
            and identity not in answer.headers
            and answer.status in _URL_REFUSED
        ):
            return str(answer.status)  # a proxy has refused it, which is as good
        session.require_own(f"GET {path[:60]}", answer.status, answer.headers)
        return described(answer, self._settings.error_fields)


def _send_raw(connection: ClientConnection, frame: bytes) -> None:
    connection.socket.sendall(frame)
