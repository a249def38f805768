"""Runs each workflow for users with act, and prints the end of each run's log.

    python -m tests.act
    python -m tests.act "release*"

Each case has a database, a store and a service of its own.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
import time
from pathlib import Path

from tests import s3_servers
from tests.act.cases import CASES, back_up, drill
from tests.act.project import ground, project
from tests.releases.site import Ground
from tests.s3_servers import S3Server


def main() -> int:
    """Run the cases; return 1 if one did not end as it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.act", description=__doc__)
    parser.add_argument("names", nargs="*", help="cases, with * and ?; none: all")
    names = parser.parse_args().names or ["*"]
    chosen = [
        case for case in CASES if any(fnmatch.fnmatch(case, name) for name in names)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="s3-") as folder,
        s3_servers.with_buckets("seaweedfs", Path(folder)) as server,
        ground() as made,
    ):
        wrong = [case for case in chosen if not _is_right(case, made, server)]
    print(f"{len(chosen)} cases, {len(wrong)} wrong: {', '.join(wrong)}")
    return 1 if wrong else 0


def _is_right(case: str, ground: Ground, server: S3Server) -> bool:
    began = time.monotonic()
    with project(ground, server) as made:
        try:
            if case.startswith(("release", "restore")):
                back_up(made)
            if case.startswith("release"):
                drill(made)
            ran = CASES[case](made)
        except AssertionError as error:
            print(f"## {case}: wrong\n\n{error}\n", flush=True)
            return False
    print(f"## {case} ({time.monotonic() - began:.0f} s)\n", flush=True)
    for each in ran:
        print(f"```\n{each.printed()}\n```\n", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
