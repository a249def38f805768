"""Runner: asks probes until each has passed, or one deadline is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from opskit.checks import Check, count, not_checked
from opskit.config.smoke import SmokeSettings, VersionSettings
from opskit.probes.probe import Inconclusive, Probe, RateLimited, WrongAnswer
from opskit.probes.report import Finding
from opskit.probes.session import BALANCERS, Session, Target
from opskit.threads import Pool

# A wrong answer counts if two of the last five attempts got one: a service that fell
# silent since then has not answered wrong.
_RECENT, _AGREEING = 5, 2
# On so many new connections the version is asked for after wrong answers. With an old
# version behind one of three, all of them name the new one once in 3,000 times, and
# that would have to happen twice.
_ASKED_AGAIN, _UNANSWERED_MAX = 20, 5
# So long may that take after the deadline, with pauses for a rate limit.
_ASKING_SECONDS, _LIMITED_SECONDS = 30.0, 1.0
# Rounds after the deadline, for a wrong answer that was given once so far.
_ROUNDS_MORE = 3
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.25, 10.0
_WORKERS = 8
# What a probe raises that did not understand an answer.
_NOT_UNDERSTOOD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
# What is longer is a part of the body that nobody wants to read.
_VERSION_LENGTH_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The time in seconds, and how to wait; another one in tests."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] = time.sleep


@dataclass
class _Trial:
    """The attempts at one probe so far."""

    probe: Probe
    attempts: list[Check] = field(default_factory=list)
    # It said itself why it cannot be asked here: asking again changes nothing.
    is_settled: bool = False

    @property
    def passed(self) -> bool:
        return bool(self.attempts and self.attempts[-1].passed)

    @property
    def wrong(self) -> list[Check]:
        return [each for each in self.attempts[-_RECENT:] if each.failed]

    @property
    def is_wrong(self) -> bool:
        """Whether the last answer was wrong, and may be another version's."""
        return self.attempts[-1].failed and not self.probe.versionless

    def excuse(self, reason: str, *, last: int = _RECENT) -> None:
        """Count no wrong answer of the last attempts."""
        if not self.probe.versionless:
            self.attempts[-last:] = [
                replace(each, passed=None, detail=reason) if each.failed else each
                for each in self.attempts[-last:]
            ]

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
        return Finding(family=probe.family, check=check)


class Runner:
    """Asks one service; `deadline` is a time of the clock that all of it shares.

    `on_wait` gets what is waited for, each time that this is something else.
    """

    def __init__(
        self,
        target: Target,
        *,
        version: VersionSettings,
        connections: int,
        deadline: float,
        clock: Clock | None = None,
        on_wait: Callable[[str], None] = lambda _what: None,
        connect: Callable[[Target], Session] = Session,
    ) -> None:
        self._target, self._version = target, version
        self._connections, self._deadline = connections, deadline
        self._clock, self._connect = clock or Clock(), connect
        self._on_wait, self._waits_for = on_wait, ""
        self._expected, self._is_doubted = "", False

    def confirm(self, expected: str) -> Check:
        """Have the service name the expected version on several new connections.

        With none expected it must name one and the same.
        """
        row, reason = list[str](), ""
        for _ in self._tries():
            row = []
            try:
                while len(row) < self._connections:
                    with self._connect(self._target) as session:
                        row.append(self._named(session))
                    self._require_same(row, expected)
            except Inconclusive as error:
                reason = str(error)
                self._wait_for(f"version ({reason})")
                continue
            self._expected, reason = row[0], ""
            break
        wanted = f"version {expected}" if expected else "the same version"
        return Check(
            name="version",
            passed=None if reason else True,
            expected=f"{wanted} on {count(self._connections, 'connection')} in a row",
            observed=(row[-1] or "an answer") if row else "",
            detail=reason,
        )

    def confirm_again(self) -> Check | None:
        """Have the same version confirmed if another one answered meanwhile."""
        return self.confirm(self._expected) if self._is_doubted else None

    def ask(
        self,
        probes: Sequence[Probe],
        *,
        on_finding: Callable[[Finding], None] = lambda _finding: None,
    ) -> list[Finding]:
        """Ask all of them, round by round, until each has passed or time is over."""
        trials = [_Trial(each) for each in probes]
        for is_over in self._tries(more=_ROUNDS_MORE):
            left = [each for each in trials if not (each.passed or each.is_settled)]
            if is_over:
                left = [each for each in left if 0 < len(each.wrong) < _AGREEING]
            if not left:
                break
            self._round(left, on_finding)
            waits = [e.probe.name for e in left if not (e.passed or e.is_settled)]
            self._wait_for(", ".join(waits))
        for each in trials:
            if not each.passed:
                on_finding(each.finding)
        return [each.finding for each in trials]

    def _wait_for(self, what: str) -> None:
        is_over = self._clock.now() >= self._deadline
        if what and what != self._waits_for and not is_over:
            self._on_wait(what)
        self._waits_for = what

    def _round(
        self, trials: Sequence[_Trial], on_finding: Callable[[Finding], None]
    ) -> None:
        """Ask once each: together what may be, then the others one at a time."""
        together = [each for each in trials if not each.probe.alone]
        with Pool(_WORKERS, thread_name_prefix="probe") as pool:
            try:
                asked = [pool.submit(self._attempt, each) for each in together]
                for each, future in zip(together, asked, strict=True):
                    self._note(each, future.result(), on_finding)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._target.stop()
                raise
        self._doubt(together, trials)
        for each in trials:
            if each.probe.alone:
                self._note(each, self._attempt(each), on_finding)
                self._doubt([each], trials)

    def _note(
        self, trial: _Trial, check: Check, on_finding: Callable[[Finding], None]
    ) -> None:
        trial.attempts.append(check)
        if trial.passed:
            on_finding(trial.finding)

    def _attempt(self, trial: _Trial) -> Check:
        """Ask once, on a new connection."""
        probe = trial.probe
        with self._connect(self._target) as session:
            try:
                check = probe.ask(session)
                trial.is_settled = check.passed is None
            except WrongAnswer as wrong:
                check = Check(
                    name=probe.name,
                    passed=False,
                    expected=wrong.expected,
                    observed=wrong.observed,
                    detail=wrong.detail,
                )
            except Inconclusive as error:
                check = not_checked(probe.name, str(error))
            except _NOT_UNDERSTOOD as error:
                # It must not end the others.
                check = not_checked(
                    probe.name, f"the probe itself failed: {type(error).__name__}"
                )
        return check

    def _doubt(self, asked: Iterable[_Trial], trials: Iterable[_Trial]) -> None:
        """Count no wrong answer as long as another version answers, too.

        What was asked may have had it, on a connection of its own, or by a balancer
        that chooses for each request. Once one is named, what was wrong before does
        not count either.
        """
        wrong = [each for each in asked if each.is_wrong]
        if not wrong:
            return
        version = self._named_again()
        if version is None:
            for each in wrong:
                each.excuse("the version was not named afterwards", last=1)
        elif version != self._expected:
            self._target.doubts.add()
            self._is_doubted = True
            for each in trials:
                each.excuse(f"the answer may be another version's ({version})")

    def _named_again(self) -> str | None:
        """Return another version if one is named, or None if too few are."""
        named, unanswered = 0, 0
        end = max(self._deadline, self._clock.now() + _ASKING_SECONDS)
        while named < _ASKED_AGAIN:
            if unanswered > _UNANSWERED_MAX or self._clock.now() >= end:
                return None
            try:
                with self._connect(self._target) as session:
                    version = self._named(session)
            except RateLimited:
                self._clock.wait(_LIMITED_SECONDS)
            except Inconclusive:
                unanswered += 1
            else:
                if version != self._expected:
                    return version
                named += 1
        return self._expected

    def _named(self, session: Session) -> str:
        """Return the version that is named; empty where the service names none.

        Raises:
            Inconclusive: it is not in the answer.
        """
        path, name = self._version.path, self._version.field
        if not name:
            session.get(path)
            return ""
        answer = session.get(path, own=BALANCERS, identified=False)
        try:
            value = answer.json()
            for part in name.split("."):
                value = value[part]
        except (WrongAnswer, LookupError, TypeError):
            value = None
        if not isinstance(value, str | int | float) or value == "":
            raise Inconclusive(f"GET {path}: {answer.status} without {name} in JSON")
        if len(named := str(value)) > _VERSION_LENGTH_MAX:
            raise Inconclusive(f"GET {path}: {name} has {len(named)} characters")
        return named

    def _require_same(self, row: list[str], expected: str) -> None:
        if row[-1] != (expected or row[0]):
            raise Inconclusive(
                f"connection {len(row)} names {row[-1]}, not {expected or row[0]}"
            )

    def _tries(self, *, more: int = 0) -> Iterator[bool]:
        """Yield for each try until the deadline, after pauses that grow.

        At least once; after the deadline `more` times, and then True.
        """
        pause, is_over = _PAUSE_SECONDS_MIN, False
        yield is_over
        while not is_over or more:
            left = self._deadline - self._clock.now()
            is_over = left <= 0
            more -= is_over
            if is_over and more < 0:
                return
            self._clock.wait(_PAUSE_SECONDS_MIN if is_over else min(pause, left))
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)
            yield is_over


def names(settings: SmokeSettings, version: str = "") -> str:
    """Return the version that the service names now, on all connections alike.

    It is empty where the service does not answer, or names another one than is wanted.
    """
    runner = Runner(
        Target(
            url=settings.url,
            timeout_seconds=settings.timeout.total_seconds(),
            identity=settings.identity,
            ca_file=settings.tls.ca_file,
        ),
        version=settings.version,
        connections=settings.connections,
        deadline=time.monotonic(),
    )
    check = runner.confirm(version)
    return check.observed if check.passed else ""
