"""Shell: runs the commands of a runbook, where `opskit` is this very opskit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opskit import process_group, workspace
from opskit.config import configuration_path

_KIND = "runbook"
_PATIENCE_SECONDS = 30
# A shell that is asked to end waits for the program that it runs, which is asked, too.
_WAIT = "trap 'exit 143' TERM; "


@contextmanager
def shell(
    inputs: Mapping[str, str], *, seconds: float | None
) -> Iterator[Callable[[str], str]]:
    """Yield what runs commands, and returns why they failed or an empty text.

    They run in the folder of the configuration, get the inputs by the environment and
    nothing on standard input, and write to standard error. Without a limit in `seconds`
    they may take any time. What they have started goes on after them, but not after an
    interrupt.
    """
    workspace.sweep(_KIND)
    with workspace.throwaway(_KIND) as place:
        shim = place / "opskit"
        words = f"exec {shlex.quote(sys.executable)} -P -m opskit"
        shim.write_text(f'#!/bin/sh\n{words} "$@"\n', encoding="utf-8")
        shim.chmod(0o700)
        configuration = configuration_path().resolve()
        path = os.environ.get("PATH", os.defpath)
        environment = {
            "INV_CALLED_AS": "opskit",  # see opskit.tasks.output
            **os.environ,
            "OPSKIT_CONFIG": str(configuration),
            "PATH": f"{place}{os.pathsep}{path}",
            **inputs,
        }

        def run(commands: str) -> str:
            try:
                code = process_group.run(
                    ["sh", "-eu", "-c", f"{_WAIT}{commands}"],
                    seconds=seconds,
                    patience=_PATIENCE_SECONDS,
                    folder=configuration.parent,
                    environment=environment,
                )
            except subprocess.TimeoutExpired:
                return f"it took longer than {seconds:g} seconds and was ended"
            except OSError as error:
                return f"it cannot be run: {error.strerror}"
            return f"it ended with {code}" if code else ""

        yield run
