"""`smoke`: what a live service must answer right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.smoke import Explained


@command(
    help={
        "url": "address of the service; by default that of the configuration",
        "profile": "how much is asked: minimal, standard or strict",
        "version": "the version that the service must name",
        "explain": "say what this probe or family does and what to change when it "
        "fails; all: every probe",
        "junit": "write the result to this file, as JUnit's XML",
        "markdown": "write the result to this file, as Markdown",
    }
)
def smoke(
    say: Say,
    url: str = "",
    profile: str = "",
    version: str = "",
    explain: str = "",
    junit: str = "",
    markdown: str = "",
    json: bool = False,
) -> Outcome[Any]:
    """Ask a live service what it must answer right.

    Example: inv smoke --url https://app.example
    """
    from opskit.checks import count
    from opskit.operations import smoke as operations
    from opskit.probes import report
    from opskit.watch.runs import start

    request = operations.SmokeRequest(
        url=url,
        profile=profile,
        version=version,
        junit=Path(junit) if junit else None,
        markdown=Path(markdown) if markdown else None,
    )
    if explain:
        explained = operations.explain(start(), request, explain)
        say(*_explanations(explained))
        return explained
    outcome = operations.smoke(
        start(),
        request,
        on_finding=lambda finding: say(*report.lines(finding)),
        on_wait=lambda what: say(f"asked again     {what}"),
    )
    if (smoked := outcome.result) is not None:
        if not_asked := sum(not each.asked for each in smoked.findings):
            say(f"not asked       {count(not_asked, 'other probe')}")
        for reason, names in smoked.left_out.items():
            say(f"{reason}  {', '.join(names)}")
        say(smoked.summary)
    return outcome


def _explanations(outcome: Outcome[Explained]) -> Iterator[str]:
    for each in outcome.result.probes if outcome.result else ():
        yield f"{each.name} (family {each.family}, from profile {each.profile} on)"
        yield f"  what: {each.what}"
        yield f"  why: {each.why}"
        yield f"  when it fails: {each.remedy}"
