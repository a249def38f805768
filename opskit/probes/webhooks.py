"""Webhooks: those sent are signed, those taken are checked and processed once."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from opskit import files
from opskit.checks import Check
from opskit.config.smoke import SmokeSettings
from opskit.probes.listener import Delivery, Listener, listening
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.refusals import described, has
from opskit.probes.session import Answer, Session
from opskit.probes.signatures import Scheme, scheme
from opskit.threads import together

_JSON = {"Content-Type": "application/json"}
_ACCEPTED, _DUPLICATE = "accepted", "duplicate"
_UNSIGNED = (400, 401, 403)
_MALFORMED = (400, 415, 422)
_CONFLICT = (400, 409, 422)
_AT_ONCE = 5
_SKEW_SECONDS = 60
# A second delivery follows the first one at once, if at all.
_AGAIN_SECONDS = 1.0
# Services may forget what they processed after some days.
_RECORD_SECONDS_MAX = 24 * 3600
_SIGNATURE_REMEDY = (
    "Compute the HMAC over the raw bytes, compare it with hmac.compare_digest before "
    "the body is parsed, and refuse timestamps over five minutes from now with 401."
)
_ONCE_REMEDY = (
    "Insert the id into a table with a unique index in the same transaction as the "
    "work, with a digest of the body and the signature; answer as to a duplicate if "
    "the row exists, and 409 if its body is another one."
)


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield the probes of the family."""
    wanted = settings.webhooks
    if wanted.outgoing.path:
        yield _probe(
            "outgoing",
            _Outgoing(settings).delivers,
            "It does the configured action, takes the delivery on an address of its "
            "own, and checks the signature over the raw body, the timestamp, the id, "
            "and the id of the request that caused it.",
            "Receivers can only trust what is signed, and only discard an old "
            "recording if the time is signed too.",
            "Sign `timestamp.body` over the bytes that are sent, with the time of "
            "sending in whole seconds, and pass X-Request-ID on.",
        )
    if wanted.incoming.path:
        yield from _incoming(_Incoming(settings))


def _incoming(incoming: _Incoming) -> Iterator[Probe]:
    yield _probe(
        "incoming-signature",
        incoming.signature,
        "It sends deliveries whose signature is missing, wrong, cut short, of other "
        "bytes, too old or of the future, and a right one.",
        "Whoever knows the address could otherwise make the service do anything that "
        "a webhook causes, or send a recorded one again.",
        _SIGNATURE_REMEDY,
    )
    yield _probe(
        "incoming-malformed",
        incoming.malformed,
        "It sends rightly signed deliveries that are no JSON, or of the type that "
        "`unknown` names.",
        "A sender repeats what gets 500 again and again.",
        "Answer 400 to what is no JSON and 422 to an event that is not handled.",
    )
    yield _probe(
        "incoming-replayed",
        incoming.replayed,
        "It sends the signature of a delivery again under another id, and its id "
        "again with the body that `other` names.",
        "An id that is not signed can be changed: the same event would be processed "
        "as often as somebody sends its recording.",
        _ONCE_REMEDY,
    )
    yield _probe(
        "incoming-duplicate",
        incoming.duplicate,
        f"It sends one delivery {_AT_ONCE} times at once and once more, and that of "
        "the run before, also across a restart; each must be processed once.",
        "Senders repeat what was not answered in time, and a restart in between must "
        "not make the service do it twice.",
        _ONCE_REMEDY,
    )


def _probe(
    name: str, ask: Callable[[Session], Check], what: str, why: str, remedy: str
) -> Probe:
    return Probe(
        name=f"webhooks.{name}",
        ask=ask,
        what=what,
        why=why,
        remedy=remedy,
    )


class _Outgoing:
    def __init__(self, settings: SmokeSettings) -> None:
        self._wanted = settings.webhooks.outgoing
        self._scheme = scheme("smoke.webhooks.outgoing", self._wanted)

    def delivers(self, session: Session) -> Check:
        """Cause a delivery, and check it."""
        wanted, request_id = self._wanted, f"opskit-{secrets.token_hex(8)}"
        with listening(wanted.listen) as listener:
            answer = session.request(
                "POST",
                wanted.path,
                key=wanted.key,
                headers={wanted.request_id: request_id} if wanted.request_id else {},
                document=wanted.document,
            )
            if answer.status not in range(200, 300):
                raise WrongAnswer(expected="200 or 201", observed=str(answer.status))
            began = time.monotonic()
            request_id = answer.headers.get(wanted.request_id, request_id)
            delivery = self._ours(listener, request_id)
            seconds = time.monotonic() - began
            wrong = self._scheme.fault(
                delivery.headers, delivery.body, now=delivery.time
            )
            if not wrong and self._comes_again(listener, delivery):
                wrong = "a second one under another id"
        return Check(
            name="",
            passed=not wrong,
            expected="one delivery, rightly signed",
            observed=wrong or f"one after {seconds:.1f} s",
        )

    def _ours(self, listener: Listener, request_id: str) -> Delivery:
        wanted, others = self._wanted, 0
        seconds = wanted.wait.total_seconds()
        for delivery in listener.until(time.monotonic() + seconds):
            if not wanted.request_id or self._cause(delivery) == request_id:
                return delivery
            others += 1
        raise WrongAnswer(
            expected=f"a delivery in {seconds:g} s"
            + (f" with {wanted.request_id} of the action" if wanted.request_id else ""),
            observed=f"{others} without it" if others else "none",
        )

    def _comes_again(self, listener: Listener, first: Delivery) -> bool:
        name = self._wanted.id_header
        return any(
            self._cause(each) == self._cause(first)
            and each.headers.get(name) != first.headers.get(name)
            for each in listener.until(time.monotonic() + _AGAIN_SECONDS)
        )

    def _cause(self, delivery: Delivery) -> str:
        name = self._wanted.request_id
        return delivery.headers.get(name, "") if name else ""


class _Incoming:
    def __init__(self, settings: SmokeSettings) -> None:
        self._settings, self._wanted = settings, settings.webhooks.incoming
        self._scheme = scheme("smoke.webhooks.incoming", self._wanted)
        # What was processed again is a duplicate from then on: it must not pass later.
        self._lost, self._doubts = "", 0

    def signature(self, session: Session) -> Check:
        """Send forged deliveries under one id, and then a right one."""
        id = _new_id()
        wrong = []
        for name, (headers, body) in self._forged(id).items():
            observed = self._observed(self._send(session, headers, body))
            if observed not in map(str, _UNSIGNED):
                wrong.append(f"{name}: {observed}")
        observed = self._observed(self._deliver(session, id))
        if observed != _ACCEPTED:
            wrong.append(f"a right one: {observed}")
        return faultless("forged ones are 401, the right one is accepted", wrong)

    def _forged(self, id: str) -> Mapping[str, tuple[dict[str, str], bytes]]:
        body, name = self._body(id), self._wanted.header
        right = self._headers(id, body)
        other = replace(self._scheme, secret=self._scheme.secret + b"x")
        spaced = b" " + body
        far = int(self._wanted.tolerance.total_seconds()) + _SKEW_SECONDS
        forged = {
            "no signature": ({k: v for k, v in right.items() if k != name}, body),
            "an empty signature": (right | {name: ""}, body),
            "a signature cut short": (right | {name: right[name][:-8]}, body),
            "another secret": (self._headers(id, body, signer=other), body),
            "other bytes": (right, spaced),
        }
        if "{timestamp}" in self._wanted.signed:
            forged["an old one"] = (self._headers(id, body, ahead=-far), body)
            forged["one of the future"] = (self._headers(id, body, ahead=far), body)
        return forged

    def malformed(self, session: Session) -> Check:
        """Send signed bodies that mean nothing."""
        several = {"no JSON": b'{"type":', "no UTF-8": b'{"type": "\xff"}'}
        if self._wanted.unknown:
            several["an unknown type"] = json.dumps(self._wanted.unknown).encode()
        wrong = []
        for name, body in several.items():
            observed = self._observed(self._deliver(session, _new_id(), body))
            if observed not in map(str, _MALFORMED):
                wrong.append(f"{name}: {observed}")
        return faultless("each is 400 or 422", wrong)

    def replayed(self, session: Session) -> Check:
        """Send a recorded signature under another id, and an id with another body."""
        id = _new_id()
        body = self._body(id)
        headers = self._headers(id, body)
        first = self._observed(self._send(session, headers, body))
        if first != _ACCEPTED:
            raise WrongAnswer(expected=_ACCEPTED, observed=first)
        wrong = []
        again = headers | {self._wanted.id_header: _new_id()}
        observed = self._observed(self._send(session, again, body))
        if observed not in (_DUPLICATE, *map(str, _UNSIGNED + _CONFLICT)):
            wrong.append(f"the signature under another id: {observed}")
        if self._wanted.other:
            other = json.dumps(self._wanted.other).encode()
            observed = self._observed(self._deliver(session, id, other))
            if observed not in map(str, _CONFLICT):
                wrong.append(f"the id with another body: {observed}")
        return faultless("neither is accepted", wrong)

    def duplicate(self, session: Session) -> Check:
        """Send one delivery several times, and the one of the run before once more."""
        self._send_previous(session)
        id = _new_id()

        def deliver() -> str:
            with Session(session.target) as other:
                return self._observed(self._deliver(other, id))

        stop = session.target.stop_if_interrupted
        seen = Counter(together([deliver] * _AT_ONCE, stop=stop))
        wrong = []
        # One that is still being processed may be a conflict.
        once = seen[_ACCEPTED] == 1
        if not once or seen[_ACCEPTED] + seen[_DUPLICATE] + seen["409"] < _AT_ONCE:
            told = ", ".join(f"{n} {what}" for what, n in sorted(seen.items()))
            wrong.append(f"{_AT_ONCE} at once: {told}")
        observed = self._observed(self._deliver(session, id))
        if observed != _DUPLICATE:
            wrong.append(f"once more: {observed}")
        if not wrong:
            self._remember(id)
        return faultless("it is accepted once, then a duplicate", wrong)

    def _send_previous(self, session: Session) -> None:
        """Send the delivery of the run before, if there is one that counts.

        Raises:
            WrongAnswer: it was processed again, now or at an earlier attempt.
        """
        doubts = session.target.doubts.number
        if doubts != self._doubts:  # another version may have processed it
            self._lost, self._doubts = "", doubts
        if not self._lost and (id := self._previous()):
            observed = self._observed(self._deliver(session, id))
            self._lost = "" if observed == _DUPLICATE else observed
        if self._lost:
            raise WrongAnswer(
                expected="a delivery of the run before is a duplicate",
                observed=self._lost,
            )

    def _previous(self) -> str:
        """Return the id of the last delivery of this body; empty if there is none.

        Raises:
            Inconclusive: the record cannot be read.
        """
        if self._wanted.record is None:
            return ""
        try:
            record = json.loads(self._wanted.record.read_bytes())
            age = time.time() - record["time"]
            is_ours = record["digest"] == self._digest()
            return record["id"] if is_ours and age < _RECORD_SECONDS_MAX else ""
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return ""  # the first run, or one of another version, which is replaced
        except OSError as error:
            raise Inconclusive(
                f"{self._wanted.record} cannot be read: {error.strerror}"
            ) from error

    def _remember(self, id: str) -> None:
        if self._wanted.record is not None:
            record = {"id": id, "digest": self._digest(), "time": time.time()}
            files.write_text(self._wanted.record, json.dumps(record))

    def _digest(self) -> str:
        place = f"{self._settings.url}{self._wanted.path}\n".encode()
        return hashlib.sha256(place + self._body("")).hexdigest()

    def _body(self, id: str) -> bytes:
        return json.dumps(self._wanted.document).replace("{id}", id).encode()

    def _headers(
        self,
        id: str,
        body: bytes,
        *,
        ahead: int = 0,
        signer: Scheme | None = None,
    ) -> dict[str, str]:
        at = int(time.time()) + ahead
        return (signer or self._scheme).headers(body, id=id, time=at)

    def _deliver(self, session: Session, id: str, body: bytes = b"") -> Answer:
        body = body or self._body(id)
        return self._send(session, self._headers(id, body), body)

    def _send(
        self, session: Session, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        path = self._wanted.path
        return session.request("POST", path, headers=_JSON | dict(headers), body=body)

    def _observed(self, answer: Answer) -> str:
        """Return in a word what became of a delivery."""
        if answer.status in range(200, 300):
            try:
                document = json.loads(answer.body)
            except (ValueError, RecursionError):
                document = None
            if has(document, self._wanted.duplicate):
                return _DUPLICATE
            if has(document, self._wanted.accepted):
                return _ACCEPTED
        return described(answer, self._settings.error_fields)


def _new_id() -> str:
    return f"opskit-smoke-{secrets.token_hex(12)}"
