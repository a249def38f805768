"""What `inv --list` takes, and what it must not import."""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.measure import run
from benchmarks.options import Options, Part
from benchmarks.tables import markdown
from benchmarks.user import ROOT, plain_environment

HEAVY = ("boto3", "botocore", "alembic", "apscheduler", "psycopg", "pyrage")
_SECONDS_AT_MOST = 0.5
_RUNS_MIN = 5
_IMPORT_SECONDS_MAX = 60
_IMPORTED = re.compile(r"^import time:\s*\d+ \|\s*\d+ \|\s*(\S+)$", re.MULTILINE)


def measure_listing(options: Options, folder: Path) -> Part:
    """List the tasks several times; once more to see what is imported."""
    environment = plain_environment(folder)
    command = [*wrapper(), "--list"]
    runs = [
        run(command, folder=folder, environment=environment, timeout_seconds=60)
        for _ in range(max(_RUNS_MIN, options.rounds))
    ]
    seconds = median(each.seconds for each in runs)
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "opskit", "--list"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=_IMPORT_SECONDS_MAX,
        check=True,
    )  # fmt: skip
    heavy = heavy_imports(listed.stderr)
    rows = [
        ["seconds, median", f"**{seconds:.2f}**", f"under {_SECONDS_AT_MOST}"],
        [
            "of these, imported",
            ", ".join(heavy) or "none",
            f"none of {', '.join(HEAVY)}",
        ],
    ]
    return Part(
        name="list",
        text="## `inv --list`\n\n" + markdown(["what", "found", "must reach"], rows),
        data={"seconds": [each.seconds for each in runs], "imported": heavy},
    )


def wrapper() -> list[str]:
    """Return how tasks are called: by `inv`, if that would not remake the environment.

    A run that is only to measure must not change what other runs stand on.
    """
    made = ROOT / ".venv" / "requirements.lock"
    lock = ROOT / "requirements.lock"
    if made.exists() and filecmp.cmp(made, lock, shallow=False):
        return [str(ROOT / "inv")]
    return [sys.executable, "-m", "opskit"]


def heavy_imports(report: str) -> list[str]:
    """Return the heavy packages among what `-X importtime` reports, in order."""
    packages = {name.partition(".")[0] for name in _IMPORTED.findall(report)}
    return [each for each in HEAVY if each in packages]
