"""The runner of probes: verdicts, pauses and the deadline, with a clock of the test."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Self

import pytest
from urllib3 import HTTPHeaderDict

from opskit.checks import Check, compare, not_checked
from opskit.config.smoke import VersionSettings
from opskit.errors import ConfigurationError
from opskit.probes.probe import Inconclusive, Probe, RateLimited, WrongAnswer
from opskit.probes.report import Finding
from opskit.probes.runner import Clock, Runner
from opskit.probes.session import Answer, Session, Target

DEADLINE = 60.0


class Service:
    """Names a version for each connection in turn, the last one for ever.

    What is no text is raised.
    """

    def __init__(self, *versions: str | Exception) -> None:
        self.versions: Iterator[str | Exception] = chain(versions, repeat(versions[-1]))
        self.opened, self.asked = 0, 0

    def connect(self, target: Target) -> Any:
        """Open a connection."""
        self.opened += 1
        return Connection(self, next(self.versions), target)


class Connection:
    """One connection to it; each answer of a list is another instance's."""

    def __init__(
        self, service: Service, version: str | Exception, target: Target
    ) -> None:
        self.target = target
        self._service, self._version = service, version

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def get(self, _path: str, **_options: object) -> Answer:
        """Name the version."""
        self._service.asked += 1
        if isinstance(self._version, Exception):
            raise self._version
        body = json.dumps({"version": self._version}).encode()
        return Answer(status=200, headers=HTTPHeaderDict(), body=body, seconds=0)


class Time:
    """A clock that goes on only while somebody waits."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def wait(self, seconds: float) -> None:
        """Let that time pass."""
        self.waits.append(seconds)
        self.now += seconds


def runner(
    service: Service, time: Time, *, connections: int = 3, **more: Any
) -> Runner:
    """Return a runner with a minute's time."""
    return Runner(
        Target(url="http://service", timeout_seconds=1),
        version=VersionSettings(),
        connections=connections,
        deadline=DEADLINE,
        clock=Clock(now=lambda: time.now, wait=time.wait),
        connect=service.connect,
        **more,
    )


def probe(answer: Callable[[], Check], name: str = "a.probe", **more: Any) -> Probe:
    """Return a probe that does not look at the session."""
    return Probe(
        name=name,
        ask=lambda _session: answer(),
        what="What.",
        why="Why.",
        remedy="Remedy.",
        **more,
    )


def right() -> Check:
    """Answer right."""
    return compare("", 200, 200)


def wrong() -> Check:
    """Answer wrong."""
    return compare("", 200, 500)


def silent() -> Check:
    """Answer nothing."""
    raise Inconclusive("no connection")


def in_turn(answers: Iterable[Callable[[], Check]]) -> Callable[[], Check]:
    """Answer in turn."""
    left = iter(answers)
    return lambda: next(left)()


def judged(answer: Callable[[], Check], *versions: str | Exception) -> Finding:
    """Confirm version 2 on one connection, then ask a probe to its end."""
    service, time = Service("2", *versions or ("2",)), Time()
    asking = runner(service, time, connections=1)
    assert asking.confirm("2").passed
    (finding,) = asking.ask([probe(answer)])
    return finding


def test_a_version_is_confirmed_on_connections_in_a_row() -> None:
    """One connection with the old version begins the row again."""
    service, time = Service("2", "2", "1", "2", "2", "1", "2"), Time()
    check = runner(service, time).confirm("2")

    assert (check.passed, check.observed, service.opened) == (True, "2", 9)


def test_no_answer_begins_the_row_again_too() -> None:
    """A balancer that answers in between is not the service."""
    service = Service("2", Inconclusive("503"), "2")
    check = runner(service, Time()).confirm("2")

    assert (check.passed, service.opened) == (True, 5)


def test_an_old_version_until_the_deadline_is_inconclusive() -> None:
    """The service was never asked what it is about: nothing is wrong with it."""
    time = Time()
    check = runner(Service("1"), time).confirm("2")

    assert (check.passed, check.observed) == (None, "1")
    assert check.detail == "connection 1 names 1, not 2"
    assert time.now == DEADLINE


def test_a_long_version_is_not_repeated() -> None:
    """It is a part of the body, which is shown nowhere."""
    check = runner(Service(1000 * "x"), Time()).confirm("")

    assert check.passed is None
    assert check.observed == ""
    assert check.detail == "GET /health: version has 1000 characters"


def test_what_is_waited_for_is_said_when_it_changes() -> None:
    """First two versions, then two probes, then the slower of them; not its last try."""
    service, said = Service("0", "0", "1", "1", "2"), list[str]()
    asking = runner(service, Time(), connections=1, on_wait=said.append)
    assert asking.confirm("2").passed
    quick = probe(in_turn([wrong, right]))
    slow = probe(in_turn([wrong, wrong, wrong, right]), "slow.one")
    asking.ask([quick, slow])

    assert said == [
        "version (connection 1 names 0, not 2)",
        "version (connection 1 names 1, not 2)",
        f"{quick.name}, slow.one",
        "slow.one",
    ]


def test_a_version_on_one_of_three_connections_is_never_confirmed() -> None:
    """Three in a row never come."""
    service = Service(*["2", "2", "1"] * 1000)

    assert runner(service, Time()).confirm("2").passed is None


def test_without_an_expected_version_it_must_stay_the_same() -> None:
    """The first that is named is expected of the others."""
    service = Service("1", "2", "1", "2", "2", "2")
    check = runner(service, Time()).confirm("")

    assert (check.passed, check.observed, service.opened) == (True, "2", 7)
    assert check.expected == "the same version on 3 connections in a row"


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'"2"', b'{"version": null}', b'{"version": {}}', b"{}"]
)
def test_an_answer_without_a_version_names_none(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of a balancer with status 200 is no version."""
    answer = Answer(status=200, headers=HTTPHeaderDict(), body=body, seconds=0)
    monkeypatch.setattr(Connection, "get", lambda *_given, **_options: answer)
    check = runner(Service("2"), Time()).confirm("")

    assert check.passed is None
    assert check.detail == "GET /health: 200 without version in JSON"


def test_a_service_without_a_version_must_only_answer() -> None:
    """With no field to look at, any answer of the service will do."""
    target = Target(url="http://service", timeout_seconds=1)
    service = Service("whatever")
    asking = Runner(
        target,
        version=VersionSettings(field=""),
        connections=3,
        deadline=DEADLINE,
        clock=Clock(now=lambda: 0.0),
        connect=service.connect,
    )

    assert asking.confirm("").passed
    assert (service.opened, service.asked) == (3, 3)


def test_a_right_answer_ends_a_probe() -> None:
    """It is asked once."""
    calls: list[int] = []

    def answer() -> Check:
        calls.append(1)
        return right()

    assert judged(answer).check.passed
    assert len(calls) == 1


def test_a_cold_start_is_waited_for() -> None:
    """Wrong answers and none, until the first right one."""
    answers = [silent, wrong, wrong, wrong, silent, wrong, right]

    assert judged(in_turn(answers)).check.passed


def test_a_wrong_answer_until_the_deadline_has_failed() -> None:
    """It says what was expected and observed."""
    finding = judged(wrong)

    assert finding.check.passed is False
    assert finding.verdict == "failed"
    assert (finding.check.name, finding.family) == ("a.probe", "a")
    assert (finding.check.expected, finding.check.observed) == ("200", "500")


def test_a_probe_that_raises_a_wrong_answer_has_failed() -> None:
    """It is the same as a check that did not pass."""

    def answer() -> Check:
        raise WrongAnswer(expected="401", observed="200", detail="open")

    check = judged(answer).check

    assert (check.passed, check.expected, check.detail) == (False, "401", "open")


def test_no_answer_until_the_deadline_is_inconclusive() -> None:
    """It says why."""
    finding = judged(silent)

    assert finding.check.passed is None
    assert finding.check.detail == "no connection"


def test_a_wrong_answer_of_another_version_is_inconclusive() -> None:
    """The same connection names the version that answered."""
    check = judged(wrong, "1").check

    assert check.passed is None
    assert check.detail == "the answer may be another version's (1)"


def test_a_wrong_answer_whose_version_is_unknown_is_inconclusive() -> None:
    """No connection answers when the version is asked for again."""
    check = judged(wrong, Inconclusive("reset")).check

    assert check.passed is None
    assert check.detail == "the version was not named afterwards"


def test_a_balancer_that_chooses_for_each_request_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several requests on one connection reach different instances."""
    versions = iter(["2", "1", "2"] * 10_000)

    def get(_self: Connection, _path: str, **_options: object) -> Answer:
        body = json.dumps({"version": next(versions)}).encode()
        return Answer(status=200, headers=HTTPHeaderDict(), body=body, seconds=0)

    service, time = Service("2"), Time()
    asking = runner(service, time)
    assert asking.confirm("2").passed
    monkeypatch.setattr(Connection, "get", get)
    (finding,) = asking.ask([probe(wrong)])

    assert finding.check.passed is None


def test_errors_between_answers_do_not_hide_the_version() -> None:
    """A balancer answers one of five requests in the place of the service."""
    row: list[str | Exception] = ["2", "2", Inconclusive("503"), "2", "2"]

    assert judged(wrong, *row * 1000).check.passed is False


def test_a_rate_limit_is_waited_for_when_the_version_is_asked_for_again() -> None:
    """It refuses every other request, which says nothing about the version."""
    row: list[str | Exception] = ["2", RateLimited("429")]

    assert judged(wrong, *row * 1000).check.passed is False


@pytest.mark.parametrize("error", [None, RateLimited("429")])
def test_the_version_is_not_asked_for_long_after_the_deadline(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer takes ten seconds, or is refused by a rate limit."""
    service, time = Service("2", error or "2"), Time()
    asking = runner(service, time, connections=1)
    assert asking.confirm("2").passed
    get = Connection.get

    def slowly(connection: Connection, path: str, **options: object) -> Answer:
        time.now += 10
        return get(connection, path, **options)

    monkeypatch.setattr(Connection, "get", slowly)
    (finding,) = asking.ask([probe(wrong)])

    assert finding.check.passed is None
    assert finding.check.detail == "the version was not named afterwards"
    assert time.now <= DEADLINE + 12


@pytest.mark.parametrize(
    ("versions", "again"), [("222", None), ("2212", True), ("221", False)]
)
def test_a_version_is_confirmed_again_where_another_one_answered(
    versions: str, again: bool | None
) -> None:
    """The probe was asked again meanwhile, and has passed."""
    asking = runner(Service(*versions), Time(), connections=1)
    assert asking.confirm("").passed
    (finding,) = asking.ask([probe(in_turn([wrong, right]))])
    check = asking.confirm_again()

    assert finding.check.passed
    assert (check and bool(check.passed)) is again


def test_an_old_version_on_one_connection_of_three_never_counts() -> None:
    """The probe asks on connections of its own, and any of them may lead there."""
    for seed in range(200):
        chance = random.Random(seed)

        def version(chance: random.Random = chance) -> str:
            return chance.choice("122")

        def answer(version: Callable[[], str] = version) -> Check:
            return right() if {version() for _ in range(8)} == {"2"} else wrong()

        service = Service("2")
        asking = runner(service, Time(), connections=1)
        assert asking.confirm("2").passed
        service.versions = iter(version, "")
        (finding,) = asking.ask([probe(answer)])

        assert finding.check.passed is not False, seed


def test_probes_can_see_that_another_version_answers() -> None:
    """One that remembers an answer must forget it then."""
    doubts: list[int] = []

    def ask(session: Session) -> Check:
        doubts.append(session.target.doubts.number)
        return wrong()

    service, time = Service("2", *["2"] * 22, "1", "2"), Time()
    asking = runner(service, time, connections=1)
    asking.confirm("2")
    asking.ask([replace(probe(wrong), ask=ask)])

    assert doubts[:3] == [0, 0, 1]


def test_what_was_wrong_before_an_old_version_was_seen_does_not_count() -> None:
    """Twenty connections happened to lead elsewhere, twice."""
    service = Service("2", *["2"] * 40, "1")
    asking = runner(service, Time(), connections=1)
    assert asking.confirm("2").passed
    (finding,) = asking.ask([probe(in_turn(chain([wrong] * 3, repeat(silent))))])

    assert finding.check.passed is None


def test_one_wrong_answer_is_not_enough() -> None:
    """Before it and after it there was none."""
    finding = judged(in_turn(chain([wrong], repeat(silent))))

    assert finding.check.passed is None


def test_a_service_that_fell_silent_has_not_failed() -> None:
    """Wrong answers count only among the last five attempts."""
    finding = judged(in_turn(chain([wrong] * 4, repeat(silent))))

    assert finding.check.passed is None
    assert finding.check.detail == "no connection"


def test_two_of_the_last_five_attempts_are_enough() -> None:
    """A balancer's errors in between do not hide what is broken."""
    finding = judged(in_turn(chain(*repeat([wrong, silent, silent], 1000))))

    assert finding.check.passed is False


def test_a_slow_wrong_answer_is_asked_for_again_after_the_deadline() -> None:
    """One attempt that took all of the time is followed by a second one."""
    service, time = Service("2"), Time()
    asking = runner(service, time)
    asking.confirm("2")
    calls: list[float] = []

    def answer() -> Check:
        calls.append(time.now)
        time.now += DEADLINE + 1
        return wrong()

    (finding,) = asking.ask([probe(answer)])

    assert finding.check.passed is False
    assert len(calls) == 2


def test_a_single_wrong_answer_at_the_end_is_inconclusive() -> None:
    """After the deadline it is asked for only a few times more."""
    service, time = Service("2"), Time()
    asking = runner(service, time)
    asking.confirm("2")
    calls: list[int] = []

    def answer() -> Check:
        calls.append(1)
        time.now += DEADLINE + 1
        return wrong() if len(calls) == 1 else silent()

    (finding,) = asking.ask([probe(answer)])

    assert finding.check.passed is None
    assert len(calls) == 4


def test_pauses_grow_and_end_at_the_deadline() -> None:
    """From a quarter of a second to ten seconds, and no further than the end."""
    service, time = Service("2"), Time()
    asking = runner(service, time)
    asking.confirm("2")
    asking.ask([probe(silent)])

    assert time.waits[:7] == [0.25, 0.5, 1, 2, 4, 8, 10]
    assert max(time.waits) == 10
    assert DEADLINE <= time.now <= DEADLINE + 0.25


def test_all_share_one_deadline() -> None:
    """What the version used up is not there for the probes."""
    service, time = Service(*["1"] * 9, "2"), Time()
    asking = runner(service, time, connections=1)
    assert asking.confirm("2").passed
    asking.ask([probe(silent), probe(wrong, "b")])

    assert DEADLINE <= time.now <= DEADLINE + 0.25


def test_what_is_asked_alone_comes_last_and_one_at_a_time() -> None:
    """Nothing else is being asked meanwhile, also when it is asked again."""
    active: set[str] = set()
    guard = threading.Lock()
    order: list[tuple[str, int]] = []
    both = threading.Barrier(2, timeout=60)

    def answering(name: str, answers: Iterator[Callable[[], Check]]) -> Any:
        def answer() -> Check:
            with guard:
                active.add(name)
                order.append((name, len(active)))
            if name.startswith("together"):
                both.wait()
            with guard:
                active.discard(name)
            return next(answers)()

        return answer

    names = ["burst 1", "together 1", "burst 2", "together 2"]
    probes = [
        probe(
            answering(each, iter([wrong, right])), each, alone=each.startswith("burst")
        )
        for each in names
    ]
    asking = runner(Service("2"), Time())
    asking.confirm("2")
    findings = asking.ask(probes)

    assert [each.check.name for each in findings] == names
    assert [each.check.passed for each in findings] == [True] * 4
    for half in (order[:4], order[4:]):
        assert {name for name, _ in half[:2]} == {"together 1", "together 2"}
        assert half[2:] == [("burst 1", 1), ("burst 2", 1)]


@pytest.mark.parametrize("error", [KeyError("items"), ValueError(), RecursionError()])
def test_a_probe_that_breaks_does_not_end_the_others(error: Exception) -> None:
    """It is inconclusive: nothing is known of the service."""
    asking = runner(Service("2"), Time())
    asking.confirm("2")

    def broken() -> Check:
        raise error

    first, second = asking.ask([probe(broken), probe(right, "b")])

    assert first.check.passed is None
    name = type(error).__name__
    assert first.check.detail == f"the probe itself failed: {name}"
    assert second.check.passed


def test_an_error_of_the_configuration_ends_all() -> None:
    """A missing key is not a property of the service."""
    asking = runner(Service("2"), Time())
    asking.confirm("2")

    def broken() -> Check:
        raise ConfigurationError("no such key")

    with pytest.raises(ConfigurationError):
        asking.ask([probe(broken), probe(right, "b")])


def test_an_interrupt_cuts_what_is_being_asked() -> None:
    """The others are not waited for longer than it takes to cut them."""
    target = Target(url="http://service", timeout_seconds=1)
    asking = Runner(
        target,
        version=VersionSettings(),
        connections=1,
        deadline=DEADLINE,
        connect=Service("2").connect,
    )
    asking.confirm("2")

    def interrupted() -> Check:
        raise KeyboardInterrupt

    def waiting() -> Check:
        assert target.stopped.wait(60)
        return right()

    with pytest.raises(KeyboardInterrupt):
        asking.ask([probe(interrupted), probe(waiting, "b")])
    assert target.stopped.is_set()


def test_what_needs_no_version_fails_without_one() -> None:
    """An expired certificate keeps every version from being named."""
    asking = runner(Service(Inconclusive("TLS failed")), Time())
    asking.confirm("2")
    (finding,) = asking.ask([probe(wrong, versionless=True)])

    assert finding.check.passed is False


def test_findings_are_told_once_each() -> None:
    """When a probe has passed, or when time is over."""
    told: list[Finding] = []
    asking = runner(Service("2"), Time())
    asking.confirm("2")
    probes = [
        probe(wrong, "wrong", advisory=True),
        probe(right, "right"),
        probe(lambda: not_checked("", "why"), "unknown"),
    ]
    findings = asking.ask(probes, on_finding=told.append)

    assert [each.check.name for each in told] == ["right", "wrong", "unknown"]
    assert [each.verdict for each in findings] == [
        "failed (advisory)",
        "passed",
        "inconclusive",
    ]
    assert [each.gates for each in findings] == [False, False, True]
