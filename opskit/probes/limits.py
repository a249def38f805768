"""Limits: what is too large, too much, too slow or too long is refused, not endured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from opskit.checks import Check
from opskit.config.smoke import Profile, SmokeSettings
from opskit.probes.pieces import Pieces
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.refusals import described, insist
from opskit.probes.session import BALANCERS, Answer, Session, Target

_JSON = {"Content-Type": "application/json"}
_CHUNK_BYTES = 16 * 1024
_DRIP_SECONDS = 0.25
# A body that is announced, and does not come.
_SOME = {"Content-Length": "1000"}
# A worker that waits for a slow client may give it up, and be free again, later.
_PROMPT_SECONDS = 2.5
_OTHERS = 3
# In a row: a balancer refuses some requests, whatever the service does.
_REFUSALS = 5
_TOO_LARGE, _TOO_SLOW = 413, 408
_TOO_MANY, _UNAVAILABLE = 429, 503
_SHED = (_TOO_MANY, _UNAVAILABLE)
_GIVEN_UP = (503, 504)
_BUSY = (429, 503, 504)


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield the probes of the family."""
    wanted, limits = settings.limits, _Limits(settings)
    if wanted.body_path and wanted.body_max:
        yield from _bodies(limits)
    if wanted.slow_clients:
        yield Probe(
            name="limits.slow-clients",
            ask=limits.slow_clients,
            what=f"It opens {wanted.slow_clients} connections on which headers or a "
            "body arrive byte by byte, and checks that others are answered meanwhile.",
            why="A few slow clients, on purpose or on bad networks, otherwise hold "
            "every worker, and nobody else gets an answer.",
            remedy="Let a server that waits for many clients at once read the requests "
            "(uvicorn, or nginx with proxy_request_buffering on before gunicorn's sync "
            "workers).",
            alone=True,
        )
    if wanted.body_path and wanted.body_time:
        yield Probe(
            name="limits.slow-body",
            ask=limits.slow_body,
            what="It sends a body byte by byte, and checks that it is refused with 408 "
            f"within {wanted.body_time.total_seconds():g} s.",
            why="Requests that never end add up until no connection is left.",
            remedy="Bound the time in which a body must arrive as a whole, and answer "
            "408 after it; a limit for each read alone does not help.",
            profile=Profile.STRICT,
            alone=True,
        )
    if wanted.busy_path and wanted.busy_clients:
        yield Probe(
            name="limits.concurrency",
            ask=limits.concurrency,
            what=f"It sends {wanted.busy_clients} requests at once that take some "
            "seconds, and checks that the surplus gets 503 or 429 with Retry-After, "
            "that each one is answered, and that at least half as many are served when "
            "they are all sent again.",
            why="A service that queues whatever comes answers nobody in time once it "
            "is behind; one that refuses the surplus serves the rest.",
            remedy="Count the requests that are worked on, and refuse those beyond the "
            "limit at once: 503, Retry-After, and the usual form of errors. Count down "
            "in `finally`, also where a request is refused or given up.",
            profile=Profile.STRICT,
            alone=True,
        )
    if wanted.timeout_path:
        yield Probe(
            name="limits.time-out",
            ask=limits.time_out,
            what="It asks for what takes longer than the service allows, and checks "
            "that the answer is 503 or 504 in the usual form of errors.",
            why="Work without a time limit piles up behind a slow database, and a "
            "connection that is closed without an answer tells a client nothing.",
            remedy="Bound the time of each request (asyncio.timeout in a middleware), "
            "and answer 504 when it is over.",
            profile=Profile.STRICT,
            alone=True,
        )


def _bodies(limits: _Limits) -> Iterator[Probe]:
    sizes: Mapping[str, tuple[Callable[[Session], Check], str]] = {
        "announced": (
            limits.announced,
            "announces a body of one byte more than the limit and sends none of it",
        ),
        "chunked": (
            limits.chunked,
            "sends a body of unknown length (chunked), one byte more than the limit "
            "and no end of it",
        ),
    }
    for name, (ask, what) in sizes.items():
        yield Probe(
            name=f"limits.body-{name}",
            ask=ask,
            what=f"It {what}, and checks that the answer is 413 all the same.",
            why="A body that is first read and then refused has already taken the "
            "memory or the disk.",
            remedy="Compare Content-Length with the limit before anything is read, and "
            "count the bytes of bodies without one as they arrive.",
            alone=True,
        )


class _Limits:
    def __init__(self, settings: SmokeSettings) -> None:
        self._settings, self._wanted = settings, settings.limits
        self._fields = settings.error_fields
        self._seconds = settings.timeout.total_seconds()

    def announced(self, session: Session) -> Check:
        """Announce too much, and send nothing."""

        def ask() -> Answer:
            length = str(self._wanted.body_max + 1)
            with self._post(session) as request:
                request.head(_JSON | {"Content-Length": length})
                return request.answer(self._seconds)

        return self._refused(insist(session, self._settings, ask), _TOO_LARGE)

    def chunked(self, session: Session) -> Check:
        """Send too much in chunks, and no end."""

        def ask() -> Answer:
            left = self._wanted.body_max + 1
            with self._post(session) as request:
                request.head(_JSON | {"Transfer-Encoding": "chunked"})
                while left and not request.is_answered(0):
                    size = min(left, _CHUNK_BYTES)
                    request.send(f"{size:x}\r\n".encode() + b" " * size + b"\r\n")
                    left -= size
                return request.answer(self._seconds)

        return self._refused(insist(session, self._settings, ask), _TOO_LARGE)

    def slow_clients(self, session: Session) -> Check:
        """Ask on new connections while slow ones are open."""
        seconds = min(self._seconds, _PROMPT_SECONDS)
        prompt = replace(session.target, timeout_seconds=seconds)
        silence = ""
        with ExitStack() as stack:
            slow = [
                self._slow(session, stack, each)
                for each in range(self._wanted.slow_clients)
            ]
            for _ in range(_OTHERS):
                for request in slow:
                    with suppress(Inconclusive):  # it was refused, which is as good
                        request.send(b"x")
                if silence := self._silence(prompt):
                    break
        if not silence:
            return Check(name="", passed=True, observed="others were answered")
        if others := self._silence(session.target):
            raise Inconclusive(others)
        raise WrongAnswer(
            expected="others are answered while clients are slow",
            observed=f"{silence}, before {len(slow)} slow clients had gone",
        )

    def _silence(self, target: Target) -> str:
        """Return why nobody is answered: it took too long, or was refused each time."""
        silence = ""
        for _ in range(_REFUSALS):
            began = time.monotonic()
            try:
                with Session(target) as other:
                    other.get(self._settings.version.path)
                return ""
            except Inconclusive as error:
                silence = str(error)
            if time.monotonic() - began >= target.timeout_seconds:
                break
        return silence

    def slow_body(self, session: Session) -> Check:
        """Send a body byte by byte."""

        def ask() -> Answer:
            end = time.monotonic() + self._wanted.body_time.total_seconds()
            with self._post(session) as request:
                request.head(_JSON | _SOME)
                while time.monotonic() < end and not request.is_answered(_DRIP_SECONDS):
                    request.send(b"x")
                return request.answer(_DRIP_SECONDS)

        return self._refused(insist(session, self._settings, ask), _TOO_SLOW)

    def concurrency(self, session: Session) -> Check:
        """Send too many requests at once."""
        number = self._wanted.busy_clients
        answers = self._at_once(session, number)
        shed = [each for each in answers if each.status in _SHED]
        others = [each for each in answers if each.status not in _SHED]
        wrong = {described(each, self._fields) for each in answers}
        wrong -= {str(each) for each in (*_SHED, 200, 504)}
        if not all(_wait(each) for each in shed):
            wrong.add("a refusal without a usable Retry-After")
        if len(answers) < number:
            wrong.add(f"no answer to {number - len(answers)}")
        if not shed:
            wrong.add("none refused")
        if not others:
            wrong.add("all refused")
        path = self._settings.version.path
        if (status := session.get(path, own=BALANCERS).status) >= 500:
            wrong.add(f"{status} afterwards")
        if not wrong and (lost := self._lost(session, answers)):
            wrong.add(lost)
        return faultless(
            f"some of {number} at once are refused, the others served", sorted(wrong)
        )

    def _lost(self, session: Session, answers: Sequence[Answer]) -> str:
        """Send as many again, and return what is wrong if far fewer are served."""
        number = self._wanted.busy_clients
        first, again = (
            Counter(each.status for each in several)
            for several in (answers, self._at_once(session, number))
        )
        # The surplus gets 503: 429 is a rate limit that the first ones used up.
        if again[_TOO_MANY] and first[_UNAVAILABLE]:
            return ""
        served, now = (
            each.total() - sum(each[status] for status in _BUSY)
            for each in (first, again)
        )
        if 2 * now >= served:
            return ""
        return f"{now} served the second time, {served} the first time"

    def time_out(self, session: Session) -> Check:
        """Ask for what takes too long."""

        def ask() -> Answer:
            path, key = self._wanted.timeout_path, self._wanted.key
            with Pieces(session, "GET", path, key=key) as request:
                request.head()
                seconds = self._wanted.timeout.total_seconds()
                return request.answer(seconds, own=_GIVEN_UP)

        return self._refused(insist(session, self._settings, ask), *_GIVEN_UP)

    def _post(self, session: Session) -> Pieces:
        path, key = self._wanted.body_path, self._wanted.key
        return Pieces(session, "POST", path, key=key)

    def _slow(self, session: Session, stack: ExitStack, number: int) -> Pieces:
        """Return a request whose headers, or body, are not all sent."""
        if number % 2 and self._wanted.body_path:
            request = stack.enter_context(self._post(session))
            request.head(_JSON | _SOME)
        else:
            path = self._settings.version.path
            request = stack.enter_context(Pieces(session, "GET", path))
            request.begin()
        return request

    def _at_once(self, session: Session, number: int) -> list[Answer]:
        """Return the answers to that many requests; some may be missing.

        Raises:
            Inconclusive: a connection broke, or an answer is not the service's.
        """
        answers: list[Answer] = []
        path, key = self._wanted.busy_path, self._wanted.key
        with ExitStack() as stack:
            requests = [
                stack.enter_context(Pieces(session, "GET", path, key=key))
                for _ in range(number)
            ]
            for each in requests:
                each.head()
            end = time.monotonic() + self._wanted.timeout.total_seconds()
            for each in requests:
                try:
                    answers.append(each.answer(end - time.monotonic(), own=_BUSY))
                except Inconclusive as error:
                    if not isinstance(error.__cause__, TimeoutError):
                        raise
        return answers

    def _refused(self, answer: Answer, *statuses: int) -> Check:
        observed = described(answer, self._fields)
        expected = [str(each) for each in statuses]
        return Check(
            name="",
            passed=observed in expected,
            expected=f"a clean {' or '.join(expected)}",
            observed=observed,
        )


def _wait(answer: Answer) -> int:
    """Return the seconds of Retry-After; 0 if there are none."""
    value = answer.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() else 0
