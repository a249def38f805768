"""`test` and `bench`: the tasks for working on opskit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from opskit.errors import OpskitError, UsageError
from opskit.tasks.command import command
from opskit.tasks.output import Say

_ROOT = Path(__file__).resolve().parents[1]
_STEPS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
)
_WRONG_CALL = 2  # how argparse ends
_ENDING_SECONDS_MAX = 180


@command(help={"args": "passed on to pytest, for instance '-k retention'"})
def test(_say: Say, args: str = "") -> None:
    """Run every check and the whole test suite.

    Example: inv test --args "-k retention -x"
    """
    programs = Path(sys.executable).parent
    # The tests of a file together: they share the servers that its fixtures start.
    pytest = ("pytest", "-n", _workers(), "--dist", "loadscope", *shlex.split(args))
    if not (programs / pytest[0]).exists():
        raise UsageError(
            "this environment has no development tools",
            hint=f"{_ROOT / 'inv'} test adds them to its own.",
        )
    for step in (*_STEPS, pytest):
        print(f"$ {shlex.join(step)}", flush=True)
        finished = subprocess.run(
            [programs / step[0], *step[1:]], cwd=_ROOT, check=False
        )
        if finished.returncode != 0:
            raise OpskitError(
                f"{step[0]} failed", hint="The lines above say what is wrong."
            )


@command(
    help={
        "size": "of the database: small (50 MB), medium (500), large (2000), or MB",
        "rounds": "how often each contender has its turn",
        "jobs": "processes of restores and of pg_dump -Fd; 0 for one a core",
        "parts": "with a comma between: backup, s3, drill, list, catalog, memory, "
        "curves, stages; or all; the first four if not given",
        "curves": "also measure at three sizes and three numbers of tables",
        "memory": "also measure memory at two sizes an order apart",
        "out": "folder of the results; a new temporary one if not given",
        "work_dir": "where databases and copies lie meanwhile; default: TMPDIR",
        "write": "also put the results into benchmarks/",
    }
)
def bench(
    _say: Say,
    size: str = "small",
    rounds: str = "3",
    jobs: str = "0",
    parts: str = "backup,s3,drill,list",
    curves: bool = False,
    memory: bool = False,
    out: str = "",
    work_dir: str = "",
    write: bool = False,
) -> None:
    """Measure opskit beside what a user would pick instead, in turn, in one run.

    Example: inv bench --size small --rounds 3
    """
    chosen = [parts, *["curves"] * curves, *["memory"] * memory]
    arguments = ["--size", size, "--rounds", rounds, "--jobs", jobs]
    arguments += ["--parts", ",".join(chosen), *["--write"] * write]
    # Relative to where the user is; the run itself is in the repository.
    for flag, path in (("--out", out), ("--work-dir", work_dir)):
        arguments += [flag, str(Path(path).resolve())] if path else []
    code = _benchmarks(arguments)
    if code == _WRONG_CALL:
        raise UsageError("benchmarks were not run", hint="The line above says why.")
    if code != 0:
        raise OpskitError(
            "the benchmarks failed", hint="The last lines above say where."
        )


def _benchmarks(arguments: list[str]) -> int:
    """Run them and return their exit code; interrupted, let them end their servers."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    with subprocess.Popen(command, cwd=_ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            try:
                process.wait(_ENDING_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _workers() -> str:
    # One more than processors: many tests wait for servers to start, or to refuse.
    return str(min(4, (os.cpu_count() or 1) + 1))
