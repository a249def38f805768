"""How the user calls opskit: hints name their commands in the same form."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

# Set by the wrapper `inv`: what the user typed to call it. Not an OPSKIT_ name: those
# are the configuration.
WRAPPER = "INV_CALLED_AS"
_MODULE = "__main__.py"
# In the texts of the program a command is written `inv TASK`.
_COMMAND = re.compile(r"(?<=`)(?:\./)?inv(?= )")


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
