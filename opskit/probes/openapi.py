"""OpenAPI: schemathesis makes up requests from a service's description, where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from opskit.checks import Check, count, not_checked
from opskit.config.smoke import Profile, SmokeSettings
from opskit.probes.probe import Inconclusive, Probe, WrongAnswer
from opskit.probes.session import Session
from opskit.workspace import throwaway

_SEED = "1"
# Over the time that schemathesis is given, for its start and its report.
_SECONDS_MORE = 15
_REPORT = "report.json"


def probe(settings: SmokeSettings) -> Probe:
    """Return the probe; it is advisory: it judges the description as well."""
    return Probe(
        name="input.openapi",
        ask=partial(_ask, settings),
        what="It runs schemathesis over the OpenAPI document, with GET alone: the "
        "examples and the edges of each parameter, always the same ones.",
        why="Requests that are made up from the description find what nobody thought "
        "of: errors behind a parameter, and answers that the description denies.",
        remedy="Run `schemathesis run --include-method GET --phases examples,coverage "
        "--seed 1 URL` to see each failure with a command that repeats it; install "
        "schemathesis with opskit's extra `openapi`.",
        profile=Profile.STRICT,
        advisory=True,
        alone=True,
    )


def _ask(settings: SmokeSettings, session: Session) -> Check:
    if find_spec("schemathesis") is None:
        return not_checked("", "schemathesis is not installed")
    wanted = settings.input.openapi
    seconds = wanted.time.total_seconds()
    status = session.get(wanted.path, key=wanted.key).status
    if status != 200:
        raise WrongAnswer(expected="200 with a document", observed=str(status))
    with throwaway("openapi") as folder:
        headers = dict(session.target.credential(wanted.key))
        # The values are in the environment: neither on disk nor on a command line.
        secrets = {f"HEADER_{at}": value for at, value in enumerate(headers.values())}
        (folder / "schemathesis.toml").write_text(_configuration(list(headers)))
        try:
            subprocess.run(
                _command(settings, int(seconds)),
                cwd=folder,
                env={"PATH": os.defpath, "HOME": str(folder), **secrets},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=seconds + _SECONDS_MORE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return not_checked("", f"schemathesis did not end in {seconds:g} s")
        return _judged(folder / _REPORT, session)


def _configuration(headers: list[str]) -> str:
    lines = ", ".join(
        f'{json.dumps(name)} = "${{HEADER_{at}}}"' for at, name in enumerate(headers)
    )
    # It would otherwise try DELETE on every path, to see it refused.
    return f"headers = {{ {lines} }}\nphases.coverage.unexpected-methods = []\n"


def _command(settings: SmokeSettings, seconds: int) -> list[str]:
    options = {
        "--include-method": "GET",
        "--phases": "examples,coverage",
        "--seed": _SEED,
        "--max-time": str(seconds),
        "--request-timeout": str(settings.timeout.total_seconds()),
        "--generation-database": "none",
        "--report": "json",
        "--report-json-path": _REPORT,
    }
    url = settings.url.rstrip("/") + settings.input.openapi.path
    own = ["--config-file", "schemathesis.toml", "run", url]
    given = [word for pair in options.items() for word in pair]
    return [sys.executable, "-m", "schemathesis.cli", *own, *given]


def _judged(report: Path, session: Session) -> Check:
    """Return what the report says, in numbers: it holds requests and answers.

    Raises:
        Inconclusive: there is none, or it is of nothing.
    """
    try:
        document = json.loads(report.read_bytes())
        cases = document["test_cases"]
        sent, failed = cases["generated"], cases["unique_failures"]
        is_whole = document["complete"]
    except (OSError, ValueError, LookupError):
        raise Inconclusive("schemathesis wrote no report") from None
    for _ in range(sent):
        session.target.requests.add()
    if not sent:
        raise Inconclusive("schemathesis sent nothing")
    ended = "" if is_whole else ", not all in the time given"
    return Check(
        name="",
        passed=not failed,
        expected="no failure",
        observed=f"{count(failed, 'failure')} in {count(sent, 'request')}{ended}",
    )
