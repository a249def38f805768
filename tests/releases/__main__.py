"""Releases of the example service, good and bad ones, beside a client that writes.

    python -m tests.releases --record

prints a table of how each case ended, and writes it into docs/releases.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import signal
import sys
from pathlib import Path

from tests.releases.campaign import act, ground
from tests.releases.cases import CASES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "releases.md"
HEAD = """\
| case | exit codes | version | schema | failed requests | lost rows | seconds |
|---|---|---|---|---|---|---|
"""
_TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")


def main() -> int:
    """Act the cases; return 1 if one did not end as it must."""
    # A shell may have had it ignored, and what is started here with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(
        prog="python -m tests.releases", description=__doc__
    )
    parser.add_argument("names", nargs="*", help="cases, with * and ?; none: all")
    parser.add_argument("--record", action="store_true", help="write the table")
    given = parser.parse_args()
    chosen = [
        each
        for each in CASES.values()
        if not given.names
        or any(fnmatch.fnmatch(each.name, name) for name in given.names)
    ]
    rows, wrong = [], 0
    print(HEAD, end="", flush=True)
    with ground() as made:
        for case in chosen:
            try:
                ended = act(made, case)
            except AssertionError as error:
                wrong += 1
                print(f"{case.name}: {error}", flush=True)
                continue
            rows.append(ended.row(case))
            print(rows[-1], flush=True)
            for fault in ended.faults(case):
                wrong += 1
                print(f"  {fault}", flush=True)
    print(f"{len(chosen)} cases, {wrong} wrong")
    if given.record:
        table = HEAD + "".join(f"{each}\n" for each in rows)
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
