"""`restore-drill` and `quickstart`: prove a backup set by restoring it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opskit.checks import count, duration
from opskit.errors import UsageError
from opskit.tasks import backup as backup_task
from opskit.tasks import release as release_task
from opskit.tasks.command import command, whole_number
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opskit.operations.drill import Drilled
    from opskit.operations.outcome import Outcome

_MADE_BY = {"postgres": "dumped", "files": "backed up"}


@command(
    help={
        "database": "drill the newest set of this database",
        "files": "drill the newest set of this folder",
        "backup": "drill this set: its ID, the beginning of it, or latest",
        "all": "drill the newest set of every source",
        "mutants": "plant so much damage in the copy, to show that the drill can fail",
    }
)
def restore_drill(
    say: Say,
    database: str = "",
    files: str = "",
    backup: str = "",
    all_: bool = False,
    mutants: str = "",
    json: bool = False,
) -> Outcome[Any]:
    """Restore a set into a throw-away server and compare everything.

    Example: inv restore-drill --database shop
    """
    from opskit.operations.drill import RestoreDrillRequest, drill, drill_all
    from opskit.watch.runs import start

    if all_ and (database or files or backup):
        raise UsageError(
            "--all cannot be given with --database, --files or --backup",
            hint="Give one of them.",
        )
    number = whole_number("--mutants", mutants) if mutants else None
    if all_:
        return drill_all(
            start(), mutants=number, on_done=lambda done: say.result(done, summary)
        )
    request = RestoreDrillRequest(
        database=database, files=files, backup=backup, mutants=number
    )
    return say.result(drill(start(), request), summary)


def summary(drilled: Drilled) -> Iterator[str]:
    """Yield what a person wants to read of a drill."""
    evidence, kind = drilled.evidence, drilled.manifest.kind
    figures, subject = evidence.figures, evidence.subject.name
    if evidence.failed:
        yield f"drill of {subject} DID NOT PASS:"
        for check in evidence.failed:
            yield (
                f"  {check.name}: expected {check.expected or 'success'}, "
                f"observed {check.observed or 'failure'}"
                + (f" ({check.detail})" if check.detail else "")
            )
    else:
        compared = f"{count(figures.tables, 'table')}, {count(figures.rows, 'row')}"
        if kind == "files":
            compared = count(figures.files, "entry", "files, folders and links")
        yield f"drill of {subject} passed: {count(len(evidence.made), 'check')}"
        yield (
            f"  {compared} equal exactly what was {_MADE_BY[kind]}; "
            f"on {figures.drill_server}"
        )
    if figures.mutants is not None:
        killed, planted = (figures.mutants[key] for key in ("killed", "planted"))
        yield f"  {killed} of {planted} mutants planted in the copy were noticed"
    for each in evidence.not_checked:
        yield f"  NOT CHECKED {each.name}: {each.detail}"
    if figures.rto_seconds is not None:
        yield f"  a restore takes {duration(figures.rto_seconds)} (RTO)"
    if figures.rpo_seconds is not None:
        yield f"  the data was {duration(figures.rpo_seconds)} old (RPO)"
    yield f"  report: {drilled.report}"


@command(help={"release": "also release a good and a bad version of a small service"})
def quickstart(say: Say, release: bool = False, json: bool = False) -> Outcome[Any]:
    """Boot an embedded PostgreSQL, back it up, and prove the backup by a drill.

    Example: inv quickstart --release
    """
    from opskit.config.watch import SchedulerSettings
    from opskit.operations.quickstart import quickstart as prove_sample

    outcome = prove_sample(
        _folder(),
        on_start=lambda programs: say(f"starting PostgreSQL {programs.version}"),
        on_done=lambda outcome: say.result(outcome, _lines_of(outcome)),
        releases=release,
        on_version=lambda words: say("", words),
        on_step=lambda step: say(f"  {release_task.line_of(step)}"),
    )
    if outcome.result is not None and not outcome.errors:
        rto_seconds = outcome.result.drill.evidence.figures.rto_seconds
        call = f"inv --config {outcome.result.config}"
        say("", f"proved: every row came back; a restore takes {duration(rto_seconds)}")
        if release:
            say(
                "version 2 was released; version 3 was taken back, and 2 ran again",
                f"look at the releases: `{call} releases`",
            )
        say(
            f"look at the sets: `{call} backups`",
            f"see the status page: `{call} scheduler`, "
            f"then open http://{SchedulerSettings().listen}/",
            "(the sample's server is gone, and the page says so)",
        )
    return outcome


def _lines_of(outcome: Outcome[Any]) -> Callable[[Any], Iterable[str]]:
    """Return what makes lines of a result of the quickstart."""
    if outcome.operation != "release":
        return backup_task.summary if outcome.operation == "backup" else summary
    return lambda done: [
        *(f"  {each.summary}" for each in outcome.errors),
        *(f"  {each}" for each in release_task.ending(done, outcome.status)),
    ]


def _folder() -> Path:
    """Return where the sample is kept: here, or where this user may write."""
    here = Path.cwd()
    if not os.access(here, os.W_OK | os.X_OK):
        with suppress(RuntimeError):  # this user has no home
            here = Path.home()
    return here / ".opskit" / "quickstart"
