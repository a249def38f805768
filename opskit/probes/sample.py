"""Sample: how a number of requests were answered, and what the objectives say of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

from opskit.checks import Check
from opskit.checks import count as counted
from opskit.config.watch import SloSettings, latency_seconds
from opskit.probes.probe import Inconclusive
from opskit.probes.session import Answer, Session

TOO_MANY = 429
# Of all requests: more without an answer, and nothing can be said of the service.
_LOST_MAX = 0.01
T = TypeVar("T")


@dataclass(frozen=True)
class Limit:
    """A percentile of the answers' times, and what it may be at most."""

    percent: int
    seconds: float

    def allowed(self, answers: int) -> int:
        """Return how many of the answers may be slower.

        Then the value at rank ceil(percent / 100 x answers), counted from the fastest,
        is not: the percentile by the nearest rank, which is a time that was measured.
        """
        return answers - math.ceil(answers * self.percent / 100)


def limits(slo: SloSettings) -> list[Limit]:
    """Return the limits of the objectives that are set."""
    texts = {95: slo.latency.p95, 99: slo.latency.p99}
    return [Limit(p, latency_seconds(text)) for p, text in texts.items() if text]


@dataclass
class Sample:
    """What became of the requests of one measurement; threads may add to it.

    `seconds` has the times of answers that are a success, `failed` the statuses of
    errors, `lost` why there was no answer, or none of the service. What a rate limit
    refused says nothing of the service's speed or health.
    """

    planned: int
    seconds: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many requests were sent."""
        return self._answers + len(self.refused) + len(self.lost)

    @property
    def _answers(self) -> int:
        return len(self.seconds) + len(self.failed)

    def ask(self, session: Session, send: Callable[[Session], Answer]) -> None:
        """Send one request and count what became of it."""
        try:
            answer = send(session)
        except Inconclusive as error:
            self.lost.append(str(error))
        else:
            self.add(answer.status, answer.seconds)

    def add(self, status: int, seconds: float) -> None:
        """Count an answer of the service."""
        if status == TOO_MANY:
            self.refused.append(status)
        elif status >= 400:
            self.failed.append(status)
        else:
            self.seconds.append(seconds)

    def percentile(self, percent: int) -> float:
        """Return a time by the nearest rank: infinity where that is an error."""
        times = sorted(self.seconds) + [math.inf] * len(self.failed)
        return times[math.ceil(len(times) * percent / 100) - 1]

    def fast(self, slo: SloSettings) -> Check:
        """Return the check of the percentiles; an error is slower than every limit.

        Raises:
            Inconclusive: it did not fail, and too few answers came to say it passed.
        """
        passed = not self.is_slow(slo)
        if passed:
            self._require(slo)
        return Check(
            name="",
            passed=passed,
            expected=", ".join(
                f"p{each.percent} within {shown(each.seconds)}" for each in limits(slo)
            ),
            observed=self._figures(),
            detail=self._left_out(),
        )

    def reliable(self, slo: SloSettings, error_rate: float) -> Check:
        """Return the check of the share of errors.

        Raises:
            Inconclusive: it did not fail, and too few answers came to say it passed.
        """
        passed = len(self.failed) <= error_rate * (self.planned - self._unusable)
        if passed:
            self._require(slo)
        kinds = ", ".join(str(each) for each in sorted(set(self.failed)))
        named = f" (status {kinds})" if kinds else ""
        return Check(
            name="",
            passed=passed,
            expected=f"errors in at most {100 * error_rate:g} % of the answers",
            observed=f"{counted(len(self.failed), 'error')} in "
            f"{counted(self._answers, 'answer')}{named}",
            detail=self._left_out(),
        )

    @property
    def _unusable(self) -> int:
        return len(self.refused) + len(self.lost)

    def is_slow(self, slo: SloSettings, seconds_min: float = 0.0) -> bool:
        """Return whether a limit is missed, also if each is `seconds_min` at least."""
        return any(self._misses(each, seconds_min) for each in limits(slo))

    def _misses(self, limit: Limit, seconds_min: float) -> bool:
        # What was not asked might all have been fast.
        seconds = max(limit.seconds, seconds_min)
        slower = sum(each > seconds for each in self.seconds) + len(self.failed)
        return slower > limit.allowed(self.planned - self._unusable)

    def is_useless(self, slo: SloSettings) -> bool:
        """Return whether too many were refused or lost to say that it passed."""
        return self._is_refused(slo) or self._is_lost

    def _is_refused(self, slo: SloSettings) -> bool:
        return len(self.refused) > slo.rate_limited * self.planned

    @property
    def _is_lost(self) -> bool:
        return len(self.lost) > _LOST_MAX * self.planned

    def _require(self, slo: SloSettings) -> None:
        if self._is_refused(slo):
            raise Inconclusive(
                f"a rate limit refused {len(self.refused)} of {self.total} requests "
                "(429): name a key with a higher limit, or fewer requests"
            )
        if self._is_lost:
            raise Inconclusive(
                f"{len(self.lost)} of {self.total} requests had no answer of the "
                f"service, the first one: {self.lost[0]}"
            )
        if self.total < self.planned or not self._answers:
            raise Inconclusive(
                f"only {self.total} of {self.planned} requests could be sent in time"
            )

    def _figures(self) -> str:
        if not self._answers:
            return "no answer"
        values = (f"p{each} {shown(self.percentile(each))}" for each in (50, 95, 99))
        return f"{', '.join(values)} of {counted(self._answers, 'answer')}"

    def _left_out(self) -> str:
        amounts = {
            "with an error": len(self.failed),
            "refused by a rate limit": len(self.refused),
            "without an answer of the service": len(self.lost),
        }
        return ", ".join(
            f"{number} {what}" for what, number in amounts.items() if number
        )


class Shared(Generic[T]):
    """Measurements that several probes judge: the first attempts of all, the first."""

    def __init__(self, measure: Callable[[Session], T]) -> None:
        self._measure, self._made = measure, list[T]()

    def judged(self, judge: Callable[[T], Check]) -> Callable[[Session], Check]:
        """Return what a probe asks: a measurement that it has not judged yet."""
        attempts = count()

        def ask(session: Session) -> Check:
            number = next(attempts)
            while len(self._made) <= number:
                self._made.append(self._measure(session))
            return judge(self._made[number])

        return ask


def shown(seconds: float) -> str:
    """Return a time with a unit that keeps it short."""
    if math.isinf(seconds):
        return "an error"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
