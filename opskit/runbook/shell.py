"""Shell: runs the commands of a runbook, where `opskit` is this very opskit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import opskit
from opskit import process_group, workspace
from opskit.config import configuration_path

_KIND = "runbook"
_PATIENCE_SECONDS = 30
_CALLED_AS = "INV_CALLED_AS"  # see opskit.tasks.output
# A shell that is asked to end waits for the program that it runs, which is asked, too.
_WAIT = "trap 'exit 143' TERM; "
_PROGRAM = """\
import sys

sys.path.insert(0, {root!r})
from opskit.__main__ import main

main()
"""


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands in a folder; they get the inputs by the environment.

    Without a limit in `seconds` a command may take any time.
    """

    folder: Path
    environment: Mapping[str, str]
    seconds: float | None

    def run(self, commands: str) -> str:
        """Run commands; return why they failed, or an empty text.

        They get nothing on standard input, and write to standard error. What they have
        started goes on after them, but not after an interrupt.
        """
        try:
            code = process_group.run(
                ["sh", "-eu", "-c", f"{_WAIT}{commands}"],
                seconds=self.seconds,
                patience=_PATIENCE_SECONDS,
                folder=self.folder,
                environment=self.environment,
            )
        except subprocess.TimeoutExpired:
            return f"it took longer than {self.seconds:g} seconds and was ended"
        except OSError as error:
            return f"it cannot be run: {error.strerror}"
        if code < 0:
            return f"signal {-code} ended it"
        return f"it ended with {code}" if code else ""


@contextmanager
def shell(inputs: Mapping[str, str], *, seconds: float | None) -> Iterator[Shell]:
    """Yield what runs commands in the folder of the configuration."""
    workspace.sweep(_KIND)
    with workspace.throwaway(_KIND) as place:
        program = place / "opskit.py"
        root = str(Path(opskit.__file__).resolve().parents[1])
        program.write_text(_PROGRAM.format(root=root), encoding="utf-8")
        shim = place / "bin" / "opskit"
        shim.parent.mkdir()
        words = shlex.join([sys.executable, "-P", str(program)])
        shim.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        shim.chmod(0o700)
        configuration = configuration_path().resolve()
        path = os.environ.get("PATH", os.defpath)
        yield Shell(
            folder=configuration.parent,
            environment={
                _CALLED_AS: "opskit",
                **os.environ,
                "OPSKIT_CONFIG": str(configuration),
                "PATH": f"{shim.parent}{os.pathsep}{path}",
                **inputs,
            },
            seconds=seconds,
        )
