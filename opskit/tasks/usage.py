"""What is printed about the command line itself: help and the list of tasks."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable

from invoke.collection import Collection
from invoke.parser.context import ParserContext
from invoke.util import helpline

from opskit.tasks.call import general_flags
from opskit.tasks.called import as_called, program

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
            "Flags:",
            *_columns(context.help_tuples()),
            "",
            "Every task takes also --config FILE, --quiet, --verbose.",
        ]
    )


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
