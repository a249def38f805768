"""`test`: linters, type checks, the layer contract, and the whole test suite."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from opskit.errors import OpskitError, UsageError
from opskit.tasks.command import Document, command

_ROOT = Path(__file__).resolve().parents[2]
_STEPS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)


@command(help={"args": "passed on to pytest, for instance '-k retention'"})
def test(_context: object, args: str = "") -> Document:
    """Run every check and the whole test suite.

    Example: inv test --args "-k retention -x"
    """
    if not (_ROOT / "tests").is_dir():
        raise UsageError(
            "the tests are in the project's repository, not in the installed package",
            hint="Clone the repository and run ./inv test there.",
        )
    programs = Path(sys.executable).parent
    # The tests of a file together: they share the servers that its fixtures start.
    pytest = ("pytest", "-n", _workers(), "--dist", "loadscope", *shlex.split(args))
    for step in (*_STEPS, pytest):
        print(f"$ {shlex.join(step)}", flush=True)
        finished = subprocess.run(
            [programs / step[0], *step[1:]], cwd=_ROOT, check=False
        )
        if finished.returncode != 0:
            raise OpskitError(
                f"{step[0]} failed", hint="Its own words above say what is wrong."
            )
    return {}


def _workers() -> str:
    # Servers and compressors run beside the tests: more workers only wait.
    return str(min(4, os.cpu_count() or 1))
