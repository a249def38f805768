"""Help about the command line: the tasks, their flags, completion in a shell."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from invoke.collection import Collection
from invoke.parser.context import ParserContext
from invoke.util import helpline

from opskit.errors import UsageError
from opskit.tasks.arguments import general_flags
from opskit.tasks.output import as_called, program

_GAP = "   "
_INDENT = "  "
_WIDTH_MIN = 24


def general_help(tasks: Collection) -> str:
    """Return how opskit is called, its general flags, and its tasks."""
    return "\n".join(
        [
            f"Usage: {program()} TASK [flags]",
            "",
            "Flags before or after any task:",
            *_columns(general_flags().help_tuples()),
            "",
            task_list(tasks),
        ]
    )


def task_list(tasks: Collection) -> str:
    """Return the tasks, each with the first line of its help."""
    return "\n".join(
        [
            "Tasks:",
            *_columns((name, helpline(tasks[name])) for name in sorted(tasks.tasks)),
            "",
            f"{program()} TASK --help shows the flags of one.",
        ]
    )


def task_help(tasks: Collection, context: ParserContext) -> str:
    """Return what a task does, an example, and its flags."""
    text = inspect.getdoc(tasks[context.name]) or ""
    # The example is written as a command in a text, so that it is shown as called.
    about, _, example = text.partition("Example: ")
    command = as_called(f"`{example.strip()}`").strip("`")
    return "\n".join(
        [
            f"Usage: {program()} {context.name} [flags]",
            "",
            about.strip(),
            "",
            f"Example: {command}",
            "",
            *_flags(context),
            "Every task takes also --config FILE, --quiet, --verbose.",
        ]
    )


def _flags(context: ParserContext) -> list[str]:
    """Return the lines of a task's flags, if it has any."""
    pairs = context.help_tuples()
    return ["Flags:", *_columns(pairs), ""] if pairs else []


def _columns(pairs: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return lines of two columns; the second is wrapped to the terminal's width."""
    rows = list(pairs)
    left = max(len(name) for name, _help in rows)
    width = shutil.get_terminal_size().columns - len(_INDENT) - left - len(_GAP)
    lines = []
    for name, text in rows:
        first, *more = textwrap.wrap(text or "", max(width, _WIDTH_MIN)) or [""]
        lines.append(f"{_INDENT}{name:<{left}}{_GAP}{first}".rstrip())
        lines += [" " * (len(_INDENT) + left + len(_GAP)) + line for line in more]
    return lines


# Each asks the program on the command line, however it is called: the shells find
# `./inv` and `/opt/opskit/inv` by their last part.
_SCRIPTS = {
    "bash": """\
_opskit_complete() {
    local IFS=$'\\n' words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    local found=$("${words[0]}" --complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=($(compgen -W "$found" -- "${words[COMP_CWORD]}"))
}
complete -o default -F _opskit_complete inv opskit invoke
""",
    "zsh": """\
_opskit_complete() {
    local -a found
    found=(${(f)"$("${words[1]}" --complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
autoload -Uz compinit && compinit
compdef _opskit_complete inv opskit invoke
""",
    "fish": """\
function __opskit_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] --complete -- $words 2>/dev/null
end
for name in inv opskit invoke
    complete --command $name --no-files --arguments '(__opskit_complete)'
end
""",
}


def completion_script(shell: str) -> str:
    """Return what a shell must read to complete commands.

    Raises:
        UsageError: there is none for this shell.
    """
    if shell not in _SCRIPTS:
        raise UsageError(
            f"there is no completion for the shell {shell}",
            hint=f"Name one of: {', '.join(_SCRIPTS)}.",
        )
    return _SCRIPTS[shell]


def completions(words: Sequence[str], tasks: Mapping[str, ParserContext]) -> list[str]:
    """Return what can stand in place of the last word; the first is the program.

    Nothing where a value stands: the shell then offers names of files.
    """
    *before, last = words[1:] or [""]
    task = next((tasks[word] for word in before if word in tasks), None)
    if last.startswith("-"):
        contexts = [general_flags(), *([task] if task else [])]
        flags = {flag for context in contexts for flag in context.flag_names()}
        return sorted(flag for flag in flags if flag.startswith("--"))
    return [] if task else sorted(tasks)
