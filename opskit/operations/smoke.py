"""Smoke: asks a live service what it must answer right, and judges the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opskit.checks import count
from opskit.config.smoke import Profile, SmokeSettings
from opskit.config.watch import read_key
from opskit.errors import SmokeFailed, UsageError
from opskit.log import hide
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.probes.families import families
from opskit.probes.probe import Probe
from opskit.probes.runner import Finding, Runner
from opskit.probes.session import Target


@dataclass(frozen=True, kw_only=True)
class SmokeRequest:
    """Which service to ask, how much, and which version it must be.

    What is empty is taken from the settings; with no version only that the service
    names one and the same is confirmed.
    """

    url: str = ""
    profile: str = ""
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Smoked:
    """What was asked of the service, and how it answered."""

    url: str
    profile: Profile
    findings: tuple[Finding, ...]
    not_configured: tuple[str, ...]
    requests: int
    seconds: float

    @property
    def status(self) -> str:
        """In a word: a wrong answer is worse than none."""
        gating = [each.check for each in self.findings if each.gates]
        if any(each.failed for each in gating):
            return "failed"
        return "inconclusive" if gating else "passed"

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the contract."""
        return {
            "url": self.url,
            "profile": self.profile.value,
            "checks": [
                each.check.as_json()
                | {"family": each.family, "advisory": each.check.advisory}
                for each in self.findings
            ],
            "not_configured": list(self.not_configured),
            "requests": self.requests,
            "seconds": self.seconds,
        }


def smoke(
    run: Run,
    request: SmokeRequest,
    *,
    on_finding: Callable[[Finding], None] = lambda _finding: None,
) -> Outcome[Smoked]:
    """Ask the service; `on_finding` gets what became of each probe at once."""
    with run.recorded("smoke", watched=True) as record:
        settings = _settings(run.settings.smoke, request)
        target = _target(settings)
        record.begin(url=settings.url, profile=settings.profile.value)
        began = time.monotonic()
        asked = dict(families(settings, run.settings.slo))
        findings = _ask(settings, target, asked, request.version, on_finding)
        smoked = Smoked(
            url=settings.url,
            profile=settings.profile,
            findings=tuple(findings),
            not_configured=tuple(name for name in asked if not asked[name]),
            requests=target.requests.number,
            seconds=round(time.monotonic() - began, 3),
        )
        _judge(record, smoked)
    return record.outcome


def _settings(settings: SmokeSettings, request: SmokeRequest) -> SmokeSettings:
    given = {"url": request.url, "profile": request.profile}
    known = {key: value for key, value in given.items() if value}
    settings = SmokeSettings.model_validate(settings.model_dump() | known)
    if not settings.url:
        raise UsageError(
            "no service is configured",
            hint="Set url in [smoke], or give it: `inv smoke --url https://…`.",
        )
    return settings


def _target(settings: SmokeSettings) -> Target:
    keys = {}
    for name, each in settings.keys.items():
        secret = read_key(f"smoke.keys.{name}.file", each.file)
        hide(secret)
        keys[name] = {each.header: each.prefix + secret}
    return Target(
        url=settings.url,
        timeout_seconds=settings.timeout.total_seconds(),
        keys=keys,
        identity=settings.identity,
        ca_file=settings.tls.ca_file,
    )


def _ask(
    settings: SmokeSettings,
    target: Target,
    asked: Mapping[str, Sequence[Probe]],
    version: str,
    on_finding: Callable[[Finding], None],
) -> list[Finding]:
    probes = [
        each
        for several in asked.values()
        for each in several
        if each.profile in settings.profile.included
    ]
    runner = Runner(
        target,
        version=settings.version,
        connections=settings.connections,
        deadline=time.monotonic() + settings.deadline.total_seconds(),
    )
    first = Finding(family="version", check=runner.confirm(version))
    on_finding(first)
    if not first.check.passed:
        probes = [each for each in probes if each.versionless]
    return [first, *runner.ask(probes, on_finding=on_finding)]


def _judge(record: Record, smoked: Smoked) -> None:
    """Raise where not all passed.

    Raises:
        SmokeFailed: a probe failed, or was inconclusive.
    """
    record.result, record.status = smoked, smoked.status
    record.details |= {"status": smoked.status, "requests": smoked.requests}
    gating = [each.check for each in smoked.findings if each.gates]
    failed = [each.name for each in gating if each.failed]
    if failed:
        raise SmokeFailed(
            f"{count(len(failed), 'probe')} failed: {', '.join(failed)}",
            hint=f"`inv smoke --explain {failed[0]}` says what to change.",
        )
    if gating:
        silent = [each.name for each in gating]
        raise SmokeFailed(
            f"inconclusive: no answer of the service to {', '.join(silent)}",
            hint="This is no reason to roll back: see whether the service and what is "
            "in front of it can be reached, then run this again.",
        )
