"""Player: has somebody walk through a runbook, or nobody, and takes it up again."""

from __future__ import annotations

import difflib
import getpass
import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from opskit import locks
from opskit.config.runbooks import RunbooksSettings
from opskit.errors import Interrupted, RunbookRefused, UsageError
from opskit.log import MASK
from opskit.operations import steps
from opskit.operations.outcome import Outcome, Record
from opskit.operations.run import Run
from opskit.runbook import inputs
from opskit.runbook.attempts import LEFT, PASSED, RUNBOOK, Attempt, attempts
from opskit.runbook.shell import shell
from opskit.runbook.text import Runbook, read
from opskit.runbook.walk import PROOF, Ask, Left, Played, Show, Walk, filled


@dataclass(frozen=True, kw_only=True)
class PlayRequest:
    """Which runbook, with which inputs.

    With `dry_run` it is only shown; with `resume` the last attempt is taken up again.
    `unattended` it asks nothing: `destroys` names all that may be destroyed, `skip` the
    numbers of the steps that are not needed.
    """

    name: str
    dry_run: bool = False
    resume: bool = False
    unattended: bool = False
    inputs: Sequence[str] = ()
    destroys: Sequence[str] = ()
    second: str = ""
    skip: Sequence[int] = ()


def play(
    run: Run, request: PlayRequest, *, show: Show, ask: Ask | None
) -> Outcome[Played]:
    """Walk through a runbook; without `ask` there is nobody to answer."""
    with run.recorded(RUNBOOK) as record:
        book = _find(run.settings.runbooks, request.name)
        _require_sense(book, request, can_ask=ask is not None)
        if request.dry_run:
            _plan(run, book, request, record, show)
            return record.outcome
        with locks.exclusive(
            run.state_dir / "locks",
            f"runbook-{book.name}",
            operation=f"{RUNBOOK} {book.name}",
            run_id=run.run_id,
            now=run.now(),
        ):
            ask = None if request.unattended else ask
            _play(run, book, request, record, show, ask)
    return record.outcome


def _plan(
    run: Run, book: Runbook, request: PlayRequest, record: Record, show: Show
) -> None:
    try:
        earlier = _earlier(run, book, request, show) if request.resume else None
    except RunbookRefused:
        record.status = "refused"
        raise
    record.status, record.result = "planned", _played(run, book, request, earlier)
    _show_all(book, record.result, show, _masked(earlier))


def _play(
    run: Run,
    book: Runbook,
    request: PlayRequest,
    record: Record,
    show: Show,
    ask: Ask | None,
) -> None:
    seconds = None
    try:
        earlier = _earlier(run, book, request, show)
        played = record.result = _played(run, book, request, earlier)
        if ask and not earlier:
            show(f"# {book.title}\n\n{book.sections['Decide']}\n")
        _complete(book, played.inputs, show, ask, _masked(earlier))
        if request.unattended:
            _require_agreed(run, book, played, request)
            seconds = run.settings.runbooks.step_timeout.total_seconds()
        with shell(played.inputs, seconds=seconds) as commands:
            record.begin(**played.about)
            Walk(
                run=run,
                book=book,
                played=played,
                shell=commands,
                show=show,
                ask=ask,
                skip=request.skip,
                known=earlier.steps if earlier else {},
            ).go()
        record.status = PASSED
        show(f"\n{book.sections['Afterwards']}\n\nThe runbook {book.name} worked.")
    except RunbookRefused:
        record.status = "refused"
        raise
    except (Left, KeyboardInterrupt) as error:
        record.status, record.ended = LEFT, "interrupted"
        hint = f"`inv runbook --name {book.name} --resume` goes on with it."
        raise Interrupted(
            f"the runbook {book.name} was left",
            hint=hint if record.on_record else "Nothing was run.",
        ) from error
    finally:
        if record.on_record:
            record.status = record.status or "failed"
            record.details |= record.result.as_json() | {"status": record.status}


def _find(settings: RunbooksSettings, name: str) -> Runbook:
    known = {each.stem: each for each in settings.files}
    name = name.removesuffix(".md")
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"there is no runbook {name} in {settings.place}",
            hint=f"{meant}`inv runbook` lists them.",
        )
    return read(known[name])


def _require_sense(book: Runbook, request: PlayRequest, *, can_ask: bool) -> None:
    """Refuse a `--skip` of a step that is needed, and a run that can ask nobody.

    Raises:
        UsageError: the call is one of these.
    """
    optional = [each.number for each in book.steps if each.only_if]
    for number in request.skip:
        if number not in optional:
            raise UsageError(
                f"step {number} of {book.name} cannot be skipped",
                hint="Only a step with `Only if:` can.",
            )
    if not (can_ask or request.unattended or request.dry_run):
        raise UsageError(
            "there is no terminal to ask on",
            hint="Run it on a terminal, or unattended with --yes. --dry-run shows it.",
        )


def _earlier(
    run: Run, book: Runbook, request: PlayRequest, show: Show
) -> Attempt | None:
    """Return the attempt to take up again, the last one; none if it is not resumed."""
    last = next(reversed(attempts(run)[book.name]), None)
    anew = f"Begin anew: `inv runbook --name {book.name}`."
    if last is None or last.status == PASSED:
        if request.resume:
            raise RunbookRefused(f"no run of {book.name} was left or failed", hint=anew)
        return None
    if not request.resume:
        go_on = f"`inv runbook --name {book.name} --resume` goes on with it"
        show(f"The last run of this runbook has not passed; {go_on}.\n")
        return None
    if last.details["digest"] != book.digest:
        raise RunbookRefused(
            f"the runbook {book.name} has changed since it was begun",
            hint=f"`inv ledger --json` shows what was done. {anew}",
        )
    return last


def _played(
    run: Run, book: Runbook, request: PlayRequest, earlier: Attempt | None
) -> Played:
    known, masked = earlier.details["inputs"] if earlier else {}, _masked(earlier)
    given = [f"{name}={each}" for name, each in known.items() if name not in masked]
    return Played(
        attempt=earlier.details["attempt"] if earlier else run.run_id,
        runbook=book.name,
        digest=book.digest,
        operator=run.settings.runbooks.operator or _login(),
        second=request.second,
        rehearsal=request.unattended,
        inputs=inputs.parse(book.inputs, [*given, *request.inputs]),
        steps=[
            *(steps.Step(name=each.name) for each in book.steps),
            steps.Step(name=PROOF),
        ],
    )


def _masked(earlier: Attempt | None) -> Collection[str]:
    """Return the inputs that are masked in the record, and have to be given again."""
    given = earlier.details["inputs"] if earlier else {}
    return {name for name, each in given.items() if MASK in each}


def _login() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # the number of the user has no name here
        return str(os.getuid())


def _complete(
    book: Runbook,
    values: dict[str, str],
    show: Show,
    ask: Ask | None,
    masked: Collection[str],
) -> None:
    """Ask for the inputs that were not given; unattended their defaults are taken.

    What was masked in the record was not the default, so that is not taken for it.

    Raises:
        RunbookRefused: one is missing, and there is nobody to ask.
        Left: the person has left.
    """
    for each in book.inputs:
        fallback = "" if each.name in masked else each.default
        while each.name not in values:
            if ask is None and not fallback:
                raise RunbookRefused(
                    f"the input {each.name} is missing",
                    hint=f"Give it: --input {each.name}=VALUE ({each.about}).",
                )
            default = f" [{fallback}]" if fallback else ""
            line = ask(f"{each.name}: {each.about}{default}:") if ask else ""
            if line is None:
                raise Left
            try:
                given = line.strip() or fallback
                values[each.name] = inputs.check_value(each, given)
            except UsageError as error:
                show(f"{error.message}.")


def _require_agreed(
    run: Run, book: Runbook, played: Played, request: PlayRequest
) -> None:
    """Refuse to begin unattended where somebody would have to agree.

    Raises:
        RunbookRefused: what is destroyed was not named, or no second person.
    """
    needed = [each for each in book.steps if each.number not in request.skip]
    destroyed = [played.inputs[each.destroys] for each in needed if each.destroys]
    for name in destroyed:
        if name not in request.destroys:
            raise RunbookRefused(
                f"the runbook {book.name} destroys {name}",
                hint=f"Agree to that for this run: --destroys {name}.",
            )
    if destroyed and run.settings.runbooks.second_person and not played.has_second:
        raise RunbookRefused(
            "a second person has to agree to what is destroyed",
            hint="Name them: --second NAME.",
        )


def _show_all(
    book: Runbook, played: Played, show: Show, masked: Collection[str]
) -> None:
    """Show a whole runbook, with the inputs that are known filled in."""
    show(f"# {book.title}\n")
    for each in book.inputs:
        fallback = "" if each.name in masked else each.default
        value = played.inputs.setdefault(each.name, fallback or f"${each.name}")
        is_known = value != f"${each.name}"
        show(f"{each.name}={shlex.quote(value) if is_known else ''}  # {each.about}")
    for name, text in book.sections.items():
        show(f"\n## {name}\n\n{filled(text, played.inputs)}")
