"""`smoke`: what a live service must answer right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opskit.checks import count
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.smoke import Smoked
    from opskit.probes.runner import Finding


@command(
    help={
        "url": "address of the service; by default that of the configuration",
        "profile": "how much is asked: minimal, standard or strict",
        "version": "the version that the service must name",
        "json": "print one JSON document",
    }
)
def smoke(
    say: Say, url: str = "", profile: str = "", version: str = "", json: bool = False
) -> Outcome[Smoked]:
    """Ask a live service what it must answer right.

    Example: inv smoke --url https://app.example
    """
    from opskit.operations.smoke import SmokeRequest
    from opskit.operations.smoke import smoke as ask
    from opskit.watch.runs import start

    request = SmokeRequest(url=url, profile=profile, version=version)
    outcome = ask(start(), request, on_finding=lambda each: say(*_lines(each)))
    if (smoked := outcome.result) is not None:
        say(*(f"not configured  {each}" for each in smoked.not_configured))
        say(
            f"{smoked.status}: {count(len(smoked.findings), 'probe')}, "
            f"{count(smoked.requests, 'request')}, {smoked.seconds:.1f} s"
        )
    return outcome


def _lines(finding: Finding) -> list[str]:
    check = finding.check
    word = {True: "passed", False: "failed", None: "inconclusive"}[check.passed]
    lines = [f"{word:<14}  {check.name}"]
    if not check.passed:
        lines += [
            f"    {name} {text}"
            for name, text in (
                ("expected", check.expected),
                ("observed", check.observed),
                ("detail", check.detail),
            )
            if text
        ]
    return lines
