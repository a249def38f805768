"""Rate limit: a burst is refused, counted, harms nobody else, and is soon forgiven."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import pairwise

from opskit.checks import Check, compare, not_checked
from opskit.config.smoke import Profile, SmokeSettings
from opskit.log import mask
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.refusals import fault
from opskit.probes.session import Answer, Session

_MORE = 5
# Several, so that processes which each count for themselves are noticed.
_CONNECTIONS = 8
_REFUSED = 429
# Times are whole seconds, rounded up or down; servers keep their Date for some.
_TOLERANCE_SECONDS = 5
_LATE_SECONDS = 2
_EPOCH = 1_000_000_000


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield the probes of the family."""
    wanted = settings.rate_limit
    if not (wanted.path and wanted.limit):
        return
    burst = _Burst(settings)
    yield Probe(
        name="rate_limit.burst",
        ask=burst.counts,
        what=f"It sends {wanted.limit + _MORE} requests of one key within a window, "
        "and checks that those beyond the limit are 429 with a usable Retry-After, and "
        "that Limit, Remaining and Reset add up on every answer.",
        why="Without a limit one client, or a stolen key, can take the whole service. "
        "Clients that are not told when to come back come back at once.",
        remedy="Count requests by key where all processes see the count (Redis), "
        "answer 429 beyond the limit, and give Retry-After in whole seconds, at least "
        "1, with X-RateLimit-Limit, -Remaining and -Reset on every answer.",
        alone=True,
    )
    if wanted.other_key:
        yield Probe(
            name="rate_limit.other-keys",
            ask=burst.others,
            what="It uses up the limit of one key, and asks with another one.",
            why="A limit by address or for all together lets one client lock out the "
            "others.",
            remedy="Count by key or account; by address only where there is no key.",
            alone=True,
        )
    too_long = wanted.window > settings.deadline
    yield Probe(
        name="rate_limit.restored",
        ask=burst.not_asked if too_long else burst.restored,
        what="It uses up the limit of one key, waits as long as Retry-After says, and "
        "asks again.",
        why="A client that is still refused after the time that it was told can only "
        "guess, and one whose refused requests count against it may never come back.",
        remedy="Let the window end on its own: do not count refused requests against "
        "the next one, and take Retry-After from the same clock as the window.",
        profile=Profile.STRICT,
        advisory=too_long,
        alone=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Count:
    """What one answer says of the limit."""

    refused: bool
    remaining: int

    def follows(self, before: _Count) -> bool:
        """Whether it comes right after another one in the same window."""
        if self.refused:
            return self.remaining == before.remaining == 0
        return self.remaining == before.remaining - 1


class _Burst:
    """Sends bursts of one key, and reads what the answers say of the limit."""

    def __init__(self, settings: SmokeSettings) -> None:
        self._wanted, self._fields = settings.rate_limit, settings.error_fields
        self._window = settings.rate_limit.window.total_seconds()
        self._wait_max = settings.deadline.total_seconds()
        self._number = settings.rate_limit.limit + _MORE

    def counts(self, session: Session) -> Check:
        """Send the burst, and check what its answers say."""
        counts = self._burst(session)
        expected = f"{self._wanted.limit} requests in a window, then 429"
        served = sum(not each.refused for each in counts)
        if served == self._number:
            raise WrongAnswer(expected=expected, observed=f"{served} answers, no 429")
        for before, after in pairwise(counts):
            if not after.follows(before):
                raise WrongAnswer(
                    expected="Remaining falls by one, and is 0 before the first 429",
                    observed=f"{after.remaining} after {before.remaining}"
                    + (" with 429" if after.refused else ""),
                )
        return Check(
            name="",
            passed=True,
            expected=expected,
            observed=f"{served} answers, then {self._number - served} times 429",
        )

    def others(self, session: Session) -> Check:
        """Ask with another key while the first one is refused."""
        for _ in range(2):
            self._exhaust(session)
            other = self._get(session, self._wanted.other_key)
            # Else the window ended between the two, and nothing was shown.
            if self._get(session, self._wanted.key).status == _REFUSED:
                is_served = other.status != _REFUSED
                return compare("", "not 429", "not 429" if is_served else "429")
        raise Inconclusive("the window ended twice while the other key asked")

    def restored(self, session: Session) -> Check:
        """Ask again after Retry-After."""
        seconds = self._exhaust(session)
        status = self._asked_after(session, seconds).status
        return Check(
            name="",
            passed=status != _REFUSED,
            expected="served after Retry-After",
            observed=f"{status} after {seconds} s",
        )

    def not_asked(self, _session: Session) -> Check:
        """Say why nothing is asked."""
        window, wait_max = f"{self._window:g} s", f"{self._wait_max:g} s"
        return not_checked(
            "", f"the window of {window} is longer than the deadline of {wait_max}"
        )

    def _burst(self, session: Session) -> list[_Count]:
        """Return what the answers to a burst say that no end of a window divided.

        Raises:
            WrongAnswer: a header is missing or impossible, or more windows ended than
                there can be.
            Inconclusive: the burst takes longer than a window.
        """
        counts: list[_Count] = []
        began, ended, waited = time.monotonic(), 0, False
        with ExitStack() as stack:
            sessions = [session] + [
                stack.enter_context(Session(session.target))
                for _ in range(_CONNECTIONS - 1)
            ]
            for number in range(3 * self._number):
                answer = self._get(sessions[number % _CONNECTIONS], self._wanted.key)
                count = self._read(answer)
                if not counts and count.refused:
                    # Used up by an earlier attempt.
                    if waited:
                        raise WrongAnswer(
                            expected="served after Retry-After", observed="429"
                        )
                    self._asked_after(session, self._retry_after(answer))
                    began, waited = time.monotonic(), True
                    continue
                if counts and _is_new_window(counts[-1], count):
                    ended += 1
                    if ended > (time.monotonic() - began) // self._window + 1:
                        raise WrongAnswer(
                            expected="Remaining falls by one with each request",
                            observed=f"{count.remaining} after {counts[-1].remaining}, "
                            "more than once in a window",
                        )
                    counts = []
                counts.append(count)
                if len(counts) == self._number:
                    return counts
        raise Inconclusive("the window ended twice during the burst")

    def _exhaust(self, session: Session) -> int:
        """Send requests until one is refused; return its Retry-After."""
        # The window may end meanwhile, once.
        for _ in range(2 * self._number):
            answer = self._get(session, self._wanted.key)
            if answer.status == _REFUSED:
                return self._retry_after(answer)
        raise WrongAnswer(
            expected=f"429 beyond {self._wanted.limit} requests",
            observed=f"{2 * self._number} answers and no 429",
        )

    def _asked_after(self, session: Session, seconds: int) -> Answer:
        """Return the first answer other than 429 after so many seconds, or the last."""
        if seconds > self._wait_max:
            raise Inconclusive(f"Retry-After of {seconds} s is beyond the deadline")
        time.sleep(seconds)
        end = time.monotonic() + _LATE_SECONDS
        while True:
            answer = self._get(session, self._wanted.key)
            if answer.status != _REFUSED or time.monotonic() > end:
                return answer
            time.sleep(0.5)

    def _get(self, session: Session, key: str) -> Answer:
        answer = session.get(self._wanted.path, key=key, own=(_REFUSED,))
        if answer.status != _REFUSED and answer.status not in range(200, 300):
            raise WrongAnswer(
                expected="200, or 429 beyond the limit", observed=str(answer.status)
            )
        return answer

    def _read(self, answer: Answer) -> _Count:
        limit = self._header(answer, "Limit")
        remaining = self._header(answer, "Remaining")
        reset = self._header(answer, "Reset")
        if limit != self._wanted.limit:
            raise WrongAnswer(
                expected=f"a limit of {self._wanted.limit}", observed=str(limit)
            )
        left = reset - _date(answer) if reset > _EPOCH else reset
        if not -_TOLERANCE_SECONDS <= left <= self._window + _TOLERANCE_SECONDS:
            raise WrongAnswer(
                expected=f"Reset within the {self._window:g} s of a window",
                observed=f"{left:.0f} s from now",
            )
        refused = answer.status == _REFUSED
        if refused:
            self._retry_after(answer)
            if wrong := fault(answer, self._fields):
                raise WrongAnswer(expected="a clean 429", observed=f"429 that {wrong}")
        return _Count(refused=refused, remaining=remaining)

    def _header(self, answer: Answer, name: str) -> int:
        name = self._wanted.prefix + name
        value = answer.headers.get(name, "")
        if not re.fullmatch(r"\d{1,12}", value, re.ASCII):
            raise WrongAnswer(
                expected=f"{name} is a whole number on every answer",
                observed=f"{answer.status} with {mask(value)[:40] or 'none'}",
            )
        return int(value)

    def _retry_after(self, answer: Answer) -> int:
        value = answer.headers.get("Retry-After", "")
        seconds = 0
        if re.fullmatch(r"\d{1,12}", value, re.ASCII):
            seconds = int(value)
        else:
            with suppress(ValueError, TypeError):
                seconds = int(parsedate_to_datetime(value).timestamp() - _date(answer))
        if not 1 <= seconds <= self._window + _TOLERANCE_SECONDS:
            raise WrongAnswer(
                expected=f"Retry-After of 1 to {self._window:g} s with 429",
                observed=mask(value)[:40] or "none",
            )
        return seconds


def _date(answer: Answer) -> float:
    """Return the time of the service, or ours if it does not tell."""
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    return time.time()


def _is_new_window(before: _Count, after: _Count) -> bool:
    return not after.refused and (before.refused or after.remaining >= before.remaining)
