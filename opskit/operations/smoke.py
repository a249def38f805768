"""Smoke: asks a live service what it must answer right, and judges the answers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from opskit import files
from opskit.checks import count, not_checked
from opskit.config.smoke import Profile, SmokeSettings, service_address
from opskit.config.strain import ResilienceSettings
from opskit.config.watch import SloSettings, read_key
from opskit.errors import (
    ConfigurationError,
    OpskitError,
    SmokeFailed,
    StoreError,
    UsageError,
)
from opskit.log import hide, logger
from opskit.operations import reports
from opskit.operations.outcome import Outcome
from opskit.operations.run import Run
from opskit.probes import (
    audit,
    authentication,
    authorisation,
    baseline,
    cors,
    headers,
    health,
    input,
    latency,
    limits,
    load,
    observability,
    pagination,
    rate_limit,
    resilience,
    tls,
    webhooks,
)
from opskit.probes.baseline import Known, nearest, require_known
from opskit.probes.probe import Probe
from opskit.probes.report import Finding, SmokeReport, junit, markdown
from opskit.probes.runner import Runner
from opskit.probes.session import Target

_EVERYTHING, _VERSION = "all", "version"
_CONFIRMATION = Probe(
    name=_VERSION,
    ask=lambda _session: not_checked(_VERSION, "the runner asks it before all others"),
    what="It asks for the version that the service names, on several new connections "
    "in a row.",
    why="While an old instance, a balancer or an edge still answers, the answers to "
    "all other probes say nothing about the version that was deployed.",
    remedy="See whether the deploy has ended, and what is between here and the "
    "service. Let the service name its version in a JSON answer, and name the path and "
    "the field in [smoke.version].",
    profile=Profile.MINIMAL,
)
_NOT_ASKED = "not asked: the version was not confirmed"


@dataclass(frozen=True, kw_only=True)
class SmokeRequest:
    """Which service to ask, how much, and which version it must be.

    What is empty is taken from the settings; with no version only that the service
    names one and the same is confirmed. `junit` and `markdown` are files to write,
    `report` is the name of a report to keep.
    """

    url: str = ""
    profile: str = ""
    version: str = ""
    junit: Path | None = None
    markdown: Path | None = None
    report: str = ""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What probes do, why, and what to change when they fail."""

    probes: tuple[Probe, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the fields of the document."""
        names = ("name", "family", "profile", "what", "why", "remedy")
        return {
            "probes": [
                {name: str(getattr(each, name)) for name in names}
                for each in self.probes
            ]
        }


@dataclass(frozen=True, kw_only=True)
class _Questions:
    """What the settings ask, and which failures they excuse."""

    probes: tuple[Probe, ...]
    not_configured: tuple[str, ...]
    not_in_profile: tuple[str, ...]
    known: dict[str, Known]

    def excused(self, finding: Finding, today: date) -> Finding:
        """Return a finding with what the baseline says of it."""
        known = self.known.get(finding.check.name)
        if known is None:
            return finding
        if known.has_expired(today) and not finding.check.passed:
            expired = f"known to {known.owner} until {known.expires}, which has expired"
            detail = "; ".join(filter(None, (finding.check.detail, expired)))
            return replace(finding, check=replace(finding.check, detail=detail))
        return replace(finding, known=known)


def smoke(
    run: Run,
    request: SmokeRequest,
    *,
    on_finding: Callable[[Finding], None] = lambda _finding: None,
    on_wait: Callable[[str], None] = lambda _what: None,
) -> Outcome[SmokeReport]:
    """Ask the service; `on_finding` gets what became of each probe at once.

    `on_wait` gets what is asked for again until the deadline.
    """
    with run.recorded("smoke", watched=True) as record:
        _require_files(request)
        settings = _settings(run.settings.smoke, request)
        target = _target(settings)
        questions = _questions(settings, run.settings.slo)
        record.begin(
            url=settings.url,
            profile=settings.profile.value,
            version=request.version,
            **_elsewhere(run.settings.smoke, settings),
        )
        found: dict[str, Finding] = {}

        def keep(finding: Finding) -> None:
            found[finding.check.name] = questions.excused(finding, run.now().date())
            on_finding(found[finding.check.name])

        began = time.monotonic()
        runner = Runner(
            target,
            version=settings.version,
            connections=settings.connections,
            deadline=began + settings.deadline.total_seconds(),
            on_wait=on_wait,
        )
        not_asked = _ask(runner, request.version, questions.probes, keep)
        # Nobody has to read of each: that of the version says why.
        for each in not_asked:
            found[each.check.name] = questions.excused(each, run.now().date())
        report = SmokeReport(
            url=settings.url,
            profile=settings.profile,
            started_at=record.started_at,
            findings=_in_order([*found.values()], questions.probes),
            not_configured=questions.not_configured,
            not_in_profile=questions.not_in_profile,
            requests=target.requests.number,
            seconds=round(time.monotonic() - began, 3),
        )
        record.result, record.status = report, report.status
        record.details |= _details(report)
        record.report(*_write(request, report))
        if request.report:
            text = markdown(report)
            reports.keep(run, request.report, report.as_json(), text, record)
        _judge(report)
    return record.outcome


def explain(run: Run, request: SmokeRequest, name: str) -> Outcome[Explained]:
    """Say what a probe, a family, or all probes do, why, and what to change."""
    with run.recorded("smoke") as record:
        settings = _settings(run.settings.smoke, request)
        asked = {_VERSION: (_CONFIRMATION,), **families(settings, run.settings.slo)}
        probes = [each for several in asked.values() for each in several]
        chosen = [e for e in probes if name in (e.name, e.family, _EVERYTHING)]
        family = name.partition(".")[0]
        if asked.get(family) == ():
            lacking = f"Add [smoke.{family}]; docs/configuration.md lists its keys."
            if family == "tls":
                lacking = "Its probes ask a service whose url begins with https://."
            raise UsageError(
                f"nothing is configured for the family {family}",
                hint=f"{lacking} docs/probes.md describes its probes.",
            )
        if not chosen:
            names = [*asked, *(each.name for each in probes)]
            near = nearest(name, names)
            raise UsageError(
                f"there is no probe {name}",
                hint=(f"Did you mean {near}? " if near else "")
                + f"`inv smoke --explain {_EVERYTHING}` explains every probe.",
            )
        record.result = Explained(probes=tuple(chosen))
    return record.outcome


def _settings(settings: SmokeSettings, request: SmokeRequest) -> SmokeSettings:
    given: dict[str, Any] = {}
    if request.url:
        try:
            given["url"] = service_address(request.url)
        except ValueError as error:
            raise UsageError(
                f"--url {error}", hint="Give it as https://app.example."
            ) from None
        if given["url"] != settings.url:
            # What it stops belongs to the configured service, not to this one.
            given["resilience"] = ResilienceSettings()
    if request.profile:
        if request.profile not in [*Profile]:
            raise UsageError(
                f"there is no profile {request.profile}",
                hint=f"Name one of {', '.join(Profile)}.",
            )
        given["profile"] = Profile(request.profile)
    if request.version and not settings.version.field:
        raise UsageError(
            "--version cannot be confirmed: smoke.version.field is empty",
            hint="Set path and field in [smoke.version], or leave --version out.",
        )
    return settings.model_copy(update=given)


def families(settings: SmokeSettings, slo: SloSettings) -> dict[str, tuple[Probe, ...]]:
    """Return the probes of each family; none where nothing is configured for it."""
    asked = {
        "health": health.probes(settings),
        "authentication": authentication.probes(settings),
        "authorisation": authorisation.probes(settings),
        "headers": headers.probes(settings),
        "tls": tls.probes(settings),
        "cors": cors.probes(settings),
        "rate_limit": rate_limit.probes(settings),
        "webhooks": webhooks.probes(settings),
        "limits": limits.probes(settings),
        "input": input.probes(settings),
        "observability": observability.probes(settings),
        "pagination": pagination.probes(settings),
        "latency": latency.probes(settings, slo),
        "audit": audit.probes(settings),
        "resilience": resilience.probes(settings),
        "load": load.probes(settings, slo),
    }
    return {name: tuple(each) for name, each in asked.items()}


def _questions(settings: SmokeSettings, slo: SloSettings) -> _Questions:
    asked = families(settings, slo)
    probes = [each for several in asked.values() for each in several]
    names = [each.name for each in probes]
    unset = [name for name, several in asked.items() if not several]
    for name in settings.advisory:
        require_known(name, [*asked, *names], silent=unset, where="smoke.advisory")
    chosen = tuple(
        replace(each, advisory=True)
        if {each.family, each.name} & {*settings.advisory}
        else each
        for each in probes
        if each.profile in settings.profile.included
    )
    silent = [name for name in asked if name not in {each.family for each in chosen}]
    return _Questions(
        probes=chosen,
        not_configured=tuple(unset),
        not_in_profile=tuple(name for name in silent if name not in unset),
        known={**baseline.load(settings.baseline, probes=names, silent=unset)}
        if settings.baseline
        else {},
    )


def _target(settings: SmokeSettings) -> Target:
    if not settings.url:
        raise UsageError(
            "no service is configured",
            hint="Set url in [smoke], or name one: "
            "`inv smoke --url https://app.example`.",
        )
    keys = {}
    for name, each in settings.keys.items():
        what = f"smoke.keys.{name}.file"
        secret = read_key(what, each.file)
        hide(secret)
        if not (secret.isascii() and secret.isprintable()):
            raise ConfigurationError(
                f"{what} {each.file} holds what no header may carry",
                hint="The file holds the key on its first line, in ASCII.",
            )
        keys[name] = {each.header: each.prefix + secret}
    return Target(
        url=settings.url,
        timeout_seconds=settings.timeout.total_seconds(),
        keys=keys,
        identity=settings.identity,
        ca_file=settings.tls.ca_file,
    )


def _ask(
    runner: Runner,
    version: str,
    probes: Sequence[Probe],
    on_finding: Callable[[Finding], None],
) -> list[Finding]:
    """Ask what can be asked; return what could not, for want of a version."""
    confirmed = runner.confirm(version)
    on_finding(Finding(family=_VERSION, check=confirmed))
    asked = [each for each in probes if confirmed.passed or each.versionless]
    runner.ask(asked, on_finding=on_finding)
    again = runner.confirm_again()
    if again is not None and not again.passed:
        on_finding(Finding(family=_VERSION, check=again))
    return [
        Finding(
            family=each.family,
            check=replace(not_checked(each.name, _NOT_ASKED), advisory=each.advisory),
            asked=False,
        )
        for each in probes
        if each not in asked
    ]


def _in_order(found: Sequence[Finding], probes: Sequence[Probe]) -> tuple[Finding, ...]:
    """Return the findings in the order of the probes, the version first."""
    names = [_VERSION, *(each.name for each in probes)]
    return tuple(sorted(found, key=lambda each: names.index(each.check.name)))


def _elsewhere(configured: SmokeSettings, asked: SmokeSettings) -> dict[str, str]:
    """Return the source of a run that says nothing about the configured service."""
    is_elsewhere = configured.url not in ("", asked.url)
    return {"source": asked.url} if is_elsewhere else {}


def _details(report: SmokeReport) -> dict[str, Any]:
    """Return what the ledger keeps of it."""
    return {
        "status": report.status,
        "requests": report.requests,
        "failed": [each.name for each in report.gating if each.failed],
        "inconclusive": [
            each.check.name
            for each in report.findings
            if each.gates and each.asked and not each.check.failed
        ],
    }


def _require_files(request: SmokeRequest) -> None:
    """Refuse a file that cannot be written, before anything is asked.

    Raises:
        UsageError: it cannot be.
    """
    for flag, path in (("junit", request.junit), ("markdown", request.markdown)):
        if path is not None and (reason := _unwritable(path)):
            raise UsageError(
                f"--{flag} {path}: {reason}",
                hint="Name a file in a folder where this user may write.",
            )
    if request.junit is not None and request.junit == request.markdown:
        raise UsageError(
            f"--junit and --markdown both name {request.junit}",
            hint="Give each a file of its own.",
        )


def _unwritable(path: Path) -> str:
    """Return why a file cannot be written; a device or a link is not replaced."""
    try:
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if path.is_symlink() or (path.exists() and not path.is_file()):
            return "it exists, and is no regular file"
        with tempfile.TemporaryFile(dir=path.parent):
            return ""
    except OSError as error:
        return f"{error.strerror}"


def _write(request: SmokeRequest, report: SmokeReport) -> Iterator[OpskitError]:
    """Write the files; yield an error for each that could not be written."""
    for path, form in ((request.junit, junit), (request.markdown, markdown)):
        try:
            if path is not None:
                files.write_text(path, form(report))
        except OSError as error:
            reason = f"the report {path} cannot be written: {error.strerror}"
            logger().warning("a report is missing", reason=reason)
            yield StoreError(reason, hint="Correct that, then run this again.")


def _judge(report: SmokeReport) -> None:
    """Raise where something did not pass that must.

    Raises:
        SmokeFailed: a probe failed, or was inconclusive.
    """
    if not report.gating:
        return
    failed = [each.name for each in report.gating if each.failed]
    if failed:
        raise SmokeFailed(
            f"{count(len(failed), 'probe')} failed: {', '.join(failed)}",
            hint=f"`inv smoke --explain {failed[0]}` says what to change.",
        )
    first, *others = report.gating
    summary = "the result is inconclusive"
    # They differ from run to run, and people are notified of what is new.
    names = f"{first.name} and {count(len(others), 'other')}" if others else first.name
    if first.name == _VERSION:
        summary += f": the version was not confirmed: {first.detail}"
        names = ""
    raise SmokeFailed(
        summary,
        said=names,
        hint="This is no reason to roll back: no answer was wrong. See whether the "
        "service, and what is in front of it, answers at all; then run this again.",
    )
