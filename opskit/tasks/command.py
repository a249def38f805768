"""What every task shares: one JSON document or lines, and the exit code of an error."""

from __future__ import annotations

import contextvars
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from inspect import signature
from typing import Any, NoReturn

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import Task, task

from opskit.errors import (
    Interrupted,
    OpskitError,
    OutOfTime,
    UsageError,
    machine_faults,
)
from opskit.operations.outcome import Failure, Outcome
from opskit.tasks.output import (
    Document,
    Say,
    emit,
    hint,
    shown,
)
from opskit.tasks.signals import run_handlers_soon
from opskit.terminal import protect_streams

BACKUP_HELP = "its ID, the beginning of it, or latest"
_JSON_HELP = "print one JSON document"
# Less than the 90 seconds that systemd waits.
_END_SECONDS = 60.0
_ending: threading.Timer | None = None
_signals = 0
_failure_shown = False
_REPORT_HINT = (
    "This is a fault in opskit: please report it with the command and this message "
    "(OPSKIT_DEBUG=1 shows where it happened)."
)


def command(
    *,
    help: dict[str, str] | None = None,
    iterable: list[str] | None = None,
    required: Sequence[str] = (),
    positional: Sequence[str] = (),
) -> Callable[[Callable[..., Outcome[Any] | None]], Task[Callable[..., None]]]:
    """Make a task of a function that returns the outcome of an operation.

    The function gets what prints lines, and the flags. What failed, or what it raises,
    becomes the exit code of the contract, one line of what failed and one of what to
    do. A traceback is never shown.
    What is `positional` is given without its flag.
    What is `required` has "required" in its help, and is refused if it is missing. The
    help of `--json` is the same everywhere.
    """
    described = {
        flag: f"required: {text}" if flag in required else text
        for flag, text in (help or {}).items()
    }

    def decorate(
        body: Callable[..., Outcome[Any] | None],
    ) -> Task[Callable[..., None]]:
        name = body.__name__.replace("_", "-")

        @functools.wraps(body)
        def wrapper(context: Context, /, **flags: Any) -> None:
            as_json = bool(flags.get("json"))
            protect_streams()
            run_handlers_soon()
            # SIGINT too: a shell starts its background jobs with it ignored.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _interrupt)
            signal.signal(signal.SIGALRM, _interrupt)  # by the scheduler
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # by nohup
                signal.signal(signal.SIGHUP, _interrupt)
            try:
                _refuse_core_flags(context)
                _require(required, flags, task_name=name)
                with machine_faults(name):
                    outcome = body(Say(is_silent=as_json), **flags)
            except Exit:
                raise
            except KeyboardInterrupt:
                fail(_interrupted(), as_json)
            except OpskitError as error:
                fail(error, as_json)
            except Exception as error:
                _track(error)
                if os.environ.get("OPSKIT_DEBUG"):
                    raise
                words = " ".join(str(error).split())
                message = f"unexpected {type(error).__name__}: {words}"
                fail(OpskitError(message, hint=_REPORT_HINT), as_json)
            else:
                finish(outcome, as_json)

        json_help = {"json": _JSON_HELP} if "json" in signature(body).parameters else {}
        made: Task[Callable[..., None]] = task(
            help=described | json_help,
            iterable=iterable or [],
            positional=list(positional),
            auto_shortflags=False,
        )(wrapper)
        return made

    return decorate


def _track(error: Exception) -> None:
    """Report an unexpected error where errors are tracked; it is shown all the same."""
    with suppress(Exception):
        from opskit.watch.tracking import capture

        capture(error)


def whole_number(flag: str, text: str) -> int:
    """Return the value of a flag as a number.

    Flags are texts: for one that is not a number, plain Invoke would show a traceback.

    Raises:
        UsageError: it is not a whole number, or less than 0.
    """
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"{flag} needs a whole number, not {text!r}",
            hint=f"Give a number, for instance {flag} 3.",
        )
    return int(text)


def _refuse_core_flags(context: Context) -> None:
    """Refuse what plain Invoke takes and what would do nothing here.

    Its `--dry` would let a task delete all the same.
    """
    run = context.config.run
    given = [f"--{name}" for name in ("dry", "echo", "pty") if run[name]]
    given += ["--warn-only"] if run.warn else []
    given += ["--command-timeout"] if context.config.timeouts.command else []
    if given:
        raise UsageError(
            f"{given[0]} is a flag of Invoke's own and has no effect here",
            hint="Leave it out. A task that can show what it would do has --dry-run; "
            "its --help says so.",
        )


def _require(required: Sequence[str], flags: dict[str, Any], *, task_name: str) -> None:
    # A flag that is a word of Python has an underscore behind its name.
    missing = [
        f"--{name}"
        for name in required
        if not (flags.get(name) or flags.get(f"{name}_"))
    ]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} needed",
            hint=f"`inv {task_name} --help` says what each flag takes.",
        )


def _interrupt(number: int, _frame: object) -> None:
    global _ending, _signals
    _signals += 1
    if _ending is None:
        within_run = contextvars.copy_context().run  # its log lines are the run's
        _ending = threading.Timer(_END_SECONDS, within_run, (_end_anyway,))
        _ending.daemon = True
        _ending.start()
    raise OutOfTime if number == signal.SIGALRM else KeyboardInterrupt


def _interrupted() -> Interrupted:
    """Return the error of a run that ended by a signal, and not by another one on top.

    Of a second signal nobody knows what it kept from being cleaned up.
    """
    if _signals > 1:
        hint = "The next run removes or takes up what is left."
        return Interrupted("interrupted again while cleaning up", hint=hint)
    return Interrupted("interrupted", hint="Nothing half-done was left.")


def _end_anyway() -> None:
    """End where cleaning up waits too long, as for a store that does not answer.

    The next backup, sweeps and prune remove all that is left behind.
    """
    if _failure_shown:  # threads that wait for a store hold up the very end
        os._exit(Interrupted.exit_code)
    error = Interrupted(
        f"interrupted; cleaning up did not end within {_END_SECONDS:g} seconds",
        hint="The next run removes what is left.",
    )
    with suppress(Exit):
        fail(error, as_json="--json" in sys.argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)


def fail(error: OpskitError, as_json: bool) -> NoReturn:
    """Print what failed and what to do, and end with the error's exit code."""
    failure = Failure.of(error)
    document = {"status": "error"} | failure.as_json() | dict(failure.details)
    _end(failure, document if as_json else None)


def finish(outcome: Outcome[Any] | None, as_json: bool) -> None:
    """Print the document of an outcome, or what failed; end with its exit code."""
    if outcome is None:
        return
    document = outcome.as_json() if as_json else None
    if outcome.errors:
        _end(outcome.errors[0], document)
    if document is not None:
        emit(document)


def _end(failure: Failure, document: Document | None) -> NoReturn:
    global _failure_shown
    _failure_shown = True
    if document is not None:
        emit(document)
    print(f"error: {shown(failure.message)}", file=sys.stderr)
    if failure.hint:
        print(f"hint: {shown(hint(failure.hint))}", file=sys.stderr)
    raise Exit(code=failure.exit_code)
