"""Output: lines or one JSON document, with commands in the form the user calls them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from opskit import log
from opskit.log import mask, masked
from opskit.operations.outcome import Outcome, Result
from opskit.terminal import printable

# Set by the wrapper `inv`: what the user typed to call it. Not an OPSKIT_ name: those
# are the configuration.
WRAPPER = "INV_CALLED_AS"
_MODULE = "__main__.py"
_INVOKE = ("inv", "invoke")
# What tasks begin with where they are among the user's own, as `init` describes it; the
# program of that name has them too.
_OURS = "opskit."
# In the texts of the program a command is written `inv TASK` or `invoke TASK`, and a
# document by its path in the repository.
_COMMAND = re.compile(r"(?<=`)(?:\./)?inv(?:oke)?(?= )")
_DOCUMENT = re.compile(r"\b(?:README|(?:docs|runbooks)/[\w-]+)\.md\b")
Document = dict[str, Any]
_Result = TypeVar("_Result", bound=Result)


@cache
def program() -> str:
    """Return what to type before the name of a task."""
    if wrapper := os.environ.get(WRAPPER):
        return shlex.quote(wrapper)
    path = Path(sys.argv[0])
    if path.name == _MODULE:
        return "python -m opskit"
    if path.name in _INVOKE and any(e.startswith(_OURS) for e in sys.argv[1:]):
        return "opskit"
    on_path = shutil.which(path.name)
    if path.name == "pytest" or on_path == str(path):
        return path.name
    return shlex.quote(str(path))


def as_called(text: str) -> str:
    """Return a text with its commands in the form that the user calls them."""
    return _COMMAND.sub(lambda _match: program(), text)


def hint(text: str) -> str:
    """Return a hint with commands as they are called and documents where they lie."""
    from opskit.files import documents

    return _DOCUMENT.sub(lambda match: str(documents() / match[0]), as_called(text))


_AS_SHOWN = {"hint": hint, "error": as_called}


def with_hints(value: Any) -> Any:
    """Return a value with its hints and errors as `shown`, at any depth."""
    if isinstance(value, list | tuple):
        return [with_hints(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _AS_SHOWN[key](each)
        if key in _AS_SHOWN and isinstance(each, str)
        else with_hints(each)
        for key, each in value.items()
    }


def emit(document: Document) -> None:
    """Print the one JSON document of a task; each has a status and a run's id."""
    document = {"status": "ok", "run_id": log.run_id()} | document
    # In ASCII: a name in an unknown encoding must come out on any terminal.
    print(json.dumps(masked(with_hints(document))))


@dataclass(frozen=True, kw_only=True)
class Say:
    """Prints lines for a person, or nothing where the output is for a program."""

    is_silent: bool

    def __call__(self, *lines: str) -> None:
        """Print lines at once."""
        if not self.is_silent:
            for line in lines:
                print(shown(line), flush=True)

    def result(
        self, outcome: Outcome[_Result], lines: Callable[[_Result], Iterable[str]]
    ) -> Outcome[_Result]:
        """Print the lines of an outcome's result, if it has one; return the outcome."""
        if outcome.result is not None:
            self(*lines(outcome.result))
        return outcome


def shown(text: str) -> str:
    """Return what a person is shown of a text."""
    return printable(mask(as_called(text)))


def moment(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
