"""Runner: asks probes until each has passed, or one deadline is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from opskit.checks import Check, not_checked
from opskit.config.smoke import VersionSettings
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.session import BALANCERS, Session, Target
from opskit.threads import Pool

# A wrong answer counts if two of the last five attempts got one: a service that fell
# silent since then has not answered wrong.
_RECENT, _AGREEING = 5, 2
# Rounds after the deadline, for a wrong answer that was given once so far.
_ROUNDS_MORE = 3
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.25, 10.0
_WORKERS = 8
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The time in seconds, and how to wait; another one in tests."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] = time.sleep


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one probe: passed, failed, or None for inconclusive."""

    family: str
    check: Check
    attempts: int = 0

    @property
    def gates(self) -> bool:
        """Whether it keeps the whole from passing."""
        return not self.check.passed and not self.check.advisory


@dataclass
class _Trial:
    """The attempts at one probe so far."""

    probe: Probe
    attempts: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.attempts and self.attempts[-1].passed)

    @property
    def wrong(self) -> list[Check]:
        return [each for each in self.attempts[-_RECENT:] if each.failed]

    @property
    def finding(self) -> Finding:
        last = self.attempts[-1]
        if not self.passed and len(self.wrong) >= _AGREEING:
            last = self.wrong[-1]
        elif last.failed:
            last = replace(
                last, passed=None, detail="only one attempt was answered, and wrong"
            )
        probe = self.probe
        check = replace(last, name=probe.name, advisory=probe.advisory)
        return Finding(family=probe.family, check=check, attempts=len(self.attempts))


class Runner:
    """Asks one service; `deadline` is a time of the clock that all of it shares."""

    def __init__(
        self,
        target: Target,
        *,
        version: VersionSettings,
        connections: int,
        deadline: float,
        clock: Clock | None = None,
        connect: Callable[[Target], Session] = Session,
    ) -> None:
        self._target, self._version = target, version
        self._connections, self._deadline = connections, deadline
        self._clock, self._connect = clock or Clock(), connect
        self._expected = ""

    def confirm(self, expected: str) -> Check:
        """Have the service name the expected version on several new connections.

        With none expected it must name one and the same.
        """
        asked = self._connections
        check = not_checked("version", "not asked")
        pause = _PAUSE_SECONDS_MIN
        while True:
            row: list[str] = []
            why = ""
            while len(row) < asked and not why:
                try:
                    with self._connect(self._target) as session:
                        row.append(self._named(session))
                except Inconclusive as error:
                    why = str(error)
                else:
                    if row[-1] != (expected or row[0]):
                        why = f"connection {len(row)} names {row[-1]!r}"
            if not why:
                self._expected = row[0]
                return Check(
                    name="version",
                    passed=True,
                    expected=expected or "the same on every connection",
                    observed=f"{row[0]} on {asked} connections in a row",
                )
            check = Check(
                name="version",
                passed=None,
                expected=f"{expected or 'one version'} on {asked} connections in a row",
                observed=row[-1] if row else "no answer",
                detail=why,
            )
            if not self._pause(pause):
                return check
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)

    def ask(
        self,
        probes: Sequence[Probe],
        *,
        on_finding: Callable[[Finding], None] = lambda _finding: None,
    ) -> list[Finding]:
        """Ask all of them, round by round, until each has passed or time is over."""
        trials = [_Trial(each) for each in probes]
        pause, more = _PAUSE_SECONDS_MIN, 0
        while open_ := [each for each in trials if not each.passed]:
            self._round(open_, on_finding)
            open_ = [each for each in open_ if not each.passed]
            if open_ and not self._pause(pause):
                more += 1
                trials_left = [e for e in open_ if 0 < len(e.wrong) < _AGREEING]
                if not trials_left or more > _ROUNDS_MORE:
                    break
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)
        for each in trials:
            if not each.passed:
                on_finding(each.finding)
        return [each.finding for each in trials]

    def _round(
        self, trials: Iterable[_Trial], on_finding: Callable[[Finding], None]
    ) -> None:
        """Ask once each: together what may be, then the others one at a time."""
        together = [each for each in trials if not each.probe.alone]
        with Pool(_WORKERS, thread_name_prefix="probe") as pool:
            try:
                asked = [pool.submit(self._attempt, each) for each in together]
                for each, future in zip(together, asked, strict=True):
                    self._note(each, future.result(), on_finding)
            except BaseException:
                self._target.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for each in trials:
            if each.probe.alone:
                self._note(each, self._attempt(each), on_finding)

    def _note(
        self, trial: _Trial, check: Check, on_finding: Callable[[Finding], None]
    ) -> None:
        trial.attempts.append(check)
        if trial.passed:
            on_finding(trial.finding)

    def _attempt(self, trial: _Trial) -> Check:
        """Ask once, on a new connection; a wrong answer counts if it is the service's.

        It is if the expected version is named on the same connection after it.
        """
        probe = trial.probe
        with self._connect(self._target) as session:
            try:
                check = probe.ask(session)
            except WrongAnswer as wrong:
                check = Check(
                    name=probe.name,
                    passed=False,
                    expected=wrong.expected,
                    observed=wrong.observed,
                    detail=wrong.detail,
                )
            except Inconclusive as error:
                return not_checked(probe.name, str(error))
            if not check.failed or probe.versionless:
                return check
            named = self._names(session)
        if {*named} == {self._expected} and 2 * len(named) > self._connections:
            return check
        others = ", ".join(sorted({*named} - {self._expected}))
        return replace(
            check,
            passed=None,
            detail=f"the answer may be another version's ({others})"
            if others
            else "the version was not named on that connection",
        )

    def _names(self, session: Session) -> list[str]:
        """Return the versions that the other end of a connection names, asked again.

        A balancer may choose for each request, and the service may have closed the
        connection after its answer: then new ones are asked as well.
        """
        named: list[str] = []
        for _ in range(self._connections):
            named += self._tried(session)
        if session.connections != 1:
            for _ in range(self._connections):
                with self._connect(self._target) as other:
                    named += self._tried(other)
        return named

    def _tried(self, session: Session) -> list[str]:
        try:
            return [self._named(session)]
        except Inconclusive:
            return []

    def _named(self, session: Session) -> str:
        """Return the version that is named.

        Raises:
            Inconclusive: none is.
        """
        path, field_ = self._version.path, self._version.field
        answer = session.get(path, own=BALANCERS, identified=False)
        try:
            value = answer.json()
            for part in field_.split("."):
                value = value[part]
        except (WrongAnswer, LookupError, TypeError):
            raise Inconclusive(
                f"GET {path}: {answer.status}, and no {field_} in it"
            ) from None
        return str(value)

    def _pause(self, seconds: float) -> bool:
        """Wait, at most until the deadline; return whether it is not over."""
        left = self._deadline - self._clock.now()
        if left > 0:
            self._clock.wait(min(seconds, left))
        return left > 0
