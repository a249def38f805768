"""Probe: one question that is asked of a live service, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opskit.checks import Check
from opskit.config.smoke import Profile

if TYPE_CHECKING:
    from opskit.probes.session import Session


class Inconclusive(Exception):
    """There was no answer, or none of the service's own; says why."""


class RateLimited(Inconclusive):
    """A rate limit refused the request: it may be sent again after a pause."""


class WrongAnswer(Exception):
    """An answer of the service that is wrong; ends a probe early."""

    def __init__(self, *, expected: str, observed: str, detail: str = "") -> None:
        super().__init__(observed)
        self.expected, self.observed, self.detail = expected, observed, detail


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One question, its meaning for people, and when it is asked.

    Its name begins with that of its family, before a dot.

    `ask` gets a session of its own for each attempt, and returns a check; it may raise
    WrongAnswer, or Inconclusive. A check that was not made (`checks.not_checked`) says
    why it cannot be, and is not asked for again.

    What is asked `alone` disturbs other probes, or is disturbed by them: it comes after
    them, one at a time. What is `versionless` is asked also of a service that could not
    name its version.
    """

    name: str
    ask: Callable[[Session], Check]
    what: str
    why: str
    remedy: str
    profile: Profile = Profile.STANDARD
    advisory: bool = False
    alone: bool = False
    versionless: bool = False

    @property
    def family(self) -> str:
        """The module that it is of, whose settings it asks by."""
        return self.name.partition(".")[0]


def faultless(expected: str, faults: Iterable[str]) -> Check:
    """Return a check that passes exactly when there are no faults."""
    found = list(dict.fromkeys(faults))
    return Check(
        name="",
        passed=not found,
        expected=expected,
        observed="; ".join(found) or "as expected",
    )


def expecting(
    expected: str, faults: Callable[[Session], Iterable[str]]
) -> Callable[[Session], Check]:
    """Return what a probe asks that passes exactly when there are no faults."""
    return lambda session: faultless(expected, faults(session))
