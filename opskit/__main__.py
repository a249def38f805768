"""The command line: what `./inv`, `opskit` and `python -m opskit` run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit

from opskit import __version__, log, progress
from opskit.errors import Interrupted, OpskitError, machine_faults
from opskit.tasks import namespace
from opskit.tasks.arguments import Call, parse
from opskit.tasks.command import fail
from opskit.tasks.help import general_help, task_help, task_list
from opskit.terminal import SafeStream, protect_streams

_BROKEN_PIPE_CODE = 141  # as a shell reports a process that SIGPIPE ended


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line, and end with the exit code of the contract."""
    protect_streams()
    words = sys.argv[1:] if words is None else words
    try:
        try:
            with machine_faults("start"):
                _run(words)
        except OpskitError as error:
            fail(error, "--json" in words)
        code = _output_exit_code()
    except Exit as error:
        code = error.code
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    sys.exit(code)


def _output_exit_code() -> int:
    """Return the exit code of a successful run; warn if its output was not written."""
    sys.stdout.flush()
    failure = sys.stdout.failure if isinstance(sys.stdout, SafeStream) else None
    if failure is None:
        return 0
    if isinstance(failure, BrokenPipeError):
        return _BROKEN_PIPE_CODE
    print(  # noqa: T201
        f"warning: standard output could not be written: {failure.strerror}",
        file=sys.stderr,
    )
    return 0


def _run(words: Sequence[str]) -> None:
    tasks = {str(each.name): each for each in namespace.to_contexts()}
    if list(words[:2]) == ["--complete", "--"]:
        from opskit.tasks.help import completions

        print("\n".join(completions(words[2:], tasks)))  # noqa: T201
        return
    call = parse(words, tasks)
    if text := _answer(call):
        print(text)  # noqa: T201
        return
    assert call.task is not None
    log.want(quiet=call.value("quiet"), verbose=call.value("verbose"))
    if call.value("quiet"):
        progress.hide()
    if call.value("config"):
        os.environ["OPSKIT_CONFIG"] = call.value("config")
    namespace[call.task.name](Context(Config(lazy=True)), **call.task.as_kwargs)


def _answer(call: Call) -> str:
    """Return the version, a help text or a list; empty if a task is to be run."""
    if call.value("version"):
        return f"opskit {__version__}"
    if shell := call.value("print-completion-script"):
        from opskit.tasks.help import completion_script

        return completion_script(shell)
    if call.value("help"):
        return task_help(namespace, call.task) if call.task else general_help(namespace)
    if call.value("list") or call.task is None:
        return task_list(namespace)
    return ""


if __name__ == "__main__":
    main()
