"""Game days: breaks a running system for each runbook, and follows the runbook.

    python -m tests.gamedays --record

prints a row about each scenario, and writes it into the table in runbooks/README.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import sys

from tests.gamedays import table
from tests.gamedays.registry import SCENARIOS
from tests.gamedays.scenario import act
from tests.releases.campaign import ground


def main() -> int:
    """Act the scenarios; return 1 if one did not end as it must."""
    # A shell may have had it ignored, and what is started here with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(
        prog="python -m tests.gamedays", description=__doc__
    )
    parser.add_argument("names", nargs="*", help="scenarios, with * and ?; none: all")
    parser.add_argument("--record", action="store_true", help="write the table")
    given = parser.parse_args()
    wanted = given.names or ["*"]
    chosen = [n for n in SCENARIOS if any(fnmatch.fnmatch(n, each) for each in wanted)]
    wrong = 0
    print(table.HEAD, end="", flush=True)
    with ground() as made:
        for name in chosen:
            try:
                seen = act(made, SCENARIOS[name])
            except Exception as error:  # noqa: BLE001 - the others are acted all the same
                wrong += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            print(seen.row(), flush=True)
            if given.record:
                table.record(seen.row())
    print(f"{len(chosen)} game days, {wrong} wrong")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
