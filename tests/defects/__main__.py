"""Shows defects, or runs the example service with one: `python -m tests.defects`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.defects.defect import Defect, copy
from tests.defects.registry import DEFECTS


def main() -> None:
    """List the defects; show one; or run the service with it, as `python -m service`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.defects", description=__doc__
    )
    parser.add_argument("name", nargs="?", choices=DEFECTS, metavar="NAME")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="serve …")
    given = parser.parse_args()
    if not given.name:
        for each in DEFECTS.values():
            print(f"{each.name} ({each.probe}): {each.what}")
    elif given.arguments:
        _run(DEFECTS[given.name], given.arguments)
    else:
        _show(DEFECTS[given.name])


def _show(defect: Defect) -> None:
    print(f"{defect.what}\nnoticed by: {defect.probe}")
    for name, value in defect.settings.items():
        print(f"setting: SERVICE_{name.upper()}={value}")
    for edit in defect.edits:
        print(f"\n{edit.file}\n-{edit.old}\n+{edit.new}")


def _run(defect: Defect, arguments: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"{defect.name}-"))
    copy(folder)
    defect.plant(folder)
    print(f"the service with the defect {defect.name} is in {folder}", file=sys.stderr)
    settings = {
        f"SERVICE_{name.upper()}": each for name, each in defect.settings.items()
    }
    environment = {**os.environ, **settings, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "service", *arguments]
    os.execve(sys.executable, command, environment)  # it takes this process's place


if __name__ == "__main__":
    main()
