"""How the user calls opskit: hints name their commands in the same form."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import opskit

# Set by the wrapper `inv`: what the user typed to call it. Not an OPSKIT_ name: those
# are the configuration.
WRAPPER = "INV_CALLED_AS"
_MODULE = "__main__.py"
# In the texts of the program a command is written `inv TASK` or `invoke TASK`, and a
# document by its path in the repository.
_COMMAND = re.compile(r"(?<=`)(?:\./)?inv(?:oke)?(?= )")
_DOCUMENT = re.compile(r"\b(?:README|(?:docs|runbooks)/[\w-]+)\.md\b")
_PACKAGE = Path(opskit.__file__).resolve().parent


@cache
def program() -> str:
    """Return what to type before the name of a task."""
    if wrapper := os.environ.get(WRAPPER):
        return shlex.quote(wrapper)
    path = Path(sys.argv[0])
    if path.name == _MODULE:
        return "python -m opskit"
    on_path = shutil.which(path.name)
    if path.name == "pytest" or on_path == str(path):
        return path.name
    return shlex.quote(str(path))


def as_called(text: str) -> str:
    """Return a text with its commands in the form that the user calls them."""
    return _COMMAND.sub(lambda _match: program(), text)


def hint(text: str) -> str:
    """Return a hint with commands as they are called and documents where they lie."""
    return _DOCUMENT.sub(lambda match: str(_document(match[0])), as_called(text))


def with_hints(value: Any) -> Any:
    """Return a value with every hint in it as `hint` gives it, however deep it lies."""
    if isinstance(value, list | tuple):
        return [with_hints(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: hint(each) if key == "hint" and isinstance(each, str) else with_hints(each)
        for key, each in value.items()
    }


def _document(name: str) -> Path:
    """Return where a document lies: in the installed package, else in the clone."""
    installed = _PACKAGE / "documents" / name
    return installed if installed.exists() else _PACKAGE.parent / name
