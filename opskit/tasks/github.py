"""`github`: what the workflows on GitHub need of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opskit.errors import UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.github.workflow import Done
    from opskit.operations.outcome import Outcome


@command(
    help={
        "issue": "have an issue of this title open while --outcome is not success",
        "outcome": "what became of a step: steps.ID.outcome",
        "pull_request": "have a pull request open with --files in this folder of the "
        "repository",
        "files": "the folder whose files are put there; with --issue, of evidence",
        "secrets": "write the secrets in the variables PG…FILE, AWS_…_FILE and "
        "OPSKIT_…_FILE into files; later steps find the files",
    }
)
def github(
    say: Say,
    issue: str = "",
    outcome: str = "",
    pull_request: str = "",
    files: str = "",
    secrets: bool = False,
    json: bool = False,
) -> Outcome[Done]:
    """Open or close an issue or a pull request, as a step of a workflow on GitHub.

    Example: inv github --issue "Restore drill failed" --outcome failure
    """
    from opskit.github import workflow
    from opskit.github.rest import GitHub
    from opskit.log import run_id
    from opskit.operations.outcome import Outcome

    began = datetime.now(UTC)
    if (
        [bool(issue), bool(pull_request), secrets].count(True) != 1
        or bool(issue) != bool(outcome)
        or bool(files and not issue) != bool(pull_request)
    ):
        raise UsageError(
            "one thing has to be named",
            hint="Give --issue with --outcome, --pull-request with --files, or "
            "--secrets.",
        )
    if issue:
        result = workflow.Result.of(outcome, Path(files) if files else None)
        done = workflow.report_issue(GitHub.of(os.environ), issue, result)
        say(f"issue: {done.action} {done.url}".rstrip())
    elif pull_request:
        done = workflow.propose(GitHub.of(os.environ), pull_request, Path(files))
        say(f"pull request: {done.action} {done.url}".rstrip())
    else:
        names = workflow.put_into_files(os.environ)
        done = workflow.Done(action="written")
        say(f"written into files: {', '.join(names) or 'no secret is set'}")
    return Outcome(
        operation="github",
        status="ok",
        run_id=run_id(),
        started_at=began,
        seconds=round((datetime.now(UTC) - began).total_seconds(), 3),
        result=done,
    )
