"""Reads the command line: one task, its flags, and the flags that every task has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from opskit.errors import UsageError

_FLAG = re.compile(r"-[^\s=]+(=|$)")
# The flag here that does what one of Invoke's own would do.
_MEANT = {
    "--dry": "--dry-run",
    "-R": "--dry-run",
    "--debug": "--verbose",
    "-d": "--verbose",
    "-e": "--verbose",
    "--echo": "--verbose",
    "-f": "--config",
}


def general_flags() -> ParserContext:
    """Return the flags that may stand before or after any task."""
    return ParserContext(
        args=[
            Argument(names=("config",), help="read this configuration file"),
            Argument(names=("quiet", "q"), kind=bool, default=False,
                     help="log errors only"),
            Argument(names=("verbose", "v"), kind=bool, default=False,
                     help="log every step, with its details"),
            Argument(names=("help", "h"), kind=bool, default=False,
                     help="show this help, or that of a task"),
            Argument(names=("list", "l"), kind=bool, default=False,
                     help="list the tasks"),
            Argument(names=("version", "V"), kind=bool, default=False,
                     help="show the version"),
            Argument(names=("print-completion-script",),
                     help="print what completes commands in this shell: "
                     "bash, zsh or fish"),
        ]
    )  # fmt: skip


@dataclass
class Call:
    """What was called: a task or none, and the values of the flags."""

    general: ParserContext = field(default_factory=general_flags)
    task: ParserContext | None = None

    def value(self, name: str) -> Any:
        """Return the value of a general flag."""
        return self.general.args[name].value


def parse(words: Sequence[str], tasks: Mapping[str, ParserContext]) -> Call:
    """Read the words after the name of the program.

    Raises:
        UsageError: there is no such task or flag, or a value is missing or wrong.
    """
    return _Reader(words, tasks).read()


class _Reader:
    """Goes through the words once; nothing is guessed, and nothing is ignored."""

    def __init__(
        self, words: Sequence[str], tasks: Mapping[str, ParserContext]
    ) -> None:
        self._left = list(words)
        self._tasks = tasks
        self._call = Call()

    def read(self) -> Call:
        while self._left:
            word = self._left.pop(0)
            if _is_flag(word):
                self._read_flag(word)
            elif self._call.task is None:
                self._call.task = self._task(word)
            else:
                self._read_argument(word)
        return self._call

    def _task(self, word: str) -> ParserContext:
        if word in self._tasks:
            return self._tasks[word]
        close = difflib.get_close_matches(word.replace("_", "-"), self._tasks, n=1)
        meant = f"Did you mean `inv {close[0]}`? " if close else ""
        raise UsageError(
            f"there is no task {word}", hint=f"{meant}`inv --list` shows all tasks."
        )

    def _read_argument(self, word: str) -> None:
        task = self._call.task
        assert task is not None
        for argument in task.positional_args:
            if not argument.got_value:
                argument.value = word
                return
        raise UsageError(
            f"{task.name} takes no argument {word}",
            hint="Run one task at a time; a value follows its flag. "
            f"`inv {task.name} --help` shows the flags.",
        )

    def _read_flag(self, word: str) -> None:
        name, has_value, value = word.partition("=")
        if not name.startswith("--") and len(name) > len("-x"):
            # Several short flags in one word: each of them as a word of its own.
            self._left[:0] = [f"-{letter}" for letter in name[2:]]
            name, has_value = name[:2], ""
        argument = self._known(name)
        if not argument.takes_value:
            if has_value:
                raise UsageError(
                    f"{name} takes no value, and {value!r} was given",
                    hint=f"Give {name} alone.",
                )
            argument.set_value(True)
        elif has_value:
            self._set(argument, name, value)
        else:
            self._take_values(argument, name)

    def _known(self, name: str) -> Argument:
        contexts = [self._call.general]
        if self._call.task is not None:
            contexts.insert(0, self._call.task)
        for context in contexts:
            if name in context.flags:
                argument: Argument = context.flags[name]
                return argument
        raise self._unknown(name)

    def _unknown(self, name: str) -> UsageError:
        """Return the error about a flag, with the one that was probably meant."""
        task = self._call.task
        for word in self._left:
            task = task or self._tasks.get(word)
        known = [*self._call.general.flags, *(task.flags if task else ())]
        close = [_MEANT[name]] if _MEANT.get(name) in known else []
        close = close or difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {close[0]}? " if close else ""
        if task is None:
            return UsageError(
                f"there is no flag {name}", hint=f"{meant}`inv --help` shows the flags."
            )
        wrong = f"{task.name} has no flag {name}"
        if self._call.task is None and name in task.flags:
            wrong, meant = (
                f"{name} stands before its task",
                f"Write {task.name} first. ",
            )
        return UsageError(
            wrong, hint=f"{meant}`inv {task.name} --help` shows the flags."
        )

    def _take_values(self, argument: Argument, name: str) -> None:
        """Take the next word as the value; for a list, all words up to a flag."""
        if not self._left or _is_flag(self._left[0]):
            raise UsageError(
                f"{name} needs a value",
                hint=f"Write it after {name}, or as {name}=VALUE if it begins with -.",
            )
        self._set(argument, name, self._left.pop(0))
        while argument.kind is list and self._left and not _is_flag(self._left[0]):
            self._set(argument, name, self._left.pop(0))

    @staticmethod
    def _set(argument: Argument, name: str, value: str) -> None:
        if not value:
            raise UsageError(
                f"the value of {name} is empty",
                hint=f"Give a value, or leave {name} out.",
            )
        if argument.kind is not list and argument.got_value:
            raise UsageError(f"{name} was given twice", hint=f"Give {name} once.")
        try:
            argument.value = value
        except ValueError:
            raise UsageError(
                f"{name} takes a whole number, and {value!r} was given",
                hint=f"Give a number: `{name} 2`.",
            ) from None


def _is_flag(word: str) -> bool:
    """Tell a flag from a value; a value with a blank, as `-k name`, is none."""
    return _FLAG.match(word) is not None
