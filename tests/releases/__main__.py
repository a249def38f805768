"""Releases of the example service, good and bad ones, beside a client that writes.

    python -m tests.releases --record

prints a row about each case, and writes it into the table in docs/releases.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import signal
import sys
from collections.abc import Mapping
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
    rows: dict[str, str] = {}
    wrong = 0
    print(HEAD, end="", flush=True)
    with ground() as made:
        for case in chosen:
            try:
                ended = act(made, case)
            except AssertionError as error:
                wrong += 1
                print(f"{case.name}: {error}", flush=True)
                continue
            print(ended.row(case), flush=True)
            if faults := ended.faults(case):
                wrong += 1
                print(*(f"  {each}" for each in faults), sep="\n", flush=True)
            else:
                rows[case.name] = ended.row(case)
    print(f"{len(chosen)} cases, {wrong} wrong")
    if given.record:
        record(rows)
    return 1 if wrong else 0


def record(rows: Mapping[str, str]) -> None:
    """Write rows into the table; those of other cases stay."""
    text = DOCUMENT.read_text(encoding="utf-8")
    known = recorded(text) | dict(rows)
    lines = [f"{known[name]}\n" for name in CASES if name in known]
    table = HEAD + "".join(lines)
    DOCUMENT.write_text(_TABLE.sub(lambda _: table, text), encoding="utf-8")


def recorded(text: str) -> dict[str, str]:
    """Return the rows of the table by their cases."""
    found = _TABLE.search(text)
    assert found is not None
    lines = found[0].removeprefix(HEAD).splitlines()
    return {each.split(" | ")[0].removeprefix("| "): each for each in lines}


if __name__ == "__main__":
    sys.exit(main())
