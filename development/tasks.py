"""`test`, `bench`, `audit` and `gamedays`: the tasks for working on opskit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
# A key that opens nothing but backups that tests read, see the README beside it.
_FIXTURE = "tests/fixtures/written_by_0_1/keys/identity"
# In the files and in the whole history; what is found is not tried out.
SECRETS = (
    "kingfisher", "scan", ".", "--no-validate", "--no-update-check", "--redact",
    "--quiet", "--exclude", ".venv", "--exclude", _FIXTURE,
)  # fmt: skip
# Strict: what could not be looked up counts as a hole.
_HOLES = (
    "pip-audit", "--strict", "--disable-pip", "--require-hashes",
    "--progress-spinner", "off", "--requirement", "requirements-dev.lock",
)  # fmt: skip
_SHELLS = b"#!/bin/sh", b"#!/bin/ba"
_NOT_OURS = {".git", ".venv", "node_modules"}
_WRONG_CALL = 2  # how argparse ends
_ENDING_SECONDS_MAX = 180


@command(help={"args": "passed on to pytest, for instance '-k retention'"})
def test(_say: Say, args: str = "") -> None:
    """Run every check and the whole test suite.

    Example: inv test --args "-k retention -x"
    """
    # The tests of a file together: they share the servers that its fixtures start.
    pytest = ("pytest", "-n", _workers(), "--dist", "loadscope", *shlex.split(args))
    workflows = [*_ROOT.glob(".github/workflows/*.yml"), *_ROOT.glob("workflows/*.yml")]
    _run(*_STEPS, *workflow_checks(workflows), script_check(_ROOT), pytest)


@command()
def audit(_say: Say) -> None:
    """Look for known vulnerabilities in the locked packages, and for secrets.

    Secrets are looked for in the files and in the history.

    Example: inv audit
    """
    _run(SECRETS, _HOLES)


def workflow_checks(workflows: Sequence[Path]) -> tuple[tuple[str, ...], ...]:
    """Return the commands that judge workflows of GitHub."""
    paths = tuple(map(str, workflows))
    schema = ("--builtin-schema", "vendor.github-workflows")
    judged = ("--quiet", "--offline", "--persona", "auditor", "--strict-collection")
    return ("check-jsonschema", *schema, *paths), ("zizmor", *judged, *paths)


def script_check(folder: Path) -> tuple[str, ...]:
    """Return the command that judges the shell scripts in a folder."""
    scripts = [path for path in _files(folder) if _is_script(path)]
    return ("shellcheck", *map(str, sorted(scripts)))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each not in _NOT_OURS]
        yield from (Path(parent, each) for each in files)


def _is_script(path: Path) -> bool:
    if not path.is_file():  # a link that leads nowhere, for instance
        return False
    with path.open("rb") as opened:
        return opened.read(9).startswith(_SHELLS)


def _run(*steps: Sequence[str]) -> None:
    programs = Path(sys.executable).parent
    if not all((programs / step[0]).exists() for step in steps):
        raise UsageError(
            "this environment has no development tools",
            hint=f"{_ROOT / 'inv'} test adds them to its own.",
        )
    for step in steps:
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
        "curves, stages, nights, fleet; or all; the first four if not given",
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
    code = _run_module("benchmarks", arguments)
    if code == _WRONG_CALL:
        raise UsageError("benchmarks were not run", hint="The line above says why.")
    if code != 0:
        raise OpskitError(
            "the benchmarks failed", hint="The last lines above say where."
        )


@command(help={"names": "of game days, with a comma between; all if not given"})
def gamedays(_say: Say, names: str = "") -> None:
    """Break a running system for each runbook, follow it, and record what was seen.

    Example: inv gamedays --names "database-lost,store-*"
    """
    chosen = [each.strip() for each in names.split(",") if each.strip()]
    if _run_module("tests.gamedays", ["--record", *chosen]) != 0:
        raise OpskitError(
            "a game day failed", hint="The lines above say which, and why."
        )


def _run_module(module: str, arguments: list[str]) -> int:
    """Run a module and return its exit code; interrupted, let it end its servers."""
    command = [sys.executable, "-m", module, *arguments]
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
