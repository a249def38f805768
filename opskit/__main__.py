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
from opskit.terminal import Lasting, ready

_BROKEN_PIPE_CODE = 141  # as a shell reports who died of it


def main(words: Sequence[str] | None = None) -> None:
    """Run what was called, and end with the exit code of the contract."""
    ready()
    words = sys.argv[1:] if words is None else words
    try:
        try:
            with machine_faults("start"):
                _run(words)
        except OpskitError as error:
            fail(error, "--json" in words)
        code = _of_output()
    except Exit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = Interrupted.exit_code
    sys.exit(code)


def _of_output() -> int:
    """Return the exit code of a run that did all it should; say what was not read."""
    sys.stdout.flush()
    failure = sys.stdout.failure if isinstance(sys.stdout, Lasting) else None
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
    if text := _told_about(call):
        print(text)  # noqa: T201
        return
    assert call.task is not None
    log.want(quiet=call.value("quiet"), verbose=call.value("verbose"))
    if call.value("quiet"):
        progress.hide()
    if call.value("config"):
        os.environ["OPSKIT_CONFIG"] = call.value("config")
    namespace[call.task.name](Context(Config(lazy=True)), **call.task.as_kwargs)


def _told_about(call: Call) -> str:
    """Return what was asked about the command line itself."""
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
