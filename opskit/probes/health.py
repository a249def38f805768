"""Health: what the service says of itself, and whether its status codes agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opskit.checks import Check, Health
from opskit.config.probes import HealthSettings
from opskit.config.smoke import Profile, SmokeSettings
from opskit.log import mask
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.session import Answer, Session

_UNAVAILABLE = 503
# Ten years: what is more is the time of a clock.
_UPTIME_SECONDS_MAX = 10 * 366 * 86_400
_PLACEHOLDERS = ("", "dev", "none", "null", "undefined", "unknown", "0.0.0")


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield probes of the health report, if there is one, and of the public answers."""
    rules = settings.health
    if rules.path:
        yield Probe(
            name="health.status",
            ask=lambda session: _status(session, rules),
            what=f"Reads {rules.path}, which must be 200 with a status that works.",
            why="A release that cannot reach its database must not stay.",
            remedy="See which service is named as unhealthy, and mend it or roll back.",
            profile=Profile.MINIMAL,
        )
        yield Probe(
            name="health.agreement",
            ask=lambda session: _agreement(session, rules),
            what="Compares the status code, the status and the states of services.",
            why="Balancers see the status code alone: they send requests to a broken "
            "process that says so with 200, and take away a good one that says 503.",
            remedy="Answer 503 exactly when the status is unhealthy, and never call "
            "the whole healthy when a service is not.",
        )
        yield Probe(
            name="health.report",
            ask=lambda session: _report(session, rules, settings.version.field),
            what="Checks the form of the report: status, version, uptime, services.",
            why="Monitoring reads these fields; in an incident they are all there is.",
            remedy="Send a JSON object with the version that was deployed, the seconds "
            "since the start, and a state for each service that is needed.",
        )
    if rules.public:
        yield Probe(
            name="health.public",
            ask=lambda session: _public(session, rules),
            what="Asks for readiness and liveness without a key, and looks for "
            f"anything but {', '.join(rules.public_fields)}.",
            why="Everybody reads these answers: process ids, execution ids and texts "
            "of warnings tell an attacker how the service is built.",
            remedy='Answer `{"status": "ready"}` and nothing else; what operators '
            "need belongs to an answer that asks for a key.",
        )


def _ask(session: Session, rules: HealthSettings) -> tuple[Answer, dict[str, Any]]:
    answer = session.get(rules.path, key=rules.key, own=(_UNAVAILABLE,))
    try:
        report = answer.json()
    except WrongAnswer as error:
        if answer.status == _UNAVAILABLE and not session.target.identity:
            raise Inconclusive(f"{rules.path}: a 503 without a report") from error
        raise
    if not isinstance(report, dict):
        raise WrongAnswer(expected="a JSON object", observed="JSON of another kind")
    return answer, report


def _status(session: Session, rules: HealthSettings) -> Check:
    answer, report = _ask(session, rules)
    state = _state(report, rules)
    troubled = [
        f"{name} is {each}"
        for name, each in _services(report, rules).items()
        if each is not Health.HEALTHY
    ]
    return Check(
        name="",
        passed=answer.status == 200 and state in (Health.HEALTHY, Health.DEGRADED),
        expected="200 healthy, or degraded",
        observed=f"{answer.status} {_word(state)}",
        detail=", ".join(troubled),
    )


def _agreement(session: Session, rules: HealthSettings) -> Check:
    answer, report = _ask(session, rules)
    state = _state(report, rules)
    is_down = state is Health.UNHEALTHY
    faults = []
    if answer.status != (_UNAVAILABLE if is_down else 200):
        faults.append(f"{answer.status} with {_word(state)}")
    if state is Health.HEALTHY:
        faults += [
            f"healthy, but {name} is {_word(each)}"
            for name, each in _services(report, rules).items()
            if each is not Health.HEALTHY
        ]
    return faultless("503 exactly when unhealthy, healthy when all is", faults)


def _report(session: Session, rules: HealthSettings, version_field: str) -> Check:
    _answer, report = _ask(session, rules)
    faults = []
    if _state(report, rules) is None:
        faults.append("no status that is configured")
    version = _at(report, version_field)
    if not isinstance(version, str) or version.strip().lower() in _PLACEHOLDERS:
        faults.append(f"no version in {version_field}")
    if not _is_uptime(_at(report, rules.uptime_field)):
        faults.append(f"no seconds in {rules.uptime_field}")
    services = _services(report, rules)
    faults += [f"no {name}" for name in rules.services if name not in services]
    faults += [
        f"no known state of {name}" for name, state in services.items() if state is None
    ]
    return faultless("a status, a version, an uptime, states of services", faults)


def _public(session: Session, rules: HealthSettings) -> Check:
    faults = []
    for path in rules.public:
        answer = session.get(path, own=(_UNAVAILABLE,))
        faults += [f"{path}: {fault}" for fault in _leaks(answer, rules)]
        if answer.status != 200:
            faults.append(f"{path}: {answer.status}")
    return faultless(f"200 with only {', '.join(rules.public_fields)}", faults)


def _leaks(answer: Answer, rules: HealthSettings) -> Iterator[str]:
    """Yield the names of what must not be in a public answer; never its values."""
    document = answer.json()
    if not isinstance(document, dict):
        yield "no JSON object"
        return
    for name, value in document.items():
        if name not in rules.public_fields:
            yield f"the field {mask(name)[:40]!r}"
        elif value not in rules.public_words:
            yield f"another text in {name}"


def _state(report: object, rules: HealthSettings) -> Health | None:
    """Return the state that a word stands for, or an object with a status."""
    word = report.get("status") if isinstance(report, Mapping) else report
    words = {
        Health.HEALTHY: rules.healthy,
        Health.DEGRADED: rules.degraded,
        Health.UNHEALTHY: rules.unhealthy,
    }
    return next((state for state, known in words.items() if word in known), None)


def _services(
    report: Mapping[str, Any], rules: HealthSettings
) -> dict[str, Health | None]:
    services = _at(report, rules.services_field)
    if not isinstance(services, Mapping):
        return {}
    return {name: _state(each, rules) for name, each in services.items()}


def _word(state: Health | None) -> str:
    return "without a known status" if state is None else state.value


def _at(report: object, path: str) -> Any:
    """Return what is in a field, with dots between levels; None if it is not there."""
    for name in path.split("."):
        report = report.get(name) if isinstance(report, Mapping) else None
    return report


def _is_uptime(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < _UPTIME_SECONDS_MAX
