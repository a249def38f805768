"""Observability: metrics that move, an id for each request, logs that carry it."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from opskit.checks import Check
from opskit.config.probes import ObservabilitySettings
from opskit.config.smoke import Profile, SmokeSettings
from opskit.probes.answers import examined
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer, faultless
from opskit.probes.session import Answer, Session

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

# More requests than looks at the counters, which may count those as well.
_REQUESTS, _LOOKS = 5, 4
# Behind a balancer, so many more show whether several processes answer.
_MORE_LOOKS = 10
_PAUSE_SECONDS, _LOG_SECONDS_MAX = 0.2, 10.0
_LOG_BYTES_MAX = 16 * 1024 * 1024
_METRICS_TYPES = ("text/plain", "application/openmetrics-text")
_ID = re.compile(r"[\w.:/+=@-]{8,128}", re.ASCII)


def probes(settings: SmokeSettings) -> Iterator[Probe]:
    """Yield probes of the metrics, of request ids and of the log, where configured."""
    rules = settings.observability
    path = rules.path or settings.version.path
    if rules.metrics:
        yield Probe(
            name="observability.metrics",
            ask=lambda session: _metrics(session, rules),
            what=f"Parses {rules.metrics} as Prometheus does.",
            why="One line that it cannot parse costs all metrics, and their alerts.",
            remedy="Let a client library of Prometheus write the text, and send its "
            "Content-Type.",
        )
        yield Probe(
            name="observability.counters",
            ask=lambda session: _counters(session, rules, path),
            what=f"Reads the counters before and after {_REQUESTS} requests.",
            why="A counter that stands still alerts nobody.",
            remedy="Count every request in the middleware, in all worker processes "
            "(for prometheus-client: `PROMETHEUS_MULTIPROC_DIR`).",
        )
    if not rules.request_id:
        return
    header = rules.request_id
    yield Probe(
        name="observability.request-id",
        ask=lambda session: _ids(session, settings),
        what=f"Looks for {header} on good answers and on errors.",
        why="With it, what a user reports is found in the logs.",
        remedy="Set the header in the outermost middleware, around error handlers, to "
        "a new random id.",
    )
    yield Probe(
        name="observability.request-id-kept",
        ask=lambda session: _kept(session, rules, path),
        what=f"Sends a valid {header}, which must come back.",
        why="A request that passes several services keeps one id in all of their logs.",
        remedy="Take the id that was sent if it is a short word of letters, digits "
        "and dashes.",
    )
    yield Probe(
        name="observability.request-id-malformed",
        ask=lambda session: _malformed(session, rules, path),
        what=f"Sends a {header} with a newline, with quotes, with 10,000 letters; none "
        "may come back.",
        why="What comes back is in the logs too, where it forges or floods lines.",
        remedy="Replace an id that does not match `^[A-Za-z0-9-]{8,64}$`.",
    )
    if rules.log_file or rules.log_command:
        yield Probe(
            name="observability.logs",
            ask=lambda session: _logs(session, rules, path),
            what="Sends requests with keys and tokens that were made up, and looks in "
            "the log for their ids, for JSON, and for the keys.",
            why="Logs are read by many, and kept for long: a key in them is lost.",
            remedy="Log JSON, with the id of the request; mask Authorization, Cookie, "
            "the header of keys, and parameters such as `token` in addresses.",
            profile=Profile.STRICT,
        )


def _metrics(session: Session, rules: ObservabilitySettings) -> Check:
    answer = _scrape(session, rules)
    faults = [] if _families(answer) else ["no metrics"]
    kind = answer.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip() not in _METRICS_TYPES:
        faults.append(f"Content-Type: {kind or 'none'}")
    return faultless("metrics that Prometheus parses", faults)


def _counters(session: Session, rules: ObservabilitySettings, path: str) -> Check:
    families = _families(_scrape(session, rules))
    before, began = _counted(families, rules.counter), _began(families)
    for _ in range(_REQUESTS):
        session.get(path, key=rules.key)
    rise = 0.0
    for _ in range(_LOOKS):
        after = _counted(_families(_scrape(session, rules)), rules.counter)
        rise = max((after[name] - before.get(name, 0) for name in after), default=0)
        if rise >= _REQUESTS:
            break
        time.sleep(_PAUSE_SECONDS)
    if rise < 0 or (
        rise < _REQUESTS
        and any(
            _began(_families(_scrape(session, rules))) != began
            for _ in range(_MORE_LOOKS)
        )
    ):
        raise Inconclusive("several processes answer, each with metrics of its own")
    return Check(
        name="",
        passed=rise >= _REQUESTS,
        expected=f"a counter that rises by {_REQUESTS} or more",
        observed=f"by {rise:.0f}, of {len(before)} counters",
    )


def _scrape(session: Session, rules: ObservabilitySettings) -> Answer:
    answer = session.get(rules.metrics, key=rules.metrics_key)
    if answer.status != 200:
        raise WrongAnswer(expected="200", observed=str(answer.status))
    return answer


def _families(answer: Answer) -> list[Metric]:
    from prometheus_client.openmetrics import parser as openmetrics
    from prometheus_client.parser import text_string_to_metric_families

    is_open = "openmetrics" in answer.headers.get("Content-Type", "")
    parse: Callable[[str], Iterable[Metric]] = (
        openmetrics.text_string_to_metric_families
        if is_open
        else text_string_to_metric_families
    )
    try:
        return list(parse(answer.body.decode()))
    except (ValueError, IndexError, KeyError):
        raise WrongAnswer(
            expected="metrics that Prometheus parses",
            observed=f"{len(answer.body)} bytes that it does not",
        ) from None


def _counted(families: list[Metric], wanted: str) -> dict[str, float]:
    """Return how much each counter of requests has counted, over all its labels."""
    totals: dict[str, float] = {}
    for family in families:
        is_wanted = family.name == wanted.removesuffix("_total")
        if not is_wanted and (wanted or "request" not in family.name):
            continue
        for sample in family.samples:
            if sample.name in (f"{family.name}_total", f"{family.name}_count"):
                totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals


def _began(families: list[Metric]) -> float:
    """Return when the process began that answered; 0 if it does not say."""
    return next(
        (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "process_start_time_seconds"
        ),
        0.0,
    )


def _ids(session: Session, settings: SmokeSettings) -> Check:
    header, seen = settings.observability.request_id, set[str]()

    def judge(answer: Answer) -> str:
        found = answer.headers.getlist(header)
        if len(found) != 1 or not _ID.fullmatch(found[0]):
            return f"{len(found) or 'no'} {header}, none valid"
        if found[0] in seen:
            return f"the {header} of another answer"
        seen.add(found[0])
        return ""

    expected = f"a {header} of its own"
    return examined(settings, expected, judge, identified=False)(session)


def _kept(session: Session, rules: ObservabilitySettings, path: str) -> Check:
    sent = str(uuid4())
    answer = session.get(
        path, key=rules.key, headers={rules.request_id: sent}, identified=False
    )
    is_kept = answer.headers.getlist(rules.request_id) == [sent]
    return faultless("the id that was sent", [] if is_kept else ["another, or none"])


def _malformed(session: Session, rules: ObservabilitySettings, path: str) -> Check:
    mark = secrets.token_hex(8)
    malformed = {
        "a newline": f"{mark}\n {mark}",
        "quotes and spaces": f'{mark}" "level": "info',
        "an encoded newline": f"{mark}%0d%0a{mark}",
        "10,000 letters": mark * 625,
    }
    faults = []
    for name, value in malformed.items():
        try:
            answer = session.get(
                path, key=rules.key, headers={rules.request_id: value}, identified=False
            )
        except Inconclusive:
            session.get(path, key=rules.key)  # it was this request that was refused
            continue
        if any(mark in each for each in (*answer.headers.values(), str(answer.body))):
            faults.append(f"{name} came back")
    return faultless("an id of the service's own, or a refusal", faults)


def _logs(session: Session, rules: ObservabilitySettings, path: str) -> Check:
    begin = _log_size(rules)
    known, refused, canary = str(uuid4()), str(uuid4()), secrets.token_hex(16)
    headers = {name: canary for key in session.target.keys.values() for name in key}
    headers |= {"Authorization": f"Bearer {canary}", "Cookie": f"session={canary}"}
    session.get(path, key=rules.key, headers={rules.request_id: known})
    session.get(
        f"{path}{'&' if '?' in path else '?'}token={canary}",
        headers=headers | {rules.request_id: refused},
    )
    lines: list[str] = []
    deadline = time.monotonic() + _LOG_SECONDS_MAX
    while not all(any(each in line for line in lines) for each in (known, refused)):
        if time.monotonic() > deadline:
            break
        lines = _log_lines(rules, begin, session.target.timeout_seconds)
        time.sleep(_PAUSE_SECONDS)
    sent = [each for key in session.target.keys.values() for each in key.values()]
    hidden = [canary, *(each.split()[-1] for each in sent)]
    return faultless(
        "JSON lines with the id of the request, and no secrets",
        _log_faults(lines, (known, refused), hidden),
    )


def _log_faults(
    lines: list[str], ids: tuple[str, ...], hidden: list[str]
) -> Iterator[str]:
    own = [[line for line in lines if each in line] for each in ids]
    if not all(own):
        yield f"no line with the id in {len(lines)} lines"
    if not all(_is_json(line) for found in own for line in found):
        yield "a line that is no JSON object"
    leaks = sum(any(each in line for each in hidden) for line in lines)
    if leaks:
        yield f"a key or token in {leaks} lines"


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), Mapping)
    except (ValueError, RecursionError):
        return False


def _log_size(rules: ObservabilitySettings) -> int:
    try:
        return rules.log_file.stat().st_size if rules.log_file else 0
    except FileNotFoundError:
        return 0  # it begins with the first request


def _log_lines(
    rules: ObservabilitySettings, begin: int, timeout_seconds: float
) -> list[str]:
    """Return what was logged since then, or all that the program prints.

    Raises:
        Inconclusive: it cannot be read.
    """
    try:
        if rules.log_file:
            with rules.log_file.open("rb") as log:
                # One that is shorter now is another file, by rotation.
                log.seek(begin if begin <= rules.log_file.stat().st_size else 0)
                text = log.read(_LOG_BYTES_MAX)
        else:
            text = subprocess.run(
                rules.log_command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=timeout_seconds,
            ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Inconclusive(f"the log cannot be read: {type(error).__name__}") from error
    return text.decode(errors="replace").splitlines()
