"""What every task shares: one JSON document or lines, and the exit code of an error."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from invoke.exceptions import Exit
from invoke.tasks import Task, task

from opskit.errors import Interrupted, OpskitError
from opskit.masking import mask, masked

Document = dict[str, Any]
# Less than the 90 seconds that systemd waits.
_END_SECONDS = 60.0
_ending: threading.Timer | None = None
_told = False
_REPORT_HINT = (
    "This is a fault in opskit: please report it with the command and this message "
    "(OPSKIT_DEBUG=1 shows where it happened)."
)


def command(
    *, help: dict[str, str] | None = None, iterable: list[str] | None = None
) -> Callable[[Callable[..., Document]], Task[Callable[..., None]]]:
    """Make a task of a function that returns the document for `--json`.

    The function gets the flags; what it raises becomes the exit code of the contract,
    one line of what failed and one of what to do. A traceback is never shown.
    """

    def decorate(body: Callable[..., Document]) -> Task[Callable[..., None]]:
        @functools.wraps(body)
        def wrapper(*arguments: Any, **flags: Any) -> None:
            as_json = bool(flags.get("json"))
            _print_anything()
            # SIGINT too: a shell starts its background jobs with it ignored.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _interrupt)
            try:
                document = body(*arguments, **flags)
            except (Exit, BrokenPipeError):
                raise
            except KeyboardInterrupt:
                _fail(
                    Interrupted("interrupted", hint="Nothing half-done was left."),
                    as_json,
                )
            except OpskitError as error:
                _fail(error, as_json)
            except Exception as error:
                if os.environ.get("OPSKIT_DEBUG"):
                    raise
                _fail(OpskitError(_unexpected(error), hint=_REPORT_HINT), as_json)
            else:
                if as_json:
                    emit(document)

        made: Task[Callable[..., None]] = task(
            help=help or {}, iterable=iterable or [], auto_shortflags=False
        )(wrapper)
        return made

    return decorate


def emit(document: Document) -> None:
    """Print the one JSON document of a task."""
    # In ASCII: a name in an unknown encoding must come out on any terminal.
    print(json.dumps(masked(document)))


def say(line: str, *, as_json: bool) -> None:
    """Print a line for a person, unless the output is for a program."""
    if not as_json:
        print(mask(line), flush=True)


def _print_anything() -> None:
    """Names come in any encoding; none of them may keep a message from being told."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_number: int, _frame: object) -> None:
    global _ending
    if _ending is None:
        _ending = threading.Timer(_END_SECONDS, _end_anyway)
        _ending.daemon = True
        _ending.start()
    raise KeyboardInterrupt


def _end_anyway() -> None:
    """End where cleaning up waits too long, as for a store that does not answer.

    All that is left behind is found: by the next backup, by sweeps, by prune.
    """
    if _told:  # threads that wait for a store hold up the very end
        os._exit(Interrupted.exit_code)
    error = Interrupted(
        f"interrupted; cleaning up did not end within {_END_SECONDS:g} seconds",
        hint="What is left, the next run removes.",
    )
    with suppress(Exit):
        _fail(error, as_json="--json" in sys.argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)


def _unexpected(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def _fail(error: OpskitError, as_json: bool) -> None:
    """Print what failed and what to do, and end with the error's exit code."""
    global _told
    _told = True
    if as_json:
        emit(
            {"status": "error", "code": error.exit_code, "error": error.message,
             "hint": error.hint} | error.details
        )  # fmt: skip
    print(f"error: {mask(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {mask(error.hint)}", file=sys.stderr)
    raise Exit(code=error.exit_code)
