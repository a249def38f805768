"""A fleet at work for some minutes, faults at random, and the account of its sets.

    python -m tests.fleet --minutes 20 --databases 200 --workers 5

As root three of the workers have networks of their own. What happened stands in
`campaign.log` of the folder, beside what each worker and `fleet-status` said.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fleet.campaign import Size, campaign, interrupt_once, names
from tests.fleet.faults import KINDS, plan
from tests.fleet.network import is_possible


def main() -> int:
    """Run the campaign; return 1 if the account names anything."""
    interrupt_once()
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--databases", type=int, default=200)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--placed", type=int, default=3 if is_possible() else 0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--gap", type=float, default=15.0, help="between two faults")
    parser.add_argument("--settle", type=float, default=15.0, help="minutes at most")
    parser.add_argument("--folder", type=Path, help="a new one, which is kept")
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(KINDS)}; none: all")
    given = parser.parse_args()
    size = Size(
        databases=given.databases,
        workers=given.workers,
        placed=min(given.placed, given.workers),
        minutes=given.minutes,
        groups=min(10, given.databases),
    )
    with campaign(size, given.folder) as made:
        seconds = given.minutes * 60
        planned = plan(
            made.world,
            seed=given.seed,
            seconds=seconds,
            kinds=given.faults or tuple(KINDS),
            gap=given.gap,
        )
        print(f"seed {given.seed}, {len(planned)} faults planned", flush=True)
        began = time.monotonic()
        made.begin()
        made.strike(planned, seconds)
        made.settled(given.settle * 60)
        print(f"settled after {time.monotonic() - began:.0f} seconds", flush=True)
        figures = made.figures()
        faults = made.end()
        account = made.account(whole=True)
    for each in [*account.faults, *faults]:
        print(each)
    print(names(figures))
    print(
        f"{account.sources} databases, {account.sets} sets, {account.drilled} drilled, "
        f"{len(account.faults) + len(faults)} faults"
    )
    return 1 if account.faults or faults else 0


if __name__ == "__main__":
    sys.exit(main())
