"""Resilience: what becomes of a service that lacks something, or is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from subprocess import TimeoutExpired
from typing import Any

from opskit import log, process_group
from opskit.checks import Check
from opskit.config.section import format_duration
from opskit.config.smoke import Profile, SmokeSettings
from opskit.config.strain import DependencySettings
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.session import BALANCERS, Answer, Session

_PAUSE_SECONDS = 0.1
_STARTS_MAX, _START_PAUSE_SECONDS = 3, 1.0
_UNAVAILABLE = 503
# An uptime may be rounded to whole seconds.
_ROUNDED_SECONDS = 1.5


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Return a probe for each dependency that may be stopped, and one of a kill."""
    asked = settings.resilience
    subject = _Subject(settings)
    kept = "An object that was written before must be read unchanged afterwards"
    for name, dependency in asked.dependencies.items():
        yield Probe(
            name=f"resilience.{name}-away",
            ask=partial(subject.do_without, name, dependency),
            what=f"Stops {name}, waits for the health report to say so, reads and "
            "writes meanwhile, starts it again and waits for the report to be healthy. "
            f"{kept}, and so must all that was accepted meanwhile. The start command "
            "runs also when the probe fails or is interrupted.",
            why="Dependencies are restarted and fail over. A service that dies or "
            "hangs with them, or does not come back without a restart, turns a short "
            "outage into a long one.",
            remedy="Put short time-outs on connections to it; let a pool check its "
            "connections before it lends them; answer 503 with Retry-After where "
            "nothing can be done without it; catch the errors of a cache and go on "
            "without. The health report names it while it is away.",
            profile=Profile.STRICT,
            alone=True,
        )
    if asked.kill:
        yield Probe(
            name="resilience.killed",
            ask=subject.be_killed,
            what="Kills the process and measures the time until the health report is "
            f"healthy, and its uptime a new one: at most "
            f"{format_duration(asked.back_within)}. {kept}.",
            why="Processes are killed: by the kernel for want of memory, by hosts that "
            "end. What was answered with success must be there after that.",
            remedy="Let a supervisor start it at once (systemd: `Restart=always`, "
            "`RestartSec=0`), do slow work after the start, not before it listens, and "
            "answer only after the commit.",
            profile=Profile.STRICT,
            alone=True,
        )


@dataclass(frozen=True)
class _Written:
    """An object of the service, and how it was read."""

    path: str
    content: bytes


class _Subject:
    """The service, as the settings describe it."""

    def __init__(self, settings: SmokeSettings) -> None:
        self._asked, self._health = settings.resilience, settings.health
        self._report_path = settings.health.path or settings.version.path

    def do_without(
        self, name: str, dependency: DependencySettings, session: Session
    ) -> Check:
        """Return the check of the service while it lacks a dependency, and after it."""
        state = "503, unhealthy" if dependency.needed else "200, degraded"
        written = [self._write(session)]
        with self._stopped(name, dependency):
            faults = list(self._faults_meanwhile(session, dependency, state, written))
        faults += self._faults_afterwards(session, written)
        return faultless(
            f"without {name}: {state}; then healthy, and nothing lost", faults
        )

    def be_killed(self, session: Session) -> Check:
        """Return the check of a service whose process is killed."""
        within = self._asked.back_within.total_seconds()
        written = self._write(session)
        killed = time.monotonic()  # the command may return once a new one runs
        self._run(self._asked.kill, "kill")
        if self._asked.start:
            self._start(self._asked.start, "the service")
        recovery = self._asked.recovery.total_seconds()
        seconds = self._until(partial(self._is_back, session, killed), recovery)
        if seconds is None and self._reports(session, 200, self._health.healthy):
            raise Inconclusive("the uptime went on: the command killed nothing")
        faults = []
        if seconds is None:
            faults += [f"not back after {recovery:g} s"]
        elif seconds > within:
            faults += [f"back after {seconds:.1f} s"]
        if not self._is_kept(session, written):
            faults += ["an object is lost or changed"]
        return faultless(f"back within {within:g} s, and nothing lost", faults)

    def _faults_meanwhile(
        self,
        session: Session,
        dependency: DependencySettings,
        state: str,
        written: list[_Written],
    ) -> Iterator[str]:
        words = self._health.unhealthy if dependency.needed else self._health.degraded
        status = _UNAVAILABLE if dependency.needed else 200
        notices = partial(self._reports, session, status, words)
        if self._until(notices, self._asked.notice.total_seconds()) is None:
            yield f"the health report is not: {state}"
        if self._asked.live and self._status(session, self._asked.live) != 200:
            yield "it does not call itself alive"
        allowed = (200, _UNAVAILABLE) if dependency.needed else (200,)
        read = self._status(session, written[0].path)
        if read not in allowed:
            yield f"reading is answered with {read or 'nothing'}"
        try:
            written.append(self._write(session))
        except WrongAnswer as refused:
            if not dependency.needed or refused.observed != str(_UNAVAILABLE):
                yield f"writing is answered with {refused.observed}"
        except Inconclusive:
            yield "writing is answered with nothing"

    def _faults_afterwards(
        self, session: Session, written: Sequence[_Written]
    ) -> Iterator[str]:
        seconds = self._asked.recovery.total_seconds()
        is_healthy = partial(self._reports, session, 200, self._health.healthy)
        if self._until(is_healthy, seconds) is None:
            yield f"not healthy again {seconds:g} s after it was back"
        lost = sum(not self._is_kept(session, each) for each in written)
        if lost:
            yield f"{lost} of {len(written)} objects are lost or changed"

    def _write(self, session: Session) -> _Written:
        """Have an object created and read.

        Raises:
            WrongAnswer: it is refused; `observed` is the status alone.
            Inconclusive: there was no answer.
        """
        asked = self._asked
        answer = session.request(
            "POST", asked.write, key=asked.key, document=asked.document, own=BALANCERS
        )
        if answer.status not in (200, 201):
            raise WrongAnswer(expected="201", observed=str(answer.status))
        try:
            path = asked.read.format(id=answer.json()[asked.id_field])
        except (LookupError, TypeError):
            raise WrongAnswer(
                expected=f"an object with {asked.id_field}", observed="none"
            ) from None
        read = session.get(path, key=asked.key, own=BALANCERS)
        if read.status != 200:
            raise WrongAnswer(expected="200", observed=str(read.status))
        return _Written(path, read.body)

    def _is_kept(self, session: Session, written: _Written) -> bool:
        """Return whether it is read as it was written.

        A service that has just recovered may refuse for a moment: that is no loss.
        """
        answers: list[Answer | None] = []

        def is_answered() -> bool:
            answers.append(self._ask(session, written.path))
            return answers[-1] is not None and answers[-1].status < 500

        self._until(is_answered, self._asked.recovery.total_seconds())
        return answers[-1] is not None and answers[-1].body == written.content

    def _is_back(self, session: Session, killed: float) -> bool:
        answer = self._ask(session, self._report_path)
        now, report = time.monotonic(), _report(answer)
        if answer is None or answer.status != 200:
            return False
        uptime = report.get(self._health.uptime_field)
        if not isinstance(uptime, int | float):
            raise Inconclusive("the health report names no uptime: is this a new one?")
        is_new = now - uptime > killed - _ROUNDED_SECONDS
        return is_new and report.get("status") in self._health.healthy

    def _reports(self, session: Session, status: int, words: Sequence[str]) -> bool:
        answer = self._ask(session, self._report_path)
        is_status = answer is not None and answer.status == status
        return is_status and _report(answer).get("status") in words

    def _status(self, session: Session, path: str) -> int:
        answer = self._ask(session, path)
        return answer.status if answer else 0

    def _ask(self, session: Session, path: str) -> Answer | None:
        key = self._health.key if path == self._report_path else self._asked.key
        try:
            return session.get(path, key=key, own=BALANCERS)
        except Inconclusive:
            return None

    def _until(self, is_so: Callable[[], bool], seconds: float) -> float | None:
        """Return after how many seconds it was so; None if it was not in that time."""
        began = time.monotonic()
        while not is_so():
            if time.monotonic() - began > seconds:
                return None
            time.sleep(_PAUSE_SECONDS)
        return time.monotonic() - began

    @contextmanager
    def _stopped(self, name: str, dependency: DependencySettings) -> Iterator[None]:
        try:
            self._run(dependency.stop, f"stop {name}")
            yield
        except BaseException:
            with suppress(Inconclusive):  # it is logged; what ended the block counts
                self._start(dependency.start, name)
            raise
        self._start(dependency.start, name)

    def _start(self, command: Sequence[str], name: str) -> None:
        """Start what was stopped, with several attempts."""
        for left in reversed(range(_STARTS_MAX)):
            try:
                return self._run(command, f"start {name}")
            except Inconclusive as error:
                log.logger().error(
                    "the probe stopped it, and it does not start: start it by hand",
                    what=name,
                    reason=str(error),
                )
                if not left:
                    raise
                time.sleep(_START_PAUSE_SECONDS)
        return None

    def _run(self, command: Sequence[str], purpose: str) -> None:
        """Run a program, whose process group is killed if it takes too long.

        Raises:
            Inconclusive: it failed.
        """
        seconds = self._asked.command_timeout.total_seconds()
        what = f"the command to {purpose}, {command[0]},"
        try:
            code = process_group.run(command, seconds=seconds)
        except OSError as error:
            raise Inconclusive(f"{what} cannot be run: {error.strerror}") from error
        except TimeoutExpired:
            raise Inconclusive(f"{what} took longer than {seconds:g} s") from None
        if code:
            raise Inconclusive(f"{what} ended with {code}")


def _report(answer: Answer | None) -> dict[str, Any]:
    try:
        report = answer.json() if answer else None
    except WrongAnswer:
        report = None
    return report if isinstance(report, dict) else {}
