"""`runbook`: lists the runbooks, and walks through one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from opskit.errors import ConfigurationError, UsageError
from opskit.tasks import output
from opskit.tasks.command import command, whole_number
from opskit.tasks.output import Say

if TYPE_CHECKING:
    from opskit.operations.outcome import Outcome
    from opskit.operations.run import Run
    from opskit.runbook.attempts import Listing


@command(
    help={
        "name": "the runbook; ./inv and opskit take it without the flag",
        "list_": "list the runbooks, with when each was last rehearsed",
        "dry_run": "only show it, with the inputs filled in",
        "resume": "take up the last run of it, if that was left or failed",
        "yes": "rehearse it: ask nothing, and run every step",
        "input": "name=value of an input; can be given more than once",
        "destroys": "with --yes: the name of what may be destroyed; can be given more "
        "than once",
        "second": "the second person, who agrees to what is destroyed",
        "skip": "the number of a step that is not needed; can be given more than once",
    },
    iterable=["input", "destroys", "skip"],
    positional=["name"],
)
def runbook(
    say: Say,
    name: str = "",
    list_: bool = False,
    dry_run: bool = False,
    resume: bool = False,
    yes: bool = False,
    input: list[str] | None = None,
    destroys: list[str] | None = None,
    second: str = "",
    skip: list[str] | None = None,
    json: bool = False,
) -> Outcome[Any]:
    """List the runbooks, or walk through one: each step, its proof, on record.

    Example: inv runbook database-lost --input database=shop
    """
    from opskit.runbook.attempts import list_runbooks
    from opskit.runbook.play import PlayRequest, play

    if list_ or not name:
        if name or dry_run or resume or yes or input or destroys or second or skip:
            raise UsageError(
                "only --json goes with the list of runbooks",
                hint="To walk through one, name it: `inv runbook --name NAME`.",
            )
        return say.result(list_runbooks(_run(needs_none=True)), _lines)
    request = PlayRequest(
        name=name,
        dry_run=dry_run,
        resume=resume,
        unattended=yes,
        inputs=input or (),
        destroys=destroys or (),
        second=second,
        skip=[whole_number("--skip", each) for each in skip or ()],
    )

    stream = sys.stderr if json else sys.stdout

    def show(text: str) -> None:
        print(output.shown(text.expandtabs()), file=stream, flush=True)

    def ask(question: str) -> str | None:
        print(output.shown(question), end=" ", file=stream, flush=True)
        try:
            return sys.stdin.readline() or None
        except UnicodeDecodeError:
            return ""  # whatever that was, it is no answer
        except OSError:
            return None  # the terminal is gone

    run = _run(needs_none=dry_run)
    return play(run, request, show=show, ask=ask if sys.stdin.isatty() else None)


def _run(*, needs_none: bool) -> Run:
    """Begin a run, also where everything is lost and there is no configuration yet."""
    from opskit.config import Settings, configuration_path
    from opskit.operations.run import begin
    from opskit.watch.runs import start

    if configuration_path().exists():
        return start()
    if needs_none:
        return begin(Settings())
    try:
        return start()
    except ConfigurationError as error:
        raise error.replace(hint=f"{error.hint} --dry-run shows the runbook.") from None


def _lines(listing: Listing) -> Iterator[str]:
    head = ["runbook", "last run", "by", "result", "due", "title"]
    yield from output.table(head, [_row(each) for each in listing.runbooks])
    yield f"folder: {listing.folder}"


def _row(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], "", "", "", "", row["error"]]
    last = row["last"] or {"time": "never", "operator": "", "result": ""}
    return [
        row["name"],
        last["time"][:10],
        last["operator"],
        last["result"] + (", rehearsal" if last.get("rehearsal") else ""),
        "now" if row["overdue"] else row["due"][:10],
        row["title"],
    ]
